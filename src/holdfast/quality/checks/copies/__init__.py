"""Checks for similar rows: duplicates, near-duplicates, paraphrases, templates."""
