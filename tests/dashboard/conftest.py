"""Tests of the room ``dashboard/``."""
