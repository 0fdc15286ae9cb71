"""Is one model better than another? The same rows answered by both: a verdict with its errors, the
rows that would settle it, and where they differ."""
