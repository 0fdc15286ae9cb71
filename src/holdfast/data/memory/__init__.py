"""Rows in the memory of a Python program."""
