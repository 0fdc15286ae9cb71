"""What can be said of a model beside its score: found on validation rows, confirmed once on test
rows."""
