"""Choices and limits that depend on the machine."""
