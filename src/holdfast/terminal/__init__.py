"""What a person reads on standard error before and while a run goes on, at whichever door."""
