"""Terms of one group in the place of another's: the same text about somebody else.

Counterfactual data augmentation (1807.11714): where a name, a pronoun or a country goes with a
label, forms in which it is another's carry the same label, and nothing is left to learn from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.enrich.registry import ENRICHMENTS, Enrichment
from holdfast.enrich.settings import several, truth, words
from holdfast.enrich.terms.built_in import built_in
from holdfast.enrich.terms.forms import Mention, in_group, inserted, mentions
from holdfast.enrich.terms.lexicon import Axis, Block, read_lexicon
from holdfast.enrich.texts.base import EachText

BUILT_IN = "built-in"


def other_group(
    axis: Axis, text: str, rng: np.random.Generator, *, insert: bool = False
) -> str | None:
    """The text with its terms of ``axis`` as those of another group, drawn by ``rng``; of terms
    that are not matched any may come, the same for the same one. ``insert``: a text without terms
    gets one before it. ``None`` where there is nothing to change."""
    found = mentions(axis, text)
    if not found:
        blocks = [block for block in axis.blocks if block.insertable] if insert else []
        if not blocks:
            return None
        block = blocks[int(rng.integers(len(blocks)))]
        group = axis.groups[int(rng.integers(len(axis.groups)))]
        return inserted(block, text, group, int(rng.choice(block.insertable)))
    held = {one.group for one in found}
    # A text that names all groups is made one of one of them.
    others = [group for group in axis.groups if group not in held] or list(axis.groups)
    group = others[int(rng.integers(len(others)))]
    drawn: dict[tuple[int, str, int], int] = {}

    def pick(block: Block, _: str, one: Mention) -> int:
        key = (one.block, one.group, one.place)
        return drawn.setdefault(key, int(rng.integers(block.size)))

    return in_group(axis, text, group, found, pick)


@dataclass(frozen=True)
class Counterfactual(EachText):
    """``axes``: which of the lexicon's axes (all of them by default), of which each form changes
    one; ``terms``: the file of a lexicon of one's own; ``insert``: put a term before texts that
    have none. English, but for a lexicon of one's own."""

    axes: tuple[str, ...] = several()
    terms: str = words(BUILT_IN)
    insert: bool = truth(False)
    keeps_names = False

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``other_group``: the first axis in an order of chance that finds a term."""
        axes = self._axes()
        order = [axes[int(k)] for k in rng.permutation(len(axes))] if text.strip() else []
        for axis in order:
            new = other_group(axis, text, rng)
            if new is not None:
                return new
        if not order or not self.insert:
            return text
        return other_group(order[0], text, rng, insert=True) or text

    def ready(self) -> None:
        """Raises ``RecipeError`` where the file is none, or has no such axis."""
        self._axes()

    def _axes(self) -> list[Axis]:
        known = built_in() if self.terms == BUILT_IN else _read(self.terms)
        wrong = [name for name in self.axes if name not in known]
        if wrong:
            remedy = f"There are: {', '.join(known)}."
            rule = "names an axis that the lexicon has not"
            raise RecipeError("enrich.counterfactual.axes", rule, wrong[0], remedy)
        return [known[name] for name in self.axes or known]


_KNOWN: dict[str, dict[str, Axis]] = {}


def _read(path: str) -> dict[str, Axis]:
    if path not in _KNOWN:
        _KNOWN[path] = read_lexicon(path)
    return _KNOWN[path]


KNOWN = (
    "on 3,000 reviews with a planted name, a gap of 0.2 and more comes down to about nothing "
    "(benchmarks/fairness.py); 1807.11714 likewise for gender in two other tasks"
)
ENRICHMENTS.add("counterfactual", Enrichment(Counterfactual, "text", KNOWN))
