"""Other forms of pictures, one way a file."""
