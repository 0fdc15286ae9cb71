"""Sequence-to-sequence with encoder-decoder models."""
