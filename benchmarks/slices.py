"""Slices: how often one is found where there is none, and how often a planted one is found.

A model is simulated: rows are real texts, their confidences are a logistic head's on frozen
vectors, and which answers are wrong is drawn.
"""
