"""Slices of rows with more errors."""
