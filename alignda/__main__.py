"""`python -m alignda` is the command line."""

from alignda.cli import main

if __name__ == "__main__":
    main()
