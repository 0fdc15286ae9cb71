"""One fit: a plan, its parts put together, the loop, and what it leaves."""
