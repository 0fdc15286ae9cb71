"""Several labels a text."""
