"""What a model forgot of what it knew before."""
