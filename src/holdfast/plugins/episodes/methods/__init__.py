"""The ways to a start that adapts in a few steps, one a file."""

from __future__ import annotations

from holdfast.plugins.episodes.methods.embedding import Embedding
from holdfast.plugins.episodes.methods.prototypes import Prototypes

# What ``auto`` holds against the baseline.
METHODS = {Prototypes.name: Prototypes}
BASELINE = Embedding.name

__all__ = ["BASELINE", "METHODS", "Embedding", "Prototypes"]
