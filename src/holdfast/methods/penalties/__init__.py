"""Penalties on weights and answers."""
