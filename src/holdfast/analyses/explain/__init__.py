"""Explanations of predictions (feature attribution), and influential words per class."""
