"""The headline of a run and the advice whether to use the model."""
