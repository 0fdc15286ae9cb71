"""Confidence thresholds with a guarantee."""
