"""Split a table into training, validation and test rows that share no duplicates and no groups."""
