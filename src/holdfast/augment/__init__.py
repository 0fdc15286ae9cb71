"""Data augmentation: new rows from training rows, or other forms of them. Only training rows are
accepted."""
