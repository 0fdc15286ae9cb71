"""Learning rates over the steps, and which layers learn when."""
