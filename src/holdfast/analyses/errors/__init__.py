"""Error analysis: confusions, and the hardest rows with similar training rows."""
