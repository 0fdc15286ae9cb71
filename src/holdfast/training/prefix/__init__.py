"""Kept outputs of the frozen first layers."""
