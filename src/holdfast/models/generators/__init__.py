"""Generative models text."""
