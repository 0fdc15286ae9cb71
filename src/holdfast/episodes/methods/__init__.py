"""The ways to a start that adapts in a few steps, one a file."""

from __future__ import annotations

from holdfast.episodes.methods.anil import Anil
from holdfast.episodes.methods.embedding import Embedding
from holdfast.episodes.methods.maml import Maml
from holdfast.episodes.methods.prototypes import Prototypes
from holdfast.episodes.methods.reptile import Reptile

# In the order in which ``auto`` tries them: the cheap ones first.
METHODS = {one.name: one for one in (Prototypes, Anil, Reptile, Maml)}
BASELINE = Embedding.name

__all__ = ["BASELINE", "METHODS", "Anil", "Embedding", "Maml", "Prototypes", "Reptile"]
