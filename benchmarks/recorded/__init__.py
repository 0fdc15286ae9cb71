"""Real runs of the loop, recorded once with the truth beside them, so that rules can be compared
on the same courses without training again."""
