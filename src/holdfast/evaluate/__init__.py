"""Outputs to numbers with intervals: the honest score, comparisons, calibration, hard rows."""
