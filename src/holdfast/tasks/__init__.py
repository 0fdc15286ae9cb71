"""What differs between tasks: rows to batches, output to per-example losses and metrics."""
