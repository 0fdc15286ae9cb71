"""Noise while the network learns."""
