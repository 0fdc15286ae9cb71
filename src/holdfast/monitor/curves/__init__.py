"""Verdicts from the scalar curves of a log."""
