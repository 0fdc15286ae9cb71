"""The Python API: what the commands do, as functions, and a finished run."""
