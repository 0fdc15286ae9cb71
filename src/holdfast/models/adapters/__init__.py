"""Adapters, and quantised pretrained weights."""
