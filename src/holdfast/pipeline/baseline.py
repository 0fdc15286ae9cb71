"""A baseline run: the same model on the same rows, with a naive split and fixed epochs.

Its own test rows are single rows drawn at random, so duplicates and rows of one group are in both
splits. The learning rate is five times the usual one, nothing stops the run, and its last
checkpoint is kept. Its own test rows give the score that such a run reports. The test rows of the
guarded run, which share no duplicate and no group with its training rows, give the true score, and
the guarded run's validation rows give the learning curves that a guard would have seen.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import run_recipe
from holdfast.contract.predictions import groups_of
from holdfast.core.decisions import decisions_to
from holdfast.core.files import write_text
from holdfast.core.lock import locked
from holdfast.core.records import Estimate, Ints, Outputs, Snapshot, to_json
from holdfast.core.run_files import read_result, write_result
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.fits.fit import fit
from holdfast.metrics.score import accuracy_estimate
from holdfast.prepare.model import concatenate, prepare
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe
from holdfast.report.page import write_report

if TYPE_CHECKING:
    import numpy.typing as npt

    from holdfast.core.events import Listener


LOG = "careless.csv"
TEST_SHARE = 0.15
RATE_TIMES = 5


def add_baseline_run(run: Path, listeners: Sequence[Listener] = ()) -> dict[str, Any]:
    """Train a baseline run for a finished run, add the block ``careless`` to its ``result.json``,
    write the log ``careless.csv`` for ``holdfast diagnose``, and write the report again.

    ``random_split``: the accuracy that the baseline run reports, with Wilson's interval for
    independent rows. ``honest``: the accuracy of the same model on the test rows of ``run``, with
    the effective number of rows of their groups. ``verdict``: the diagnosis of its curves on the
    validation rows of ``run``. ``because``: one sentence.
    """
    with decisions_to(None), locked(run):
        recipe = run_recipe(run)
        splits = load_and_divide(recipe).splits
        test_table = splits.test.open()
        rows, (train, valid, test) = concatenate(splits.train.table, splits.valid.table, test_table)
        train_part, own_test = _random_split(splits.train.table, recipe.seed)
        prepared = prepare(baseline_recipe(recipe), rows)
        fitted = fit(prepared, train[train_part], valid, listeners=listeners)
        random_score = _accuracy(fitted, train[own_test], None)
        groups = groups_of(test_table)
        test_score = _accuracy(fitted, test, groups)
        result = read_result(run)
        result["careless"] = _block(random_score, test_score, fitted)
        write_text(run / LOG, _curves_csv(fitted.trained.history))
        write_result(run, result)
        write_report(run)
        return result


def baseline_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the baseline run: five times the learning rate, constant, for as many steps,
    with a randomly initialized head and without early stopping."""
    train = recipe.train
    assert train.learning_rate is not None
    return recipe.with_changes(
        train={
            "learning_rate": RATE_TIMES * train.learning_rate,
            "epochs": 100.0 if train.max_steps else train.epochs,
            "schedule": "constant",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "keep": "last",
        },
        control={"policy": "off"},
        methods=dict.fromkeys(recipe.methods, False),
    )


def _random_split(table: Table, seed: int) -> tuple[Ints, Ints]:
    """Split the guarded run's training rows at random, stratified by class, into the baseline run's
    training rows and its own test rows."""
    from sklearn.model_selection import train_test_split

    state = int(generator(seed, "careless").integers(2**31))
    train, own_test = train_test_split(
        np.arange(len(table)),
        test_size=TEST_SHARE,
        stratify=np.asarray(table.column("label")),
        random_state=state,
    )
    return np.sort(train), np.sort(own_test)


def _accuracy(
    fitted: FittedModel, positions: Ints, groups: npt.NDArray[np.object_] | None
) -> Estimate:
    """The accuracy of the trained network on prepared rows."""
    examples: Any = fitted.training_plan.prepared.examples.take(positions)
    losses, logits = fitted.measure(examples)
    return accuracy_estimate(
        Outputs(examples.rows, examples.labels, logits.astype(np.float32), losses, groups)
    )


def _block(random_score: Estimate, test_score: Estimate, fitted: FittedModel) -> dict[str, Any]:
    return {
        "what": "careless fine-tune",
        "random_split": random_score.to_json(),
        "honest": test_score.to_json(),
        "because": _gap_sentence(random_score, test_score),
        "verdict": to_json(fitted.trained.verdict),
        "last_step": fitted.trained.last_step,
        "learning_rate": fitted.recipe.train.learning_rate,
        "log": LOG,
    }


def _gap_sentence(random_score: Estimate, test_score: Estimate) -> str:
    """How much the random split overstates the accuracy, and whether that may be chance."""
    if random_score.value is None or test_score.value is None:
        return "One of the two accuracies could not be measured."
    gap = 100 * (random_score.value - test_score.value)
    low, high = random_score.low, test_score.high
    is_apart = low is not None and high is not None and low > high
    if gap <= 0:
        return "Here the random split does not overstate the accuracy on new sources."
    certainty = "the 95 % CIs do not overlap" if is_apart else "which may be chance on so few rows"
    return (
        f"With the random split, the baseline run's accuracy is {gap:.1f} points higher "
        f"({certainty}). Near-duplicates and packages from one source are in both its training and "
        "its test rows."
    )


def _curves_csv(history: Sequence[Snapshot]) -> str:
    """One line per evaluation, in columns that ``holdfast diagnose`` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "train_loss", "eval_loss", "train_accuracy", "eval_accuracy"])
    for snapshot in history:
        shown = (
            snapshot.train_loss,
            snapshot.valid_loss,
            snapshot.train_metrics.get("accuracy"),
            snapshot.valid_metrics.get("accuracy"),
        )
        writer.writerow([snapshot.step, *(f"{value:.6f}" for value in shown if value is not None)])
    return text.getvalue()
