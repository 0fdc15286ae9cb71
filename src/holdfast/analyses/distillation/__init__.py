"""Comparison of a distilled student with its teacher."""
