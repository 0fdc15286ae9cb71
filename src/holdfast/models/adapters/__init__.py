"""Adapters, and pretrained weights in few bits."""
