"""Code that a model wrote, run on a table in a process of its own, under limits."""
