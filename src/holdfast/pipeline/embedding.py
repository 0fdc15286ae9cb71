"""Texts as vectors: the mean of a frozen encoder's last hidden states, of unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Decision
from holdfast.models.purpose import purpose_of
from holdfast.recipe import Recipe
from holdfast.tasks.batching import by_length

if TYPE_CHECKING:
    from holdfast.models.classifier import LoadedClassifier

Vectors = npt.NDArray[np.float32]
EMBEDDED = "embedded"
TOKENS = 2048
# Texts that are tokenized at once: memory stays bounded whatever their number.
BLOCK = 4096
# The head is not used; two names are the fewest that a classifier has.
UNUSED = ("a", "b")


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder: ``encoder(texts)`` gives [n, d] float32 of unit length, equal texts equal
    rows. ``name`` is the model's, ``max_length`` where texts are cut, in tokens."""

    name: str
    loaded: LoadedClassifier

    @property
    def max_length(self) -> int:
        return self.loaded.max_length

    @property
    def tokenizer(self) -> Any:
        return self.loaded.tokenizer

    def __call__(
        self, texts: Sequence[str], done: Callable[[int], None] = lambda _: None
    ) -> Vectors:
        """The vectors of ``texts``; ``done`` hears how many different ones are through."""
        places = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        different = list(places)
        width = int(self.loaded.network.config.hidden_size)
        made = np.zeros((len(different), width), dtype=np.float32)
        for start in range(0, len(different), BLOCK):
            part = different[start : start + BLOCK]
            self._fill(made[start : start + BLOCK], part, lambda n, s=start: done(s + n))  # type: ignore[misc]
        return made[[places[text] for text in texts]]

    def _fill(self, into: Vectors, texts: list[str], done: Callable[[int], None]) -> None:
        import torch

        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length)
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
        through, network = 0, self.loaded.network
        with torch.inference_mode():
            for chosen in by_length(lengths, np.arange(len(texts)), TOKENS):
                rows = {name: [cells[at] for at in chosen] for name, cells in encoded.items()}
                batch = self.tokenizer.pad(rows, return_tensors="pt")
                vectors = network.embed(**batch).float()
                into[chosen] = torch.nn.functional.normalize(vectors, dim=1).numpy()
                through += len(chosen)
                done(through)


def load_encoder(recipe: Recipe) -> tuple[Encoder, tuple[Decision, ...]]:
    """The recipe's model where it is an encoder of texts, else the embedded one, with the reason.

    Raises ``ModelError`` where the model cannot be found or read.
    """
    from holdfast.models.classifier import load_classifier

    model = recipe.model
    told: tuple[Decision, ...] = ()
    name = model.name
    purpose = purpose_of(name, model.revision)
    if purpose not in ("encoder", None):
        because = f"the geometry of texts needs an encoder, and {name} is made for {purpose}"
        told, name = (Decision("vectors by", EMBEDDED, because),), EMBEDDED
    own = name == model.name
    loaded = load_classifier(
        name,
        UNUSED,
        revision=model.revision if own else None,
        trust_remote_code=model.trust_remote_code and own,
        max_length=model.max_length if own else None,
        seed=recipe.seed,
    )
    loaded.network.eval()
    return Encoder(name, loaded), told
