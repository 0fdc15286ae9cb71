"""The training pipeline, from the rows to the report."""
