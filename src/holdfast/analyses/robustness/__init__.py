"""Robustness: whether predictions survive changes that keep the meaning."""
