"""For whom a model is as good as for others."""
