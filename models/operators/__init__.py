"""What is observed, from what the state holds: one module for each family of operators, `recipes` to choose among them."""
