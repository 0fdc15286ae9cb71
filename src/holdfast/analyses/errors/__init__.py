"""What a model gets wrong, and near which training rows."""
