"""Listeners that report."""
