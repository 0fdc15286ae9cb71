"""The only composition root. ``main.py`` reads as the sentence; the rest fills in its words."""
