"""What the comparisons share: the rows, the arms (Holdfast and its peers), the tables."""
