"""Live comparison of the served model with a challenger: anytime-valid evidence from labels
(shadow) or from outcomes (A/B test)."""
