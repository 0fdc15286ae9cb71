"""Runs of good and bad recipes, what each action makes of them, and policies held against that."""
