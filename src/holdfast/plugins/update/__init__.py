"""A served run and labelled rows that came later: a newer run, and whether it may take over."""
