"""What every enrichment of texts shares: its settings, and how it is applied to rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from holdfast.augment.registry import setting
from holdfast.core.errors import ModelError
from holdfast.core.seeds import derive_seed

# A row of the training part as an enrichment is given it: its texts by the name of their column,
# and under ``label`` what it is labelled with.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextEnrichment(ABC):
    """Settings that all have, and the joint: rows and a seed each in, the rows in other forms out.

    ``share``: of the rows of an update, those that are passed in another form. ``copies``: how many
    forms a row has; 0 for a new one each time that it comes up. ``similarity``: a form whose vector
    has a smaller cosine to its text's is not used; 0 asks no encoder. ``protect``: terms that no
    form may lose. ``answers``: whether what a model is to write is rewritten too.
    A form that lost a name is not used, but of one whose work is to put another there
    (``keeps_names``).
    """

    share: float = setting(0.5, above=0, most=1)
    copies: int = setting(0, most=10_000)
    similarity: float = setting(0.0, least=0, most=1)
    protect: tuple[str, ...] = setting(())
    answers: bool = setting(False)
    keeps_names: ClassVar[bool] = True

    @abstractmethod
    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """Each text in another form, by its seed: the same for the same two, whatever else is
        asked with it. One that cannot be changed is given back as it is."""

    def forms(self, rows: Sequence[Row], parts: Sequence[str], seeds: Sequence[int]) -> list[Row]:
        """The rows with their ``parts`` in another form."""
        texts = [str(row[part]) for row in rows for part in parts]
        each = [
            seed if place == 0 else derive_seed(seed, "part", place)
            for seed in seeds
            for place in range(len(parts))
        ]
        new = iter(self.changes(texts, each))
        return [{**row, **{part: next(new) for part in parts}} for row in rows]

    def ready(self) -> None:
        """Load what it needs; raises ``MachineError`` or ``RecipeError`` where that is missing."""
        return


@dataclass(frozen=True)
class EachText(TextEnrichment):
    """One whose forms are made text by text, by ``change``."""

    @abstractmethod
    def change(self, text: str, rng: np.random.Generator) -> str:
        """Another form of a text, all chance coming from ``rng``."""

    def changes(self, texts: Sequence[str], seeds: Sequence[int]) -> list[str]:
        """See ``TextEnrichment.changes``."""
        return [
            self.change(text, np.random.default_rng(seed))
            for text, seed in zip(texts, seeds, strict=True)
        ]


def load_pretrained(auto: str, name: str, what: str, remedy: str) -> tuple[Any, Any]:
    """The tokenizer and the model, by a folder or a name on the hub: ``auto`` is the class of
    Transformers that loads it. Raises ``ModelError`` where it cannot be loaded."""
    import transformers

    from holdfast.models.loading.quiet import quiet_transformers

    try:
        with quiet_transformers():
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
            return tokenizer, getattr(transformers, auto).from_pretrained(name).eval()
    except (OSError, ValueError, KeyError) as error:
        rule = f"cannot be loaded as {what}: {str(error).splitlines()[0][:200]}"
        raise ModelError(name, rule, None, remedy) from error


def count_of(strength: float, words: int) -> int:
    """How many of ``words`` words a strength in (0, 1] changes: its share, at least one."""
    return max(1, round(strength * words))
