"""Scikit-learn's estimator."""
