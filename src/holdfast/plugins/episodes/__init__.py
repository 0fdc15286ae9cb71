"""Tasks of few rows: episodes, the methods that learn a start from them, and what it scores."""
