"""A source text and a target text."""
