"""Data checks: from a ``Table`` to ``Finding``s that would harm training or distort its scores."""
