"""Memorization: membership inference of training rows."""
