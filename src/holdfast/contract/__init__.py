"""What packages hand each other: prepared rows, fits, predictions, run folders."""
