"""The life of a run: its folder, its beginning, its score, its pages; reading a finished run."""
