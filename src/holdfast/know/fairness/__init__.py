"""For whom a model answers as well as for others, and whether it answers otherwise about others."""
