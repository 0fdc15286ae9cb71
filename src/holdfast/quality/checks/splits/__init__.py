"""Checks across splits, files and groups."""
