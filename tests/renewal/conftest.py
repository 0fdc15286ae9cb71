"""Tests of the room ``renewal/``."""
