"""Inference for a finished run in one thread: rows are parsed, wait in one queue, and are predicted
in batches."""
