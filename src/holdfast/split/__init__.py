"""A table and its groups → train, validation and test rows that share no copies."""
