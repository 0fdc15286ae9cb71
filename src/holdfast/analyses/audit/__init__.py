"""Data audit: checks for problems in the rows of a source before training."""
