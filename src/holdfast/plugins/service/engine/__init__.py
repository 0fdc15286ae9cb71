"""A finished run, asked by one thread: rows are read, wait in one line, are answered together."""
