"""Findings about feedback: rows with unusual scripts, and labels by a model that are less diverse
than those by annotators.

*Scripts*: look-alike letters within a word, and scripts that the run has never seen. Duplicates,
leakage and corrections are detected on normalized texts, in which look-alike letters are Latin
ones. These findings are reported whether or not such a row duplicates another.

*Diversity of labels*: before the update, after it, and of the labels that a model gave. A model
trained on its own outputs loses rare cases (Shumailov and others, 2305.17493). Together with rows
that people labelled it does not (Gerstgrasser and others, 2404.01413), which is why old rows are
replayed and rows labelled by a model are capped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow.compute as pc

from holdfast.core.records import Finding, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.data.texts.general import LOOK_ALIKE_PATTERN
from holdfast.duplicates.words import RowTexts
from holdfast.quality.clean.texts import MIXED

SCRIPTS = (
    *("Arabic", "Armenian", "Bengali", "Cyrillic", "Devanagari", "Georgian", "Greek", "Han"),
    *("Hangul", "Hebrew", "Hiragana", "Katakana", "Latin", "Tamil", "Telugu", "Thai"),
)


def mixed_words(table: Table) -> tuple[Ints, str]:
    """The positions of rows with a word that mixes Latin letters and look-alikes, as ``audit``
    finds them, and the first such word with its code points (empty without one)."""
    texts = RowTexts(table)
    positions, first = [], ""
    for position in _matching_rows(texts, LOOK_ALIKE_PATTERN).tolist():
        if (word := MIXED.search(texts[position])) is not None:
            positions.append(position)
            first = first or f"{word[0]!r} is {word[0]!a}"
    return np.array(positions, dtype=np.int64), first


def new_scripts(table: Table, known: Table) -> dict[str, Ints]:
    """By script, the positions of rows with a letter of it, where no row of ``known`` has one."""
    texts, old = RowTexts(table), RowTexts(known)
    rows_by_script = {name: _matching_rows(texts, rf"\p{{{name}}}") for name in SCRIPTS}
    return {
        name: rows
        for name, rows in rows_by_script.items()
        if len(rows) and not len(_matching_rows(old, rf"\p{{{name}}}"))
    }


def _matching_rows(texts: RowTexts, pattern: str) -> Ints:
    matched = pc.match_substring_regex(texts.arrow(0, len(texts)), pattern)
    return np.asarray(pc.indices_nonzero(pc.fill_null(matched, False)), dtype=np.int64)


# Labels by a model are reported where their diversity is below this share of the annotators'.
NARROW_RATIO = 0.7
MIN_ROWS = 20


@dataclass(frozen=True, slots=True)
class Spread:
    """The diversity of labels. ``measure`` is the effective number of classes (exp of the entropy
    of their shares, in nats; Hill 1973), or the share of distinct pairs of neighbouring words in
    generated text. ``people`` and ``own`` are compared on samples of the same size."""

    measure: str
    before: float | None
    after: float | None
    people: float | None
    own: float | None
    rows: int

    @property
    def ratio(self) -> float | None:
        """Diversity of the model's labels ÷ that of the annotators' labels; ``None`` with too few
        rows."""
        if not self.people or self.own is None or self.rows < MIN_ROWS:
            return None
        return self.own / self.people

    def finding(self) -> Finding | None:
        """A warning where a model's labels are less diverse than those by annotators."""
        ratio = self.ratio
        if ratio is None or ratio >= NARROW_RATIO:
            return None
        because = (
            f"the {self.rows:,} labels given by a model are less diverse than those by annotators "
            f"({self.measure}: {self.own:.3g} compared with {self.people:.3g}): a model trained on "
            "its own predictions loses rare cases"
        )
        remedy = "Have annotators label some of these rows, or lower --own."
        return Finding("own_labels_narrow", "warn", 1 - ratio, self.rows, (), because, remedy)

    def to_json(self) -> dict[str, Any]:
        return dict(to_json({**asdict(self), "ratio": self.ratio}))


def measure_spread(
    old_labels: Sequence[Any],
    annotator_labels: Sequence[Any],
    model_labels: Sequence[Any],
    *,
    generated: bool,
    seed: int,
) -> Spread:
    """Measure the diversity of the labels of old training rows, of rows labelled by annotators, and
    of rows labelled by a model; ``generated`` where labels are texts."""
    measure = distinct_pairs if generated else effective_classes
    name = "share of distinct pairs of words" if generated else "classes in effect"
    all_annotator_labels = [*old_labels, *annotator_labels]
    size = min(len(model_labels), len(all_annotator_labels))

    def sample(rows: Sequence[Any], which: str) -> list[Any]:
        order = generator(seed, "spread", which).permutation(len(rows))[:size]
        return [rows[int(i)] for i in order]

    annotator_spread, model_spread = (
        measure(sample(all_annotator_labels, "people")),
        measure(sample(model_labels, "own")),
    )
    return Spread(
        name,
        measure(old_labels),
        measure([*all_annotator_labels, *model_labels]),
        annotator_spread,
        model_spread,
        len(model_labels),
    )


def effective_classes(labels: Sequence[Any]) -> float | None:
    """exp(−Σ p log p) over the classes; with several labels per row, over all labels. ``None``
    without labels.

    >>> effective_classes(["a", "b", "a", "b"])
    2.0
    """
    flat = [one for row in labels for one in (row if isinstance(row, list) else [row])]
    if not flat:
        return None
    shares = np.array(list(Counter(map(str, flat)).values())) / len(flat)
    return round(math.exp(-float((shares * np.log(shares)).sum())), 12)


def distinct_pairs(texts: Sequence[str]) -> float | None:
    """Distinct pairs of neighbouring words ÷ all of them (distinct-2; Li and others 2016).

    >>> distinct_pairs(["a b a b"])
    0.6666666666666666
    """
    pairs = [pair for text in texts for pair in pairwise(str(text).split())]
    return len(set(pairs)) / len(pairs) if pairs else None
