"""Texts without labels, and words about texts."""
