"""Analyses of a model beyond its score: candidates are found on validation rows and confirmed once
on test rows."""
