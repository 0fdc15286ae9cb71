"""What a picture file tells of its class beside what it shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Ints
from holdfast.core.wording import counted, listing
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_classes
from holdfast.quality.views import Pictures
from holdfast.stats.auc import delong
from holdfast.stats.intervals import wilson

_LEAST_ROWS = 20
_COVERS = 0.1
_SURE = 0.83
_MEASURES = {"width": "pixels wide", "height": "pixels high", "shape": "in width to height"}
_PARTED = 0.9
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class _Cue:
    """A fact, its value, the class it gives away, and the positions of that class that have it."""

    fact: str
    value: str
    label: int
    rows: Ints
    share: float


@check(
    Pictures,
    cannot_see="A mark inside the picture (a logo, a ruler), or one in less than a tenth of a "
    "class.",
    error_rate="Each of five marks planted in half of a class of 60 pictures is found (size, "
    "format, compression, border, grey); none is found in CIFAR-10, MNIST and Omniglot.",
    holds_for=with_classes,
)
def image_giveaway(view: Pictures) -> CheckResult | None:
    """Reports a fact of the files that alone predicts the class: format, compression, exact size,
    transparency, a border, grey beside colour; width, height or shape beyond a limit.

    A value is a cue where at least 20 pictures of a class have it, a tenth of the class, and the
    lower 95 % limit of that class's share of all that have it is 83 % or more, and no less than two
    thirds of the way from the class's share of the table to 1. A measure is a cue where it parts a
    class from all others nearly perfectly (area under the ROC curve 0.9 or more at the lower
    limit). Score: the share of pictures given away; half of them is an error.
    """
    facts = [look.seen for look in view.looks]
    cues = [*_values(view, facts), *_measures(view)]
    return _found(view, cues, "image_giveaway")


@check(
    Pictures,
    cannot_see="A source that leaves nothing in the file; numbers in file names.",
    error_rate="Each of four marks planted in half of a class of 60 pictures is found (camera, "
    "software, date, form of the name); none is found in CIFAR-10, MNIST and Omniglot.",
    holds_for=with_classes,
)
def image_source(view: Pictures) -> CheckResult | None:
    """Reports what only the file carries (camera, software, date, metadata, the form of its name)
    where it alone predicts the class, by the rule of ``image_giveaway``. A network does not see
    it, but such classes were gathered in different places, which it may see. A name that holds its
    class's is no finding. Score: the share of pictures given away."""
    named = [name.casefold() for name in view.rows.table.classes]
    cues = [
        cue
        for cue in _values(view, [look.unseen for look in view.looks])
        if cue.fact != "file name" or named[cue.label] not in cue.value.casefold()
    ]
    return _found(view, cues, "image_source")


def _values(view: Pictures, facts: list[dict[str, str]]) -> Iterator[_Cue]:
    labels = view.rows.labels
    rows = np.bincount(labels[labels >= 0], minlength=len(view.rows.table.classes))
    for fact in facts[0]:
        values = np.array([one[fact] for one in facts], dtype=object)
        for value, count in Counter(values[labels >= 0].tolist()).items():
            has = (values == value) & (labels >= 0)
            label, hits = Counter(labels[has].tolist()).most_common(1)[0]
            if hits < max(_LEAST_ROWS, _COVERS * int(rows[label])):
                continue
            # Where nearly all pictures are of one class anything predicts it.
            low, base = wilson(hits, count)[0], float(rows[label] / rows.sum())
            if low < _SURE or low < 1 - (1 - base) / 3:
                continue
            mine = np.flatnonzero(has & (labels == label))
            yield _Cue(fact, value, label, mine, hits / count)


def _measures(view: Pictures) -> Iterator[_Cue]:
    labels = view.rows.labels
    known = labels >= 0
    measured = {
        "width": np.array([float(look.width) for look in view.looks]),
        "height": np.array([float(look.height) for look in view.looks]),
        "shape": np.array([look.shape for look in view.looks]),
    }
    for name, values in measured.items():
        for label in range(len(view.rows.table.classes)):
            mine = labels == label
            if mine.sum() < _LEAST_ROWS or mine.sum() == known.sum():
                continue
            area = delong(mine[known], values[known])
            high = area.value >= 0.5
            if max(area.low, 1 - area.high) < _PARTED:
                continue
            limit = np.quantile(values[mine], 0.05 if high else 0.95)
            words = f"{limit:.4g} {_MEASURES[name]} or {'more' if high else 'less'}"
            where = np.flatnonzero(mine & (values >= limit if high else values <= limit))
            yield _Cue(name, words, label, where, float(area.value))


def _found(view: Pictures, cues: list[_Cue], name: str) -> CheckResult | None:
    if not cues:
        return None
    # A PNG has no JPEG quality either: what marks the same pictures is said once.
    once = {cue.rows.tobytes(): cue for cue in reversed(cues)}
    cues = sorted(once.values(), key=lambda cue: (-len(cue.rows), cue.fact, cue.value))
    classes, ids = view.rows.table.classes, view.rows.ids
    rows = np.unique(np.concatenate([cue.rows for cue in cues]))
    share = len(rows) / len(view.paths)
    told = [
        f"{cue.fact} {cue.value!r} in {counted(len(cue.rows), 'picture')} of class "
        f"{classes[cue.label]!r} ({cue.share:.0%})"
        for cue in cues
    ]
    shown = listing(told, _SHOWN)
    seen = name == "image_giveaway"
    examples = tuple(
        CheckExample(int(ids[cue.rows[0]]), f"{cue.fact}: {cue.value}") for cue in cues[:_SHOWN]
    )
    return result(
        ids[rows],
        f"what is not shown gives the class away: {shown}"
        if seen
        else f"the files of a class come from a place of their own: {shown}",
        "Bring all pictures into one form (size, format, compression) before training: a network "
        "learns such marks instead of what is shown."
        if seen
        else "Test on pictures of each class from places that were not trained on.",
        score=share,
        severity=("error" if share >= 0.5 else "warn") if seen else "info",
        examples=examples,
    )
