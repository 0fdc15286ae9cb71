"""Search for exact duplicates, near-duplicates and paraphrases, within and between tables."""
