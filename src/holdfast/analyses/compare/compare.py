"""Two models compared on the same labelled rows: ``holdfast compare``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.analyses.compare.contender import (
    LABEL_TYPES,
    Contender,
    convert_predictions,
    load_contender,
)
from holdfast.analyses.compare.verdict import (
    PairedRows,
    PairedVerdict,
    by_class,
    check_margin,
    differing_rows,
    judge_pairs,
    pair_rows,
)
from holdfast.analyses.row_texts import LabelType, label_type_of, labels_of_rows, texts_of_rows
from holdfast.contract.advice import advising
from holdfast.contract.inference import InferenceOptions
from holdfast.contract.predictions import Groups, Predictions, groups_of
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RunError
from holdfast.core.printable import brief_repr
from holdfast.core.records import Decision, Ints, to_json
from holdfast.core.wording import about, count_phrase, signed
from holdfast.data.labels.spelling import match_spellings
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.runs.known_rows import KnownRows, find_known_rows

DEFAULT_MARGIN = 1.0
# benchmarks/decisions.py, the largest rate in twelve cells of 10,000 simulated pairs (100 to 3,000
# rows, 2 to 20 % discordant): equal models that were called better or worse (each of the two in
# 2.7 % at most), and models that differ by the margin that were called equivalent.
FALSE_WINS, FALSE_EQUIVALENCE = 0.049, 0.042


@dataclass(frozen=True)
class Comparison:
    """The result of ``compare``: the verdict on rows that neither model was trained on or chosen
    by, the verdict on ``all_rows`` if that differs, and the rows that differ. ``names`` are the two
    models as the user named them; ``class_differences`` the classes that only one of them knows."""

    names: tuple[str, str]
    pairs: PairedRows
    verdict: PairedVerdict
    differing_rows: Mapping[str, Any]
    all_rows: tuple[PairedRows, PairedVerdict] | None = None
    overlap: KnownRows | None = None
    class_differences: Mapping[str, Sequence[str]] | None = None
    warnings: tuple[str, ...] = ()
    from_stored: bool = False

    def __repr__(self) -> str:
        return brief_repr("Comparison", f"{self.names[0]} and {self.names[1]}", self.because)

    @property
    def because(self) -> str:
        """The verdict in one sentence."""
        return verdict_sentence(self.verdict, self.pairs)

    def to_json(self) -> dict[str, Any]:
        """The document of ``compare --json``."""
        document = _block(self.pairs, self.verdict)
        document = {
            "schema": 1,
            "verdict": document.pop("verdict"),
            "difference": document.pop("difference"),
            "rows_to_settle": document.pop("rows_to_settle"),
            "because": self.because,
            "a": {"name": self.names[0], **document.pop("a")},
            "b": {"name": self.names[1], **document.pop("b")},
            **document,
            "false_alarms": {
                "better_or_worse": FALSE_WINS,
                "equivalent": FALSE_EQUIVALENCE,
                "source": "benchmarks/decisions.py",
            },
            "differ": self.differing_rows,
            "seen": None if self.overlap is None else self.overlap.to_json(),
            "with_seen": None if self.all_rows is None else _block(*self.all_rows),
            "classes": self.class_differences,
            "stored_test_rows": self.from_stored,
            "warnings": list(self.warnings),
        }
        plain: dict[str, Any] = to_json(document)
        return plain


def _block(pairs: PairedRows, verdict: PairedVerdict) -> dict[str, Any]:
    """The numbers in the unit of the metric."""
    return {
        **verdict.to_json(pairs.scale),
        "metric": pairs.metric,
        "higher_is_better": pairs.higher_is_better,
        "a": {"value": pairs.first},
        "b": {"value": pairs.second},
    }


def verdict_sentence(verdict: PairedVerdict, pairs: PairedRows) -> str:
    """The verdict and its numbers in one sentence."""
    if verdict.why:
        return f"inconclusive: {verdict.why}"
    block = _block(pairs, verdict)
    share = pairs.scale == 1
    unit, factor = (" points", 100.0) if share else ("", 1.0)
    gap = block["difference"]
    size = f"{abs(gap['value']) * factor:.3g}{unit}"
    limits = f"{signed(gap['low'] * factor, '+.3g')} to {signed(gap['high'] * factor, '+.3g')}"
    margin = f"{block['margin'] * factor:.3g}{unit}"
    margin = margin.removesuffix("s") if margin == "1 points" else margin
    if verdict.verdict in ("better", "worse"):
        below_margin = ", less than the margin" if abs(verdict.value) < verdict.margin else ""
        return (
            f"A is {verdict.verdict} than B by {size} (A − B: 95 % CI {limits}{unit}){below_margin}"
        )
    if verdict.verdict == "equivalent":
        return f"A and B are equivalent: they differ by less than {margin}"
    rows = (
        "no practical number of rows would decide it"
        if verdict.rows_needed is None
        else f"{about(verdict.rows_needed - verdict.n)} more rows would decide it with a power of "
        "80 %"
    )
    return (
        f"inconclusive: the 95 % CI of A − B ({limits}{unit}) excludes neither 0 nor a difference "
        f"above {margin}; {rows}"
    )


def compare(
    a: str,
    b: str,
    data: str | None = None,
    *,
    margin: float = DEFAULT_MARGIN,
    options: InferenceOptions | None = None,
) -> Comparison:
    """Compare A with B on the rows of ``data``. ``margin`` is in points: of a share, or of the
    standard deviation of numeric labels. Without ``data``: on the rows that are test rows of both
    runs, by their stored predictions.

    Raises ``RecipeError``, ``DataError``, ``RunError`` or ``ModelError`` for what cannot be
    compared.
    """
    check_margin(margin)
    options = options or InferenceOptions()
    if data is None:
        return _compare_stored(a, b, margin / 100)
    refuse_missing(data)
    with advising():
        contenders = load_contender(a, options), load_contender(b, options)
        table = _labelled(contenders, data, options)
        for decision in table.decisions:
            notify(decision)
        predictions = [one.predict(data, options, table) for one in contenders]
    label_type = label_type_of(table)
    predictions = [
        convert_predictions(one, label_type, x)
        for one, x in zip(contenders, predictions, strict=True)
    ]
    if label_type == "text":
        notify(Decision("generated texts", "new", f"each model generates {len(table)} texts"))
    positions, warnings = _answered_by_both(table, predictions, contenders)
    table = table.take(positions)
    runs = [one.run for one in contenders if one.run is not None]
    with advising():
        overlap = find_known_rows(runs, table) if runs else None
    warnings += _unknown_overlap(contenders, overlap)
    return _make_comparison(contenders, table, predictions, margin / 100, overlap, warnings)


def _labelled(contenders: Sequence[Contender], data: str, options: InferenceOptions) -> Table:
    """The labelled rows, read by the first model that knows all of their labels."""
    readers = [one for one in contenders if one.predictor is not None]
    first_error: DataError | None = None
    for one in readers:
        try:
            return one.read(data, options)
        except DataError as error:
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    from holdfast.data.labels.texts import load_labelled
    from holdfast.data.options import RowOptions

    text, label, encoding = options.text, options.label, options.encoding
    return load_labelled(data, RowOptions(text, label, encoding=encoding, rare_below=1))


def _answered_by_both(
    table: Table, predictions: Sequence[Mapping[int, object]], contenders: Sequence[Contender]
) -> tuple[Ints, tuple[str, ...]]:
    """The positions of the rows that both models predict, and a warning about the others."""
    rows = table.column("row").tolist()
    positions = np.flatnonzero([all(row in one for one in predictions) for row in rows])
    if not len(positions):
        rule = "have no prediction for the same labelled row"
        remedy = "Give predictions whose `row` is the 0-based row of DATA."
        raise DataError(f"{contenders[0].path} and {contenders[1].path}", rule, None, remedy)
    n_left_out = len(rows) - len(positions)
    return positions, (
        f"{n_left_out} labelled rows without predictions of both are left out",
    ) if n_left_out else ()


def _unknown_overlap(contenders: Sequence[Contender], overlap: KnownRows | None) -> tuple[str, ...]:
    warnings = []
    if overlap is not None and overlap.why:
        warnings.append(f"the rows that the runs have seen are only partly known: {overlap.why}")
    unknown = [one.path for one in contenders if one.run is None]
    if unknown:
        warnings.append(f"whether {' and '.join(unknown)} was trained on these rows is unknown")
    return tuple(warnings)


def _make_comparison(
    contenders: Sequence[Contender],
    table: Table,
    predictions: Sequence[Mapping[int, object]],
    margin: float,
    overlap: KnownRows | None,
    warnings: tuple[str, ...],
) -> Comparison:
    rows = table.column("row")
    label_type, labels = label_type_of(table), labels_of_rows(table)
    aligned = [
        _match_spelling(label_type, labels, [one[int(row)] for row in rows]) for one in predictions
    ]
    if contenders[0].path == contenders[1].path:
        warnings = ("A and B are the same model: they cannot differ", *warnings)
    groups = groups_of(table)
    class_differences = (
        _class_differences(contenders) if label_type in ("class", "several") else None
    )
    all_judged = _judge_rows(label_type, labels, aligned, margin, groups, np.arange(len(rows)))
    unseen = np.arange(len(rows)) if overlap is None or overlap.unseen is None else overlap.unseen
    unseen_judged = all_judged
    if len(unseen) < len(rows):
        unseen_judged = _judge_rows(label_type, labels, aligned, margin, groups, unseen)
        n_left_out = len(rows) - len(unseen)
        warnings = (
            f"{n_left_out} rows that the runs were trained on or chosen by are left out",
            *warnings,
        )
    positions = [int(i) for i in unseen]
    shown = [[one[i] for i in positions] for one in (texts_of_rows(table), labels, *aligned)]
    counted = {"number": "the mean of the labels", "text": "0"}.get(label_type, "wrong")
    missing = [
        f"{one.path} has an empty or no prediction for {count_phrase(n, 'row')}, counted as "
        f"{counted}"
        for one, predicted in zip(contenders, shown[2:], strict=True)
        if (n := sum(x is None for x in predicted))
    ]
    warnings = (*warnings, *missing)
    differ: dict[str, Any] = {}
    if positions:
        differ = dict(differing_rows(unseen_judged[0], rows[unseen], *shown))
        unseen_groups = None if groups is None else groups[positions]
        differ["by_class"] = by_class(unseen_judged[0], shown[1], unseen_groups)
    return Comparison(
        (contenders[0].path, contenders[1].path),
        unseen_judged[0],
        unseen_judged[1],
        differ,
        all_judged if unseen_judged is not all_judged else None,
        overlap,
        class_differences,
        warnings,
    )


def _judge_rows(
    label_type: LabelType,
    labels: Sequence[object],
    predictions: Sequence[Sequence[object]],
    margin: float,
    groups: Groups | None,
    positions: Ints,
) -> tuple[PairedRows, PairedVerdict]:
    if not len(positions):
        return PairedRows("none", True, math.nan, math.nan, np.zeros(0)), judge_pairs(
            np.zeros(0), margin
        )
    selected = [[one[int(i)] for i in positions] for one in (labels, *predictions)]
    pairs = pair_rows(label_type, selected[0], selected[1], selected[2])
    row_groups = None if groups is None else groups[positions]
    return pairs, judge_pairs(pairs.gap, margin, row_groups)


def _match_spelling(
    label_type: LabelType, labels: Sequence[str], predictions: list[object]
) -> list[object]:
    """Classes in the spelling of the labels; a file of predictions may spell them differently."""
    if label_type != "class":
        return predictions
    texts = [None if one is None else str(one) for one in predictions]
    spelling = match_spellings({one for one in texts if one}, sorted(set(labels)))
    return [spelling.get(one, one) if one is not None else None for one in texts]


def _class_differences(contenders: Sequence[Contender]) -> dict[str, list[str]] | None:
    """The classes that only one of the two models knows."""
    one, two = (contender.names for contender in contenders)
    if one is None or two is None or set(one) == set(two):
        return None
    return {"only_a": sorted(set(one) - set(two)), "only_b": sorted(set(two) - set(one))}


def _compare_stored(a: str, b: str, margin: float) -> Comparison:
    """Compare on the common test rows of both runs, by their stored predictions."""
    from pathlib import Path

    from holdfast.core.run_files import RESULT_FILE
    from holdfast.runs.finished_run import FinishedRun

    runs: list[FinishedRun] = []
    for one in (a, b):
        if not (Path(one) / RESULT_FILE).is_file():
            raise RunError(
                one,
                "is not a finished run; without DATA compare needs stored test rows",
                None,
                f"Name the rows too: holdfast compare {a} {b} DATA.",
            )
        runs.append(FinishedRun(Path(one)))
        if not runs[-1].n_test:
            remedy = f"Name labelled rows too: holdfast compare {a} {b} DATA."
            raise RunError(
                one, "has no test rows; without DATA compare needs stored test rows", None, remedy
            )
    stored = [run.predictions_of("test") for run in runs]
    if any(one.predictions is None for one in stored):
        rule = "stored no predictions of its test rows"
        raise RunError(a, rule, None, "Name labelled rows: DATA.")
    shared = [one.take(at) for one, at in zip(stored, match_rows(*stored), strict=True)]
    if not len(shared[0]):
        raise RunError(
            f"{a} and {b}",
            "have no test row in common",
            ", ".join(sorted({str(one.table.source) for one in stored})),
            "Name rows that neither was trained on: holdfast compare A B DATA.",
        )
    _refuse_other_labels(a, b, shared)
    # The second run's predictions by the first run's row numbers.
    rows = shared[0].rows.tolist()
    answers = [
        {row: x for row, x in zip(rows, one.predictions or (), strict=True) if x is not None}
        for one in shared
    ]
    positions = [i for i, row in enumerate(rows) if all(row in one for one in answers)]
    n_left_out = len(stored[0]) + len(stored[1]) - 2 * len(positions)
    warnings = (f"{n_left_out} test rows of only one run are left out",) if n_left_out else ()
    contenders = [Contender(one, run=Path(one)) for one in (a, b)]
    comparison = _make_comparison(
        contenders, shared[0].table.take(positions), answers, margin, None, warnings
    )
    return replace(comparison, from_stored=True)


def match_rows(one: Predictions, other: Predictions) -> tuple[Ints, Ints]:
    """The positions [m], [m] in each of the rows that both hold: by row number if both were read
    from one source and equal numbers hold equal texts, else by text (``texts_of_rows``), the first
    duplicate with the first."""
    texts, others = texts_of_rows(one.table), texts_of_rows(other.table)
    if str(one.table.source) == str(other.table.source):
        _, first, second = np.intersect1d(one.rows, other.rows, return_indices=True)
        if all(texts[i] == others[j] for i, j in zip(first, second, strict=True)):
            return first.astype(np.int64), second.astype(np.int64)
    positions_by_text: dict[str, list[int]] = {}
    for place, text in reversed(list(enumerate(others))):
        positions_by_text.setdefault(text, []).append(place)
    pairs = [
        (place, positions_by_text[text].pop())
        for place, text in enumerate(texts)
        if positions_by_text.get(text)
    ]
    matches = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return matches[:, 0], matches[:, 1]


def _refuse_other_labels(a: str, b: str, predictions: Sequence[Predictions]) -> None:
    """Raise ``RunError`` if two runs on the same rows learned different columns: the predictions of
    one then do not belong to the labels of the other."""
    (label_type, labels), (other_type, other_labels) = (
        (label_type_of(one.table), list(map(str, labels_of_rows(one.table)))) for one in predictions
    )
    if label_type == other_type and labels == other_labels:
        return
    label_columns = [str(one.table.columns.label) for one in predictions]
    if label_type == other_type and label_columns[0] == label_columns[1]:
        return
    raise RunError(
        f"{a} and {b}",
        "predict different labels of the same rows",
        f"{LABEL_TYPES[label_type][0]} of {label_columns[0]!r}, "
        f"{LABEL_TYPES[other_type][0]} of {label_columns[1]!r}",
        "Compare models that were trained on the same labels.",
    )
