"""Labels: classes, sets of labels, numbers."""
