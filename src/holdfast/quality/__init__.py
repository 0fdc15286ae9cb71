"""From a ``Table`` to ``Finding``s: what in the data would spoil a training or its number."""
