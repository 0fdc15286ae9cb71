"""Which rows to label next, and what the labels say: pure functions of what was answered."""
