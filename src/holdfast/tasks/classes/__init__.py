"""Text classification with one class a text."""
