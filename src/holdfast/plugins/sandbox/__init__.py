"""A sandbox for generated code: it runs on a table in its own process, under limits."""
