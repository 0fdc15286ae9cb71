"""Forgetting: what a model lost of what its base model knew."""
