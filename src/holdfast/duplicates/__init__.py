"""Which rows are copies of each other, within a table and between tables."""
