"""Records that packages exchange: prepared rows, fits, predictions, run folders."""
