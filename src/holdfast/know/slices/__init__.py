"""Where a model fails: slices of rows that are wrong more often than the others. Searched on
validation rows, frozen, and tested once on the test rows."""
