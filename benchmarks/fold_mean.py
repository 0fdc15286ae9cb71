"""Is the mean of a run's fold models, or of its model and the linear probe that it began as, better
than the run's own model?

    python benchmarks/fold_mean.py --jobs 2

The default with 100 and 400 labelled rows: two folds, each of which learns from half of the rows,
and a model of all rows, which is kept. On the same test rows are scored: that model; the mean of
the probabilities of all three; the mean of the weights of all three, and of the folds' alone; the
mean of the probabilities of the model and the linear probe; and weights between theirs. Sets with a
class of fewer than four rows have no folds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from cells import Cell, Result, grid, run_command
from claims import Claim, Lines, Metric, comparison, melt, paired
from peers.arms import write_recipe
from peers.process import commit
from peers.sets import SETS

from quality import rows_of

NAME = "fold_mean"
KEPT, PROBABILITIES, WEIGHTS, OF_FOLDS = (
    "own model",
    "mean of probabilities",
    "mean of weights",
    "mean of the folds' weights",
)
PROBE = "linear probe"
WITH_PROBE = "mean of probabilities with the linear probe"
# Shares of the way from the weights of the linear probe to those of the run's own model.
BETWEEN = {
    f"weights {share:g} of the way from the linear probe": share for share in (0.5, 0.7, 0.85)
}
# How a reader knows them.
NAMES = {
    KEPT: "saved model",
    PROBABILITIES: "ensemble (mean probabilities)",
    WEIGHTS: "weight average",
    OF_FOLDS: "weight average of the folds' models",
    WITH_PROBE: "ensemble with the linear probe",
    **{
        name: f"weight interpolation, {share:g} of the fine-tuned weights"
        for name, share in BETWEEN.items()
    },
}
State = Mapping[str, Any]


def cells() -> list[Cell]:
    few = grid(seed=range(2), rows=(100,), data=SETS)
    return [*few, *grid(seed=[0], rows=(400,), data=SETS)]


def run_one(cell: Cell) -> Result | None:
    from scipy.special import softmax

    from holdfast.methods.averages import interpolate
    from holdfast.training.observe import Observer

    found = run_with_folds(cell)
    if found is None:
        return None
    fitted, folds, test = found
    of_folds = [state for state, _ in folds]
    network: Any = fitted.network
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    own = copied(network)

    def logits(state: State) -> Any:
        network.load_state_dict(state)
        return observer.measure(network, test, np.arange(len(test)))[1]

    every = [own, *of_folds]
    probe = {**own, **fitted.trained.initial_tensors}
    assert probe.keys() == own.keys()
    of_own, of_probe, *others = (logits(state) for state in (own, probe, *of_folds))
    answers = {
        KEPT: of_own,
        WITH_PROBE: softmax(of_own, axis=1) + softmax(of_probe, axis=1),
        PROBE: of_probe,
        **{name: logits(interpolate(probe, own, share)) for name, share in BETWEEN.items()},
        PROBABILITIES: sum(softmax(one, axis=1) for one in (of_own, *others)),
        WEIGHTS: logits(mean(every)),
        OF_FOLDS: logits(mean(of_folds)),
    }
    right = {
        name: float((one.argmax(axis=1) == test.labels).mean()) for name, one in answers.items()
    }
    return {**right, "commit": commit()}


def run_with_folds(cell: Cell, *settings: str) -> tuple[Any, list[tuple[State, Any]], Any] | None:
    """The default's fit on the rows of a cell, the weights and training rows of its folds' models,
    and the test rows, encoded; nothing where the rows cannot be divided into folds."""
    from holdfast.fits import cross_fitting
    from holdfast.fits.row_use import learning_rows
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe
    from holdfast.tasks.classes.encoding import encode
    from holdfast.training.loop import fit as train

    parts = rows_of(cell["data"], cell["rows"], cell["seed"])
    of_folds: list[tuple[State, Any]] = []

    def keep_weights(job: Any) -> Any:
        trained = train(job)
        of_folds.append((copied(job.network), job.train))
        return trained

    with tempfile.TemporaryDirectory() as place:
        recipe = read_recipe(write_recipe(parts.whole(), Path(place), cell["seed"], whole=True))
        divided = load_and_divide(override(recipe, ["train.threads=1", *settings]))
        learning = learning_rows(divided.recipe, divided)
        if not learning.folds:
            return None
        with mock.patch.object(cross_fitting, "train", keep_weights):
            fitted = learning.fit()
        loaded = learning.prepared.loaded
        assert loaded.max_length is not None
        test = encode(divided.splits.test.open(), loaded.tokenizer, loaded.max_length)
    return fitted, of_folds, test


def copied(network: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def mean(states: Sequence[State]) -> dict[str, Any]:
    """The mean of each weight; of numbers that are no weights the first."""
    return {
        name: sum(state[name].float() for state in states).div(len(states)).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


OTHERS = (PROBABILITIES, WEIGHTS, OF_FOLDS, WITH_PROBE, *BETWEEN)


def finding(lines: Lines) -> str:
    melted = melt(lines, (KEPT, *OTHERS), "accuracy")
    shown = (PROBABILITIES, WEIGHTS, WITH_PROBE, list(BETWEEN)[-1])
    gaps = {name: paired(melted, "accuracy", name, KEPT) for name in shown}
    words = [f"{NAMES[name]} {gap.words(100, 1, ' points')}" for name, gap in gaps.items() if gap]
    return f"Test accuracy minus that of the saved model: {'; '.join(words)}." if words else ""


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Averages of a run's models",
    """\
The default from MiniLM with two folds (`train.folds`). The saved model is trained on all labelled
rows, each fold's model on half of them. Ensembles and averages are of these three models, of the
two models of the folds, or of the saved model and the linear probe from which its training starts.
All are scored on the same 600 test rows of
a set.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [(name, KEPT) for name in OTHERS],
            {"Accuracy, points": Metric("accuracy", 100)},
            "rows",
            names=NAMES,
        )(melt(lines, (KEPT, *OTHERS), "accuracy"))
    ],
    "No average is shown to be better than the saved model, so `holdfast train` does not average "
    "models. An ensemble would also need several saved models.",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
