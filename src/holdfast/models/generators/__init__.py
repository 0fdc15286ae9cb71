"""Generative models for text."""
