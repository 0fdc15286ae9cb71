"""Out-of-fold predictions for the audit of labels: from the folds of a cross-validated run, or from
fits on fine-tuned features that had not seen the row.

Why fine-tuned features: a frozen model's features separate some classes badly (the sentiment of
MR). A few updates of contrastive training separate them better, and learn few wrong labels, because
rare and random patterns are learned last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.contract.fit import class_count
from holdfast.contract.run_folder import SPLITS, open_run
from holdfast.core.decisions import decisions_to, notify
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision, Floats, Ints
from holdfast.core.run_files import FOLDS_FILE, RESTORE_REMEDY, check_files
from holdfast.core.seeds import derive_seed, generator
from holdfast.core.tasks import LABELLED_TEXT_TASKS
from holdfast.data.table import Table
from holdfast.fits.fit import fit
from holdfast.models.layers import count_parameters
from holdfast.models.probes.probe import stratified_folds
from holdfast.plan.defaults import default_for
from holdfast.prepare.model import prepare
from holdfast.quality.fold_predictions import log_softmax
from holdfast.quality.views import TableRows
from holdfast.recipe import Recipe
from holdfast.split.split_table import text_keys

FOLDS_KEY = "audit.folds"
REMEDY = "Name a `holdfast cv` run of these texts, with one class each, or leave the setting out."


def fold_log_probabilities(rows: TableRows, run: Path) -> Floats:
    """Log-probabilities [n, classes] of each row by fine-tuned models that had not seen it, the
    mean over repeats; a row without a fold (a dropped duplicate, for example) has the mean of all
    rows.

    Raises ``RecipeError`` if ``run`` is not a cross-validation of classes, or has other rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    result = open_run(run)
    names = rows.table.classes
    if "cv" not in result or set(result.get("classes") or ()) != set(names):
        rule = "is not a cross-validation of rows with these classes"
        raise RecipeError(FOLDS_KEY, rule, str(run), REMEDY)
    check_files(run, result, [FOLDS_FILE, SPLITS])
    with reading_errors(str(run), RunError, remedy=RESTORE_REMEDY):
        folds, splits = (parquet.read_table(run / name) for name in (FOLDS_FILE, SPLITS))
        read = pc.and_(pc.not_equal(splits["split"], "test"), pc.is_valid(splits["text_key"]))
        splits = splits.filter(read)
    _refuse_other_rows(rows, run, splits["row"].to_numpy(), splits["text_key"].to_numpy())
    folds = folds.filter(pc.is_in(folds["row"], pa.array(rows.table.column("row"), pa.int64())))
    order = [result["classes"].index(name) for name in names]
    probabilities = np.array(folds["probabilities"].to_pylist(), dtype=np.float64)[:, order]
    at = rows.table.positions_of(folds["row"].to_numpy())
    total, counts = np.zeros((len(rows.table), len(names))), np.zeros(len(rows.table))
    np.add.at(total, at, probabilities)
    np.add.at(counts, at, 1.0)
    known = counts > 0
    total[known] /= counts[known, None]
    total[~known] = total[known].mean(axis=0)
    because = (
        f"{FOLDS_KEY}: {int(known.sum()):,} of {len(known):,} rows have predictions of fine-tuned "
        f"models that were not trained on them, in {run}"
    )
    notify(Decision("label check", "uses out-of-fold predictions", because, prominent=True))
    return np.asarray(np.log(np.maximum(total, np.finfo(np.float64).tiny)))


def _refuse_other_rows(rows: TableRows, run: Path, run_rows: Ints, keys: Ints) -> None:
    """Raise ``RecipeError`` if the texts are not those of the run."""
    row_keys = {
        int(row): int(key)
        for row, key in zip(rows.table.column("row"), text_keys(rows.table), strict=True)
    }
    run_keys = {int(row): int(key) for row, key in zip(run_rows, keys, strict=True)}
    n_different = sum(run_keys.get(row) != key for row, key in row_keys.items())
    if n_different:
        rule = f"has other rows: {n_different:,} of {len(row_keys):,} texts differ"
        raise RecipeError(FOLDS_KEY, rule, str(run), REMEDY)


Progress = Callable[[str, int | None, int | None], None]
TUNED_KEY = "audit.tuned"
TUNED_FOLDS = 3
# The share of a fit's rows on which it is evaluated.
VALID_SHARE = 0.1
# Small batches, because the number of updates matters, and one epoch has few of them.
BATCH, MAX_STEPS = 16, 120
# Relative to the learning rate of fine-tuning, which changes little in one epoch.
LEARNING_RATE_FACTOR = 2
MIN_ROWS = 60
# One row forward and backward costs as much as three forward passes.
PASSES_PER_UPDATE = 3
# Each fit reads all rows about twice: for evaluations, and for predictions.
READS_PER_FIT = 2


@dataclass(frozen=True, slots=True)
class AuditFold:
    """The positions that one fit is trained on (``train``), evaluated on (``valid``), and predicts
    (``held_out``; no other fit predicts these)."""

    train: Ints
    valid: Ints
    held_out: Ints

    @property
    def batch(self) -> int:
        """Rows per update."""
        return min(BATCH, len(self.train))

    @property
    def steps(self) -> int:
        """Contrastive updates: fewer than one epoch, so that no fine-tuning follows, which would
        memorize single rows."""
        return max(1, min(MAX_STEPS, int(0.99 * len(self.train) / self.batch)))

    def settings(self, learning_rate: float) -> dict[str, Any]:
        """The settings of ``fit``; ``learning_rate`` is that of the contrastive updates."""
        return {
            "train.keep": "last",
            # A stage takes half of the budget; the rest is too little for another phase.
            "train.epochs": 2.001 * self.steps * self.batch / len(self.train),
            "control.policy": "off",
            "methods": {
                "contrast": {
                    "steps": self.steps,
                    "batch_size": self.batch,
                    "learning_rate": learning_rate,
                }
            },
        }


def refuse_untunable(recipe: Recipe, table: Table) -> None:
    """Raise ``RecipeError`` if these rows do not allow ``audit.tuned``."""
    if not recipe.audit.rows:
        raise RecipeError(
            TUNED_KEY, "needs a model that reads the rows", "audit.rows=0", "Set audit.rows."
        )
    one_class = table.columns.one_class and len(table.classes) > 1
    if recipe.task not in LABELLED_TEXT_TASKS or not one_class:
        rule = "needs texts with one class each"
        raise RecipeError(
            TUNED_KEY, rule, recipe.task, "Leave the setting out, or name the column with --label."
        )
    known = int((np.asarray(table.column("label")) >= 0).sum())
    if known < MIN_ROWS:
        rule = f"needs {MIN_ROWS} labelled rows: with fewer, a fit on some of them learns nothing"
        raise RecipeError(TUNED_KEY, rule, known, "Leave the setting out.")


def split_folds(labels: Ints, seed: int) -> tuple[tuple[AuditFold, ...], Ints]:
    """Three folds, stratified by class; and the rows that no fit is trained on and all fits
    predict, because they have no label or are the only one of their class."""
    folds = stratified_folds(labels, TUNED_FOLDS, derive_seed(seed, "tuned"))
    folds[labels < 0] = -1
    audit_folds = []
    for fold in range(TUNED_FOLDS):
        others = np.flatnonzero((folds >= 0) & (folds != fold))
        shuffled = generator(seed, "tuned", fold).permutation(others)
        n_valid = max(2, round(VALID_SHARE * len(shuffled)))
        train, valid = np.sort(shuffled[n_valid:]), np.sort(shuffled[:n_valid])
        audit_folds.append(AuditFold(train, valid, np.flatnonzero(folds == fold)))
    return tuple(audit_folds), np.flatnonzero(folds < 0)


def tuned_log_probabilities(
    rows: TableRows, recipe: Recipe, encoder: str, seconds: float, progress: Progress
) -> Floats:
    """Log-probabilities [n, classes] of each row, by a model tuned on two thirds of the others.

    Each fit begins with the ``encoder`` as it was loaded, takes updates of supervised contrastive
    training (``methods/contrast.py``), and ends with a linear probe on its own features; nothing is
    chosen by the rows that it predicts. ``seconds`` is the time that reading the rows once took,
    from which the cost is estimated and reported before the start.

    Of 1,600 rows of MR with 10 % of the labels exchanged, they raised the average precision of the
    pool from 0.519 to 0.540, in 80 s (``benchmarks/labels.py``, one draw).
    """
    labels = rows.labels
    folds, unassigned = split_folds(labels, recipe.seed)
    notify(_cost(folds, len(labels), seconds))
    # Decisions of the inner fits are not those of the audit, so they are not reported.
    with decisions_to(None):
        prepared = prepare(_fit_recipe(recipe, encoder), rows.table)
    size, _ = count_parameters(prepared.loaded.network)
    answers = np.zeros((len(labels), len(rows.table.classes)))
    for number, fold in enumerate(folds):
        progress("tuning features", number, TUNED_FOLDS)
        line = default_for(size, len(fold.train), prepared.loaded.defaults, class_count(prepared))
        settings = fold.settings(LEARNING_RATE_FACTOR * line.learning_rate)
        with decisions_to(None):
            fitted = fit(prepared, fold.train, fold.valid, settings)
        positions = np.concatenate([fold.held_out, unassigned])
        logits = np.asarray(fitted.measure(prepared.examples, positions)[1], dtype=np.float64)
        log_p = log_softmax(logits)
        answers[fold.held_out] = log_p[: len(fold.held_out)]
        answers[unassigned] += log_p[len(fold.held_out) :] / TUNED_FOLDS
    progress("tuning features", TUNED_FOLDS, TUNED_FOLDS)
    return log_softmax(answers)


def _cost(folds: Sequence[AuditFold], rows: int, seconds: float) -> Decision:
    row_passes = sum(
        PASSES_PER_UPDATE * fold.steps * fold.batch + READS_PER_FIT * rows for fold in folds
    )
    cost = max(1.0, seconds * row_passes / rows)
    because = (
        f"{TUNED_KEY}: each of {max(fold.steps for fold in folds)} contrastive updates; each fit "
        f"predicts the third of the rows that it was not trained on; about {cost:,.0f} s, "
        f"estimated from the {seconds:,.1f} s that reading the rows took"
    )
    return Decision("tuned features", f"{TUNED_FOLDS} fits", because, prominent=True)


def _fit_recipe(recipe: Recipe, encoder: str) -> Recipe:
    """The settings of model and machine in the audit's recipe, without those of a run's rows."""
    model, train = recipe.model, recipe.train
    model_settings = {
        "name": encoder,
        "trust_remote_code": model.trust_remote_code,
        "max_length": model.max_length,
        "revision": model.revision,
    }
    return (
        Recipe()
        .with_changes(
            model=model_settings if encoder == model.name else {"name": encoder},
            train={"threads": train.threads, "precision": train.precision, "matmul": train.matmul},
        )
        .model_copy(update={"task": LABELLED_TEXT_TASKS[0], "seed": recipe.seed})
    )
