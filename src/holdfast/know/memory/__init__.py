"""What a model remembers of its training rows, by how it treats them and rows it never saw."""
