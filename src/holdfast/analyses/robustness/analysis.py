"""Robustness: whether predictions survive changes that keep the meaning. The model predicts the
test rows again after each change, and errors before and after are paired by row.

The list of changes is fixed for every run, so that no change is selected by its result. For a
finished run it is another pass over the test rows, recorded in ``openings.jsonl``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, Session
from holdfast.analyses.robustness.perturbations import (
    IMAGE_CHANGES,
    TEXT_CHANGES,
    WORD_BY_WORD,
    perturb,
    why_unavailable,
)
from holdfast.analyses.row_scores import (
    ABSOLUTE,
    ENTITIES,
    WRONG,
    rate_estimate,
    row_errors,
    sentence_f1,
)
from holdfast.analyses.row_texts import decode_labels
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import GENERATIVE_TASKS, IMAGE_TASKS
from holdfast.data.table import Table
from holdfast.metrics.comparison import at_rate, untestable
from holdfast.metrics.resample import ResampledUnits, too_few
from holdfast.runs.finished_run import FinishedRun
from holdfast.stats.paired_tests import newcombe, paired_bootstrap
from holdfast.stats.two_samples import holm

MAX_ROWS = 500
TEXT_PARTS = ("text", "text_pair")
EXAMPLES = 3
ALPHA = 0.05


def refuse_task(task: str) -> None:
    """Raise ``RecipeError`` for generative models."""
    if task in GENERATIVE_TASKS:
        rule = "tests whether predictions flip, which is not defined for a generative model"
        remedy = "Leave the option out, and compare its texts with `holdfast evaluate`."
        raise RecipeError("holdfast errors --robustness", rule, task, remedy)


def robustness(run: FinishedRun) -> dict[str, Any]:
    """``robustness`` of ``errors --json``, which uses the test rows of a finished run again."""
    # Refuse the run before the test rows are used.
    names, test = find(run), run.test
    reopened = run.reopen("errors --robustness", names)
    block = confirm(names, run, test)
    rows = {"what": block["what"], "n": block["n"], "of": len(reopened.table)}
    return {**rows, "openings": reopened.count, **block}


def find(session: Session) -> tuple[str, ...]:
    """The changes that apply to such rows."""
    return tuple(IMAGE_CHANGES if session.recipe.task in IMAGE_TASKS else TEXT_CHANGES)


def confirm(names: tuple[str, ...], session: Session, test: Predictions) -> dict[str, Any]:
    """The effect of each change on at most 500 of the test rows (a fixed sample), and why other
    changes were skipped.

    The model predicts only the rows that a change really changed; the predictions before are known.
    """
    seed, n = session.recipe.seed, len(test)
    if n > MAX_ROWS:
        order = generator(seed, "robustness rows").permutation(n)
        test = test.take(np.sort(order[:MAX_ROWS]))
    unavailable = unavailable_changes(names, test.table)
    row_error = row_errors(test)
    pairs: dict[str, ChangedRows] = {}
    examples: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        for name in (one for one in names if one not in unavailable):
            table, changed = changed_rows(name, test.table, seed, Path(folder))
            notify(Decision(name, f"{len(changed)} of {len(test)} rows", "predicted when changed"))
            part = test.take(changed)
            predictions = session.predictor.predict_table(table).predictions if len(changed) else ()
            after = _values(part, predictions, row_error.measure)
            flipped = flipped_answers(part, predictions)
            pairs[name] = ChangedRows(row_error.values[changed], after, flipped, part.groups)
            examples[name] = _examples(part, table, predictions, flipped)
    results = judge_changes(pairs, seed=seed)
    return {
        "what": row_error.measure,
        "n": len(test),
        "changes": {name: {**results[name], "examples": examples[name]} for name in results},
        "not_made": unavailable,
        "false_alarm_rate": {"value": 0.05, "what": "at most, by Holm, for all changes together"},
    }


# Only the command runs this: each change costs a pass over the test rows.
ANALYSIS = Analysis("robustness", ("robustness",), find, confirm)


def unavailable_changes(names: Sequence[str], table: Table) -> dict[str, str]:
    """The changes that do not apply to these rows, each with the reason."""
    columns = table.rows.column_names
    reasons: dict[str, str] = {}
    for name in names if "path" not in columns else ():
        why = why_unavailable(name)
        if "tokens" in columns and name not in WORD_BY_WORD:
            why = "words would move away from their tags"
        if why is not None:
            reasons[name] = why
    return reasons


def changed_rows(name: str, table: Table, seed: int, folder: Path) -> tuple[Table, Ints]:
    """The rows that a change really changed, as changed, and their positions; changed images are
    written into ``folder``."""
    columns, rows = table.rows.column_names, table.column("row")
    new: dict[str, list[Any]] = {}
    if "path" in columns:
        new["path"] = []
        for path, row in zip(table.column("path"), rows, strict=True):
            to = folder / f"{name}-{int(row)}.png"
            _write_changed_image(path, to, name, generator(seed, name, int(row)))
            new["path"].append(str(to))
    elif "tokens" in columns:
        new["tokens"] = [
            _perturb_words(name, list(words), generator(seed, name, int(row)))
            for words, row in zip(table.column("tokens"), rows, strict=True)
        ]
    else:
        for part in TEXT_PARTS:
            if part in columns:
                new[part] = [
                    perturb(name, text, generator(seed, name, part, int(row)))
                    for text, row in zip(table.column(part), rows, strict=True)
                ]
    old = {part: table.column(part) for part in new}
    if "tokens" in old:
        old["tokens"] = list(map(list, old["tokens"]))
    positions = [k for k in range(len(table)) if any(new[p][k] != old[p][k] for p in new)]
    changed_table = table.take(np.asarray(positions, dtype=np.int64))
    for part, values in new.items():
        changed_table = changed_table.with_column(part, [values[k] for k in positions])
    return changed_table, np.asarray(positions, dtype=np.int64)


def _perturb_words(name: str, words: list[str], rng: np.random.Generator) -> list[str]:
    """The words of a sentence changed in place, or unchanged if their number would change."""
    new = perturb(name, " ".join(words), rng).split(" ")
    return new if len(new) == len(words) else words


def _write_changed_image(path: str, to: Path, name: str, rng: np.random.Generator) -> None:
    import torch
    from PIL import Image

    from holdfast.data.images.decode import read_image

    image = read_image(path).image.convert("RGB")
    pixels = torch.from_numpy(np.array(image, dtype=np.float32) / 255).permute(2, 0, 1)[None]
    changed = IMAGE_CHANGES[name](pixels, rng)[0].permute(1, 2, 0).numpy()
    Image.fromarray(np.rint(changed * 255).astype(np.uint8)).save(to)


def _values(original: Predictions, predictions: Sequence[object], measure: str) -> Floats:
    """The errors of other predictions for the same rows, as ``row_errors`` computes them."""
    if not len(predictions):
        return np.zeros(0)
    if measure == ABSOLUTE:
        targets = np.asarray(original.table.column("value"), dtype=np.float64)
        return np.asarray(np.abs(np.array([float(str(one)) for one in predictions]) - targets))
    if measure == ENTITIES:
        return 1.0 - sentence_f1(decode_labels(original.table), predictions)
    assert measure == WRONG
    labels: list[Any] = decode_labels(original.table)
    answers: list[Any] = list(predictions)
    if "labels" in original.table.rows.column_names:
        labels, answers = list(map(set, labels)), list(map(set, answers))
    return np.array([one != own for one, own in zip(answers, labels, strict=True)], np.float64)


def flipped_answers(original: Predictions, predictions: Sequence[object]) -> Bools:
    """Which predictions changed; for numbers, those that moved by more than the model's median
    error on these rows, since every number moves a little."""
    original_predictions = original.predictions or ()
    if original.errors is not None:
        one, other = (
            np.array([float(str(x)) for x in answers])
            for answers in (original_predictions, predictions)
        )
        median_error = float(np.median(np.abs(original.errors))) if len(original) else 0.0
        return np.asarray(np.abs(other - one[: len(other)]) > median_error)
    pairs = zip(original_predictions[: len(predictions)], predictions, strict=True)
    return np.array(
        [not same_answer(_plain(one), _plain(other)) for one, other in pairs], dtype=np.bool_
    )


def _plain(answer: object) -> object:
    return float(answer) if isinstance(answer, (float, np.floating)) else answer


def _examples(
    original: Predictions, table: Table, predictions: Sequence[object], flipped: Bools
) -> list[dict[str, Any]]:
    """Up to three rows whose prediction flipped, before and after the change."""
    columns = table.rows.column_names
    part = next((name for name in ("text", "tokens") if name in columns), None)
    original_predictions = original.predictions or ()
    examples = []
    for place in np.flatnonzero(flipped)[:EXAMPLES]:
        entry: dict[str, Any] = {
            "row": int(original.rows[place]),
            "answer": original_predictions[place],
            "then": predictions[place],
        }
        if part is not None:
            entry["text"] = original.table.column(part)[place]
            entry["changed"] = table.column(part)[place]
        examples.append(entry)
    return examples


@dataclass(frozen=True, slots=True, eq=False)
class ChangedRows:
    """Rows that a perturbation changed: their errors ``before`` and ``after`` [n], which
    predictions changed (``flipped`` [n]), and ``groups`` [n] where they exist."""

    before: Floats
    after: Floats
    flipped: Bools
    groups: Ints | None = None

    @property
    def is_rate(self) -> bool:
        return bool(np.isin(np.concatenate([self.before, self.after]), (0.0, 1.0)).all())


def judge_changes(pairs: Mapping[str, ChangedRows], *, seed: int) -> dict[str, dict[str, Any]]:
    """For each perturbation the rows that it changed, their mean error before and after, the paired
    difference with its interval (Newcombe's for rates; ``paired_bootstrap``'s for numbers and
    groups), the share of flipped predictions, and whether it is worse: one-sided p (McNemar's exact
    test, or that of ``paired_bootstrap``), adjusted by Holm for all perturbations, at 5 %."""
    names = list(pairs)
    compared = [_compared(pairs[name], seed, name) for name in names]
    p_values = np.array([p for _, p in compared])
    adjusted = holm(p_values) if len(names) else p_values
    results = {}
    for name, (difference, _), p in zip(names, compared, adjusted, strict=True):
        pair = pairs[name]
        flipped = Estimate(None, why="no row was changed")
        if len(pair.flipped):
            flipped = rate_estimate(pair.flipped, pair.groups)
        results[name] = {
            "n": len(pair.before),
            "before": _mean(pair.before),
            "after": _mean(pair.after),
            "difference": difference.to_json(),
            "flipped": flipped.to_json(),
            "p_value": float(p),
            "worse": bool(p <= ALPHA and (difference.value or 0.0) > 0),
        }
    return results


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _compared(pair: ChangedRows, seed: int, name: str) -> tuple[Estimate, float]:
    """The mean difference, and the one-sided p-value of "not above 0": 1 without an interval."""
    if not len(pair.before):
        return Estimate(None, why="no row was changed"), 1.0
    value = float((pair.after - pair.before).mean())
    if pair.is_rate and pair.groups is None:
        # P(X ≥ rows that got worse), X ~ Binomial(all rows that differ, ½).
        from scipy.special import bdtrc

        b, c = int((pair.after > pair.before).sum()), int((pair.after < pair.before).sum())
        p_value = 1.0 if b == 0 else float(bdtrc(b - 1, b + c, 0.5))
        return Estimate(value, *newcombe(pair.after > 0, pair.before > 0)), p_value
    units = ResampledUnits.by(pair.groups, len(pair.before))
    found = paired_bootstrap(
        pair.after,
        pair.before,
        seed=generator(seed, "robustness", name),
        groups=units.codes if units.grouped else None,
    )
    why = untestable(found, units)
    if why is None:
        return Estimate(value, found.low, found.high), 1.0 - found.above
    if pair.is_rate and too_few(units) is None:
        # Equal in all groups: one row for each, as ``comparison.compare``.
        before, after = (at_rate(one > 0, units.atoms) for one in (pair.before, pair.after))
        one_each = ChangedRows(before.astype(float), after.astype(float), after != before)
        return _compared(one_each, seed, name)
    return Estimate(value, why=why), 1.0


def same_answer(first: object, second: object) -> bool:
    """Whether two predictions are equal: numbers to one part in a million."""
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(first, Sequence) and not isinstance(first, str):
        return list(first) == list(second)  # type: ignore[call-overload, no-any-return]
    return first == second
