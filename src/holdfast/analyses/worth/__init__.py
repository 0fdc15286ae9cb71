"""Whether tuning a model that writes was worth it: against the model that it began from."""
