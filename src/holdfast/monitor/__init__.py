"""Snapshots to a verdict; pure functions of the history."""
