"""What the terminal shows on standard error before and during a run."""
