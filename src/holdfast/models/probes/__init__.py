"""Classifiers in closed form on fixed features, and what they say of a model."""
