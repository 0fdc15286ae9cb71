"""Checks of labels and classes."""
