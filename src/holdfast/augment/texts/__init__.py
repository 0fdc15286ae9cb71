"""Text augmentations."""
