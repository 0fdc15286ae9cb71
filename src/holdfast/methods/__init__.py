"""Regularizers, schedules and optimizers: a pure function first, then a thin final class."""
