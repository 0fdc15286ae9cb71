"""Checks for what gives a label away."""
