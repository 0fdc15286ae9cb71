"""A challenger next to the model in service: which model answers, the comparison, and the
promotion."""
