"""Model selection among several pretrained models."""
