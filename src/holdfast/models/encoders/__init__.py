"""Encoders of texts with a head: classifiers and taggers."""
