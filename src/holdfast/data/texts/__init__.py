"""General-purpose texts and text utilities."""
