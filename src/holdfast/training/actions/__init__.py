"""What actions change of a run."""
