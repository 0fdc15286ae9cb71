"""Which of several models."""
