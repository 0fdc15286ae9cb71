"""Checks for rows that are alike."""
