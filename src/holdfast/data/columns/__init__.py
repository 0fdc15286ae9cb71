"""Which column plays which part."""
