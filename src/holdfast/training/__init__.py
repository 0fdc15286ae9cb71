"""Splits, task, methods and advisors in; a run out. ``loop.py`` is the drawing."""
