"""Two models compared on the same labelled rows: ``holdfast compare``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.analyses.compare.contender import KINDS, Contender, answers_for, contender
from holdfast.analyses.compare.verdict import (
    PairedRows,
    PairedVerdict,
    by_class,
    differing_rows,
    judge_pairs,
    paired,
)
from holdfast.analyses.row_texts import AnswerKind, kind_of_rows, labels_of_rows, texts_of_rows
from holdfast.contract.advice import advising
from holdfast.contract.inference import Options
from holdfast.contract.predictions import Predictions
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RecipeError, RunError
from holdfast.core.printable import brief
from holdfast.core.records import Decision, Ints, to_json
from holdfast.data.labels.spelling import match_spellings
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.runs.known_rows import KnownRows, find_known_rows

POINTS = 1.0
# benchmarks/decisions.py, the most in twelve cells of 10,000 simulated pairs (100 to 3,000 rows,
# 2 to 20 % discordant): equal models that were called better or worse (either in 2.7 % at most),
# and models that differ by the margin that were called equivalent.
FALSE_WINS, FALSE_EQUIVALENCE = 0.049, 0.042


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found: the verdict on rows that neither model had seen, the ``whole`` of all
    rows beside it where that is another number, and where the two differ. ``names`` are the two as
    the user named them; ``classes`` those that only one of them knows."""

    names: tuple[str, str]
    pairs: PairedRows
    found: PairedVerdict
    differ: Mapping[str, Any]
    whole: tuple[PairedRows, PairedVerdict] | None = None
    seen: KnownRows | None = None
    classes: Mapping[str, Sequence[str]] | None = None
    warnings: tuple[str, ...] = ()
    stored: bool = False

    def __repr__(self) -> str:
        return brief("Comparison", f"{self.names[0]} and {self.names[1]}", self.because)

    @property
    def because(self) -> str:
        """The answer in a sentence."""
        return sentence(self.found, self.pairs)

    def to_json(self) -> dict[str, Any]:
        """The document of ``compare --json``."""
        made = _block(self.pairs, self.found)
        made = {
            "schema": 1,
            "verdict": made.pop("verdict"),
            "difference": made.pop("difference"),
            "rows_to_settle": made.pop("rows_to_settle"),
            "because": self.because,
            "a": {"name": self.names[0], **made.pop("a")},
            "b": {"name": self.names[1], **made.pop("b")},
            **made,
            "false_alarms": {
                "better_or_worse": FALSE_WINS,
                "equivalent": FALSE_EQUIVALENCE,
                "source": "benchmarks/decisions.py",
            },
            "differ": self.differ,
            "seen": None if self.seen is None else self.seen.to_json(),
            "with_seen": None if self.whole is None else _block(*self.whole),
            "classes": self.classes,
            "stored_test_rows": self.stored,
            "warnings": list(self.warnings),
        }
        plain: dict[str, Any] = to_json(made)
        return plain


def _block(pairs: PairedRows, found: PairedVerdict) -> dict[str, Any]:
    """The numbers in the metric's own unit."""
    return {
        **found.to_json(pairs.scale),
        "metric": pairs.metric,
        "higher_is_better": pairs.higher_is_better,
        "a": {"value": pairs.first},
        "b": {"value": pairs.second},
    }


def sentence(found: PairedVerdict, pairs: PairedRows) -> str:
    """The verdict with its numbers, in words."""
    if found.why:
        return f"inconclusive: {found.why}"
    block = _block(pairs, found)
    share = pairs.scale == 1
    unit, times = (" points", 100.0) if share else ("", 1.0)
    gap = block["difference"]
    size = f"{abs(gap['value']) * times:.3g}{unit}"
    limits = f"{gap['low'] * times:+.3g} to {gap['high'] * times:+.3g}"
    margin = f"{block['margin'] * times:.3g}{unit}"
    margin = margin.removesuffix("s") if margin == "1 points" else margin
    interval = f"the interval of A − B, {limits}{unit}"
    if found.verdict in ("better", "worse"):
        less = " (less than the margin)" if abs(found.value) < found.margin else ""
        return f"A is {found.verdict} than B by {size}{less}; {interval}"
    if found.verdict == "equivalent":
        return f"A and B are equivalent: they differ by less than {margin}"
    rows = (
        "no practical number of rows would decide it"
        if found.rows is None
        else f"about {found.rows - found.n:,} more rows would decide it with a power of 80 %"
    )
    return f"inconclusive: {interval}, excludes neither 0 nor a difference above {margin}; {rows}"


def compare(
    a: str,
    b: str,
    data: str | None = None,
    *,
    margin: float = POINTS,
    options: Options | None = None,
) -> Comparison:
    """Is A better than B on the rows of ``data``? ``margin`` in points: of a share, or of the
    standard deviation of labels that are numbers. Without ``data``: on the rows that were test
    rows of both runs, by their stored answers.

    Raises ``RecipeError``, ``DataError``, ``RunError`` or ``ModelError`` for what cannot be
    compared.
    """
    if not 0 < margin < 100 or not math.isfinite(margin):
        rule = "must lie between 0 and 100 points"
        raise RecipeError("--margin", rule, margin, "E.g. --margin 1 for one point.")
    options = options or Options()
    if data is None:
        return _on_stored(a, b, margin / 100)
    refuse_missing(data)
    with advising():
        sides = contender(a, options), contender(b, options)
        table = _labelled(sides, data, options)
        for made in table.decisions:
            notify(made)
        said = [one.answers(data, options) for one in sides]
    kind = kind_of_rows(table)
    said = [answers_for(one, kind, x) for one, x in zip(sides, said, strict=True)]
    if kind == "text":
        notify(Decision("answers", "written anew", f"each model writes to {len(table)} rows"))
    kept, warnings = _answered(table, said, sides)
    table = table.take(kept)
    runs = [one.run for one in sides if one.run is not None]
    with advising():
        seen = find_known_rows(runs, table) if runs else None
    warnings += _not_known(sides, seen)
    return _compared(sides, table, said, margin / 100, seen, warnings)


def _labelled(sides: Sequence[Contender], data: str, options: Options) -> Table:
    """The labelled rows, as the first model reads them that knows all of their labels."""
    reading = [one for one in sides if one.predictor is not None]
    refused: DataError | None = None
    for one in reading:
        try:
            return one.read(data, options)
        except DataError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    from holdfast.data.labels.texts import load_labelled
    from holdfast.data.options import RowOptions

    text, label, encoding = options.text, options.label, options.encoding
    return load_labelled(data, RowOptions(text, label, encoding=encoding, rare_below=1))


def _answered(
    table: Table, said: Sequence[Mapping[int, object]], sides: Sequence[Contender]
) -> tuple[Ints, tuple[str, ...]]:
    """The positions of rows that both models answer, and what is said of the others."""
    rows = table.column("row").tolist()
    kept = np.flatnonzero([all(row in one for one in said) for row in rows])
    if not len(kept):
        raise DataError(
            f"{sides[0].path} and {sides[1].path}",
            "answer none of the labelled rows alike",
            None,
            "Give predictions whose `row` is the 0-based row of DATA.",
        )
    left = len(rows) - len(kept)
    return kept, (f"{left} labelled rows have no answer of both and are left out",) if left else ()


def _not_known(sides: Sequence[Contender], seen: KnownRows | None) -> tuple[str, ...]:
    told = []
    if seen is not None and seen.why:
        told.append(f"which rows the runs had seen is not known in full: {seen.why}")
    unknown = [one.path for one in sides if one.run is None]
    if unknown:
        told.append(f"whether {' and '.join(unknown)} had learned from these rows is not known")
    return tuple(told)


def _compared(
    sides: Sequence[Contender],
    table: Table,
    said: Sequence[Mapping[int, object]],
    margin: float,
    seen: KnownRows | None,
    warnings: tuple[str, ...],
) -> Comparison:
    rows = table.column("row")
    kind, labels = kind_of_rows(table), labels_of_rows(table)
    made = [_like_labels(kind, labels, [one[int(row)] for row in rows]) for one in said]
    groups = table.column("group") if table.has_groups else None
    only = _only(sides) if kind in ("class", "several") else None
    whole = _judged(kind, labels, made, margin, groups, np.arange(len(rows)))
    unseen = np.arange(len(rows)) if seen is None or seen.unseen is None else seen.unseen
    part = whole
    if len(unseen) < len(rows):
        part = _judged(kind, labels, made, margin, groups, unseen)
        left = len(rows) - len(unseen)
        warnings = (f"{left} rows had been learned from or chosen by, and are left out", *warnings)
    at = [int(i) for i in unseen]
    shown = [[one[i] for i in at] for one in (texts_of_rows(table), labels, *made)]
    differ: dict[str, Any] = {}
    if at:
        differ = dict(differing_rows(part[0], rows[unseen], *shown))
        differ["by_class"] = by_class(part[0], shown[1])
    return Comparison(
        (sides[0].path, sides[1].path),
        part[0],
        part[1],
        differ,
        whole if part is not whole else None,
        seen,
        only,
        warnings,
    )


def _judged(
    kind: AnswerKind,
    labels: Sequence[object],
    said: Sequence[Sequence[object]],
    margin: float,
    groups: Sequence[object] | None,
    at: Ints,
) -> tuple[PairedRows, PairedVerdict]:
    if not len(at):
        return PairedRows("none", True, math.nan, math.nan, np.zeros(0)), judge_pairs(
            np.zeros(0), margin
        )
    some = [[one[int(i)] for i in at] for one in (labels, *said)]
    pairs = paired(kind, some[0], some[1], some[2])
    own = None if groups is None else [groups[int(i)] for i in at]
    return pairs, judge_pairs(pairs.gap, margin, own)


def _like_labels(kind: AnswerKind, labels: Sequence[str], said: list[object]) -> list[object]:
    """Classes in the spelling of the labels: a file of predictions may write them otherwise."""
    if kind != "class":
        return said
    made = [None if one is None else str(one) for one in said]
    spelled = match_spellings({one for one in made if one}, sorted(set(labels)))
    return [spelled.get(one, one) if one is not None else None for one in made]


def _only(sides: Sequence[Contender]) -> dict[str, list[str]] | None:
    """The classes that one of the two alone knows."""
    one, two = (side.names for side in sides)
    if one is None or two is None or set(one) == set(two):
        return None
    return {"only_a": sorted(set(one) - set(two)), "only_b": sorted(set(two) - set(one))}


def _on_stored(a: str, b: str, margin: float) -> Comparison:
    """The rows that were test rows of both, by what both stored of them."""
    from pathlib import Path

    from holdfast.core.run_files import RESULT
    from holdfast.runs.finished_run import FinishedRun

    for one in (a, b):
        if not (Path(one) / RESULT).is_file():
            raise RunError(
                one,
                "is no finished run, and without DATA stored test rows are compared",
                None,
                f"Name the rows too: holdfast compare {a} {b} DATA.",
            )
    told = [FinishedRun(Path(one)).told("test") for one in (a, b)]
    if any(one.predictions is None for one in told):
        raise RunError(a, "stored no answers to its test rows", None, "Name labelled rows: DATA.")
    same = [one.take(at) for one, at in zip(told, same_rows(*told), strict=True)]
    if not len(same[0]):
        raise RunError(
            f"{a} and {b}",
            "have no test row in common",
            ", ".join(sorted({str(one.table.source) for one in told})),
            "Name rows that neither had learned from: holdfast compare A B DATA.",
        )
    _refuse_other_labels(a, b, same)
    # The second's answers by the first's row numbers.
    rows = same[0].rows.tolist()
    answers = [
        {row: x for row, x in zip(rows, one.predictions or (), strict=True) if x is not None}
        for one in same
    ]
    at = [i for i, row in enumerate(rows) if all(row in one for one in answers)]
    left = len(told[0]) + len(told[1]) - 2 * len(at)
    warnings = (f"{left} test rows of one of the two are left out",) if left else ()
    sides = [Contender(one, run=Path(one)) for one in (a, b)]
    found = _compared(sides, same[0].table.take(at), answers, margin, None, warnings)
    return replace(found, stored=True)


def same_rows(one: Predictions, other: Predictions) -> tuple[Ints, Ints]:
    """Where the rows that both hold stand in each [m], [m]: by their numbers where both were read
    from one source and rows of one number hold the same, else by what they hold
    (``texts_of_rows``), of copies the first with the first."""
    texts, others = texts_of_rows(one.table), texts_of_rows(other.table)
    if str(one.table.source) == str(other.table.source):
        _, first, second = np.intersect1d(one.rows, other.rows, return_indices=True)
        if all(texts[i] == others[j] for i, j in zip(first, second, strict=True)):
            return first.astype(np.int64), second.astype(np.int64)
    there: dict[str, list[int]] = {}
    for place, text in reversed(list(enumerate(others))):
        there.setdefault(text, []).append(place)
    pairs = [(place, there[text].pop()) for place, text in enumerate(texts) if there.get(text)]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _refuse_other_labels(a: str, b: str, told: Sequence[Predictions]) -> None:
    """Two runs on the same rows may have learned other columns of them: one's answers are then no
    answers to the labels of the other."""
    (kind, labels), (other, others) = (
        (kind_of_rows(one.table), list(map(str, labels_of_rows(one.table)))) for one in told
    )
    if kind == other and labels == others:
        return
    named = [str(one.table.columns.label) for one in told]
    if kind == other and named[0] == named[1]:
        return
    raise RunError(
        f"{a} and {b}",
        "answer other questions about the same rows",
        f"{KINDS[kind][0]} of {named[0]!r}, {KINDS[other][0]} of {named[1]!r}",
        "Compare models that learned the same labels.",
    )
