"""The science: arrays in, arrays out. Knows no HTTP, no SQL and no archive."""
