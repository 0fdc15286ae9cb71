"""What commands print of their documents; in Python, a notebook shows the same text."""
