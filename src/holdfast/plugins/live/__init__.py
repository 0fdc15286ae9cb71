"""A model in service and a challenger, compared while they serve: anytime-valid evidence from
labels or from outcomes."""
