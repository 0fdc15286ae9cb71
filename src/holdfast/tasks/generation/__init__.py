"""Shared parts of the tasks that generate text."""
