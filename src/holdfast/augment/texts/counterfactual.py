"""Terms of one group in the place of another's: the same text about somebody else.

Counterfactual data augmentation (1807.11714): where a name, a pronoun or a country goes with a
label, forms in which it is another's carry the same label, and nothing is left to learn from it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from holdfast.augment.registry import EachText, enrichment, setting
from holdfast.augment.terms.forms import Mention, in_group, inserted, mentions
from holdfast.augment.terms.lexicon import Axis, TermBlock, built_in, read_lexicon
from holdfast.core.errors import RecipeError

BUILT_IN = "built-in"
_lexicon = functools.cache(read_lexicon)


def any_group(
    axis: Axis, text: str, rng: np.random.Generator, *, insert: bool = False
) -> str | None:
    """The text with its terms of ``axis`` as those of a group that ``rng`` draws, its own as likely
    as any other: so group and label are independent in the forms, which they would not be if the
    own group were left out. Of terms that are not matched any may come, for the same one the same.
    ``insert``: a text without terms gets one before it. ``None`` where there is nothing to change.
    """
    found = mentions(axis, text)
    group = axis.groups[int(rng.integers(len(axis.groups)))]
    if not found:
        blocks = [block for block in axis.blocks if block.insertable] if insert else []
        if not blocks:
            return None
        block = blocks[int(rng.integers(len(blocks)))]
        return inserted(block, text, group, int(rng.choice(block.insertable)))
    drawn: dict[tuple[int, str, int], int] = {}

    def pick(block: TermBlock, _: str, one: Mention) -> int:
        key = (one.block, one.group, one.place)
        return drawn.setdefault(key, int(rng.integers(block.size)))

    return in_group(axis, text, group, found, pick, anew=True)


@enrichment(
    "counterfactual",
    "text",
    "of a name planted in 1,500 reviews, its effect of 32 and 45 points came down to 0.6 and 1.1 "
    "(benchmarks/RESULTS.md); 1807.11714 likewise for gender in two other tasks",
)
@dataclass(frozen=True)
class Counterfactual(EachText):
    """``axes``: which of the lexicon's axes are changed, each by itself (all of them by default);
    ``terms``: the file of a lexicon of one's own; ``insert``: put a term before texts that have
    none. ``share`` is all rows here, since a form may be the row's own group's. English, but for a
    lexicon of one's own."""

    share: float = setting(1.0, above=0, most=1)
    axes: tuple[str, ...] = setting(())
    terms: str = setting(BUILT_IN)
    insert: bool = setting(False)
    keeps_names = False

    def change(self, text: str, rng: np.random.Generator) -> str:
        """See ``any_group``, of each axis in turn."""
        axes, new, changed = self._axes(), text, False
        for axis in axes:
            other = any_group(axis, new, rng)
            new, changed = (new, changed) if other is None else (other, True)
        if changed or not self.insert or not text.strip():
            return new
        return any_group(axes[int(rng.integers(len(axes)))], text, rng, insert=True) or text

    def ready(self) -> None:
        """Raises ``RecipeError`` where the file is none, or has no such axis."""
        self._axes()

    def _axes(self) -> list[Axis]:
        known = built_in() if self.terms == BUILT_IN else _lexicon(self.terms)
        wrong = [name for name in self.axes if name not in known]
        if wrong:
            remedy = f"There are: {', '.join(known)}."
            rule = "names an axis that the lexicon has not"
            raise RecipeError("enrich.counterfactual.axes", rule, wrong[0], remedy)
        return [known[name] for name in self.axes or known]
