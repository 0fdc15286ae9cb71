"""Using finished runs by the names of their folders: score them on other rows, predict with one or
several.

The score of other rows beside the run's own test score: do the two differ, and by what?

A figure far from the run's own is news either way. Whether it differs is a two-sample test of the
same number a row; why is looked for in the data, and what was looked for is named, found or not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from holdfast.analyses.ensemble import join_as
from holdfast.analyses.row_scores import RowScores, compared, comparison_block, rate_name, same
from holdfast.analyses.row_texts import labels_of_rows, read_texts
from holdfast.analyses.threshold.analysis import answered_block
from holdfast.contract.advice import advising
from holdfast.contract.inference import Data, Options, within_limits
from holdfast.contract.predictions import groups_of, losses_of, tokens_of
from holdfast.core.decisions import notify
from holdfast.core.errors import HoldfastError, RunError
from holdfast.core.records import Floats, Ints
from holdfast.core.run_files import read_result
from holdfast.core.tasks import WRITERS
from holdfast.core.wording import p_words
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.monitor.confirmation import ALPHA, METRICS, RATES
from holdfast.quality.two_samples import proportions_differ
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.known_rows import NO_SPLIT, KnownRows, find_known_rows
from holdfast.runs.prediction_file import Predicted, json_object
from holdfast.runs.predictor import Predictor
from holdfast.runs.threshold import ThresholdRule
from holdfast.stats.two_samples import TwoSamples, two_samples

if TYPE_CHECKING:
    from holdfast.analyses.ensemble import Joining


def evaluate(
    runs: Path | Sequence[Path],
    data: str,
    options: Options | None = None,
    ensemble: str = "average",
) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of a run, or by
    several as an ``ensemble``; see ``scored_block``."""
    # A name with a mistake in it is told before the seconds that a model takes to load.
    refuse_missing(data)
    return scored_block(_loaded(runs, ensemble), data, options)


def _loaded(runs: Path | Sequence[Path], ensemble: str) -> Predictor:
    paths = [runs] if isinstance(runs, Path) else list(runs)
    return Predictor.load(paths, join_as(ensemble, paths))


def scored_block(predictor: Predictor, data: str, options: Options | None = None) -> dict[str, Any]:
    """``n`` and ``metrics`` of the labelled rows of ``data``.

    ``seen`` says how many of the rows the runs were trained on or chosen by (the same rows, or
    copies of them; a fit without a folder does not say); where there are any, ``without_seen`` is
    the score of the others. ``against_run`` compares the score with that of the run's own test
    rows (``against_run.py``). Of a run with a threshold, ``threshold`` says what it does to them.
    """
    options = options or Options()
    labelled = predictor.labelled(data, options)
    table = labelled.table
    notify(*predictor.decisions, *labelled.decisions, *table.findings)
    score = predictor.judge(table)
    block = score().to_json()
    if predictor.ensemble is not None:
        block["ensemble"] = predictor.ensemble
    if not predictor.runs:
        return block
    # The runs' own sources are read again, for the copies.
    with advising(), within_limits(predictor.part, options.limits):
        seen = find_known_rows(predictor.runs, table)
    block["seen"] = seen.to_json()
    if seen.unseen is not None and len(seen.unseen) < len(table):
        block["without_seen"] = score(seen.unseen).to_json()
    block["against_run"] = against_run(predictor, table, seen, block)
    if predictor.rule is not None:
        block["threshold"] = _by_rule(predictor, predictor.rule, table, seen.unseen)
    return block


def _by_rule(
    predictor: Predictor, rule: ThresholdRule, table: Table, unseen: Ints | None
) -> dict[str, Any]:
    """What the run's threshold does to the rows that it had not seen: how many are answered, and
    how many of them rightly."""
    table = table if unseen is None else table.take(unseen)
    made = predictor.answer(table)
    said, _, _ = rule.apply(made.predictions, made.confidence, made.probabilities)
    labels = labels_of_rows(table)
    given = np.array([one is not None for one in said], dtype=bool)
    right = np.array([same(a, b) for a, b in zip(labels, said, strict=True)], dtype=bool)
    return {"by": rule.by, "threshold": rule.threshold, **answered_block(given, right & given)}


def predict(
    runs: Sequence[Path],
    data: Data,
    options: Options | None = None,
    *,
    probabilities: bool = False,
    ensemble: str = "average",
) -> Predicted:
    """The predictions for a file as ``train`` reads them, or a list of texts: one a row, made part
    by part as they are read off."""
    if isinstance(data, str):
        refuse_missing(data)
    predictor = _loaded(runs, ensemble)
    predicted = predictor.predict(data, options, probabilities=probabilities)
    notify(*predictor.decisions, *predicted.decisions)
    return predicted


def predict_lines(runs: Sequence[Path], data: Data, options: Options | None = None) -> list[str]:
    """The predictions as one JSON object a row."""
    predicted = predict(runs, data, options)
    return [
        json.dumps(row, ensure_ascii=False)
        for part in predicted.parts()
        for row in json_object(predicted, part)
    ]


CHI_SQUARED = "chi-squared test"
# Classes by their share of the rows that are named.
NAMED = 3


def against_run(
    predictor: Predictor, table: Table, seen: KnownRows, block: Mapping[str, Any]
) -> dict[str, Any]:
    """``against_run`` of ``evaluate --json``: the score of these rows and of the run's test rows,
    from its stored predictions, with the test of their difference; where that is significant, the
    ``reasons`` that were looked for. ``{"why": …}`` where there is nothing to compare with.
    ``block`` is the score of the rows, and of those that were not ``seen``."""
    if len(predictor.runs) != 1:
        return {"why": "several runs were averaged, and no run has a test score of the average"}
    run = predictor.runs[0]
    result, again = read_result(run), FinishedRun(run)
    if result.get("meta") is not None or not (result.get("test") or {}).get("n"):
        return {"why": "the run has no test score of a single task"}
    known = int((seen.split_index != NO_SPLIT).sum())
    if known and known == len(seen.split_index):
        return {"why": "all of these rows are the run's own: training, validation or test rows"}
    here = _scores_here(predictor, table, block)
    try:
        own = _scores_of_run(again, here.metric)
    except RunError as error:
        return {"why": f"{error.what} {error.rule}"}
    found = compared(own, here)
    made = comparison_block(here.metric, found, ("run", "here"))
    if found.why is not None:
        return made
    differs = found.p_value < ALPHA
    because = _words(here.metric, found)
    if known and not differs:
        because += f"; {known:,} of these rows are the run's own, which makes the two alike"
    made |= {"differs": differs, "because": because, "reasons": []}
    if differs:
        others = _scores_of_others(here, seen, block.get("without_seen") or {})
        # What was looked for in the data: found true or false, null where it could not be; others
        # are the scores of the rows that the run had not seen.
        made["reasons"] = [
            _copies(seen, others, own),
            _classes(again, table, own),
            *_of_texts(again, table),
        ]
    return made


def _scores_here(predictor: Predictor, table: Table, block: Mapping[str, object]) -> RowScores:
    groups = groups_of(table)
    if groups is None and (known := _of_rate(block, rate_name(table))) is not None:
        return known
    if FinishedRun(predictor.runs[0]).recipe.task in WRITERS:
        with predictor.alone():
            losses = cast("Joining", predictor.model).row_losses(table)
        return RowScores.of_losses(np.asarray(losses, dtype=np.float64), groups)
    metric = "mae" if predictor.answered == "number" else rate_name(table)
    said = predictor.answer(table).predictions
    return RowScores.of_answers(metric, labels_of_rows(table), said, groups)


def _of_rate(block: Mapping[str, Any], metric: str) -> RowScores | None:
    """Of independent rows that are right or wrong their share says everything: no row is answered
    twice."""
    value = ((block.get("metrics") or {}).get(metric) or {}).get("value")
    if value is None:
        return None
    n = int(block["n"])
    return RowScores(metric, (np.arange(n) < round(value * n)).astype(np.float64))


def _scores_of_others(
    here: RowScores, seen: KnownRows, block: Mapping[str, object]
) -> RowScores | None:
    """Of the rows that the run had not seen; ``None`` where there are none, or all are."""
    known = seen.unseen
    if known is None or not 0 < len(known) < len(seen.split_index):
        return None
    if here.groups is None and (found := _of_rate(block, here.metric)) is not None:
        return found
    if len(here.values) != len(seen.split_index):
        return None
    groups = None if here.groups is None else np.asarray(here.groups)[known]
    return RowScores(here.metric, here.values[known], groups)


def _scores_of_run(again: FinishedRun, metric: str) -> RowScores:
    """Of the stored predictions, without the run's own source."""
    columns = again.stored("test")
    groups = _groups_of_run(again, columns["row"].to_pylist())
    if metric == "loss":
        tokens = tokens_of(columns)
        if tokens is None:
            rule = "keeps losses of rows and not of tokens: it was trained by an older version"
            raise RunError(str(again.run), rule, None, "Train it again.")
        return RowScores.of_losses(losses_of(columns), groups, tokens)
    if metric == "mae" and "error" in columns.column_names:
        return RowScores(metric, np.abs(columns["error"].to_numpy().astype(np.float64)), groups)
    label, said = columns["label"].to_pylist(), columns["prediction"].to_pylist()
    return RowScores.of_answers(metric, label, said, groups)


def _groups_of_run(again: FinishedRun, rows: Sequence[int]) -> list[str] | None:
    """The groups of its test rows, as they stand in ``splits.parquet``; ``None`` without."""
    if again.recipe.data.group is None:
        return None
    table = again.divided()
    lines = zip(*(table[name].to_pylist() for name in ("row", "split", "group")), strict=True)
    named = {row: group for row, split, group in lines if split == "test" and group is not None}
    return [named[row] for row in rows] if all(row in named for row in rows) else None


def _words(metric: str, found: TwoSamples) -> str:
    here, run = (_shown(metric, value) for value in (found.second, found.first))
    p = p_words(found.p_value, found.test)
    both = (
        f"{METRICS[metric]} is {here} on these {found.n_second:,} rows and {run} on the run's own "
        f"{found.n_first:,} test rows"
    )
    if found.p_value < ALPHA:
        return f"{both}: the difference is significant ({p})"
    return f"{both}: no difference can be shown ({p})"


def _shown(metric: str, value: float) -> str:
    return f"{100 * value:.1f} %" if metric in RATES else f"{value:.3g}"


def _reason(check: str, found: bool | None, because: str) -> dict[str, Any]:
    return {"check": check, "found": found, "because": because}


def _copies(seen: KnownRows, others: RowScores | None, own: RowScores) -> dict[str, Any]:
    """Rows that the run learned from, or that chose its checkpoint, and copies of them."""
    name = "rows also in training"
    if seen.unseen is None:
        return _reason(name, None, f"not checked: {seen.why}")
    learned = len(seen.split_index) - len(seen.unseen)
    if not learned:
        return _reason(name, False, "no row or near-duplicate of one was in training or validation")
    told = (
        f"{learned} of {len(seen.split_index)} rows, or near-duplicates of them, were in training or "
        "validation"
    )
    if others is None:
        return _reason(name, True, told)
    found = compared(own, others)
    return _reason(name, True, f"{told}; without them: {found.why or _words(own.metric, found)}")


def _classes(again: FinishedRun, table: Table, own: RowScores) -> dict[str, Any]:
    """Another mix of classes, and what the run's own classes would score in that mix."""
    name = "another class mix"
    if own.metric != "accuracy":
        return _reason(name, None, "not checked: it needs one class label per row")
    labels = labels_of_rows(table), again.stored("test")["label"].to_pylist()
    names = sorted({*map(str, labels[0]), *map(str, labels[1])})
    new, old = (np.array([Counter(map(str, one))[n] for n in names]) for one in labels)
    p_value = proportions_differ(old, new)
    if p_value >= ALPHA:
        alike = f"no difference in class shares can be shown ({p_words(p_value, CHI_SQUARED)})"
        return _reason(name, False, alike)
    shares = {n: (b / old.sum(), a / new.sum()) for n, a, b in zip(names, new, old, strict=True)}
    most = sorted(shares, key=lambda n: -abs(shares[n][1] - shares[n][0]))[:NAMED]
    said = ", ".join(
        f"{n} {100 * shares[n][1]:.0f} % (was {100 * shares[n][0]:.0f} %)" for n in most
    )
    told = f"the class shares differ ({p_words(p_value, CHI_SQUARED)}): {said}"
    expected = _expected(names, new, [str(one) for one in labels[1]], own.values)
    if expected is not None:
        told += f"; with the run's accuracy per class, these shares alone would give {expected}"
    return _reason(name, True, told)


def _expected(names: Sequence[str], new: Ints, labels: Sequence[str], right: Floats) -> str | None:
    """The accuracy of the run's test rows, its classes weighed as here."""
    found = np.array(labels)
    if any(count and not (found == name).any() for name, count in zip(names, new, strict=True)):
        return None
    rates = [right[found == name].mean() if (found == name).any() else 0.0 for name in names]
    return f"{100 * float(np.dot(rates, new) / new.sum()):.1f} %"


def _of_texts(again: FinishedRun, table: Table) -> list[dict[str, Any]]:
    """Length and groups, which need the run's own rows: its source is read again."""
    names = ("another text length", "another source")
    try:
        own = again.table("test")
    except HoldfastError as error:
        why = f"not checked: the run's own rows cannot be read ({error.what} {error.rule})"
        return [_reason(name, None, why) for name in names]
    return [_lengths(names[0], own, table), _groups(names[1], own, table)]


def _lengths(name: str, own: Table, table: Table) -> dict[str, Any]:
    before, now = read_texts(own), read_texts(table)
    if before is None or now is None:
        return _reason(name, None, "not checked: the rows are not texts")
    old, new = (np.array([float(len(text.split())) for text in one]) for one in (before, now))
    found = two_samples(np.log1p(old), np.log1p(new))
    if found.why is not None:
        return _reason(name, None, f"not checked: {found.why}")
    medians = f"median {np.median(new):.0f} words here, {np.median(old):.0f} in the run's test rows"
    differs = found.p_value < ALPHA
    words = "text lengths differ" if differs else "no difference in text length can be shown"
    test = p_words(found.p_value, f"{found.test} on the logarithm of the word count")
    return _reason(name, differs, f"{words}: {medians} ({test})")


def _groups(name: str, own: Table, table: Table) -> dict[str, Any]:
    if not (own.has_groups and table.has_groups):
        why = "not checked: the rows or the run have no group column (data.group)"
        return _reason(name, None, why)
    known, new = set(own.column("group")), set(table.column("group"))
    shared = len(known & new)
    if shared == len(new):
        return _reason(name, False, "every group also occurs in the run's test rows")
    told = f"{len(new) - shared} of {len(new)} groups do not occur in the run's test rows"
    return _reason(name, True, told)
