"""Searches over settings, recorded once and replayed as often as one likes."""
