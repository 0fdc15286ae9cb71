"""Rows that a Python program holds."""
