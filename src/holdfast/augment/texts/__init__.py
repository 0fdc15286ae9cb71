"""Other forms of texts, one way a file."""
