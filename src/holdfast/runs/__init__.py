"""The life of a run: its folder, its beginning, its score, its pages; and a stored one again."""
