"""The temperature of a cross-fitted run on new rows: with the logits of the folds' models at the
scale of the saved model, and as they are.

    python benchmarks/fold_temperature.py --jobs 2

The default from MiniLM with 100 and 300 labelled rows and two folds: a temperature is fitted to the
predictions of models that learned half of the rows. Both temperatures are those of one run, on 600
test rows of each of fifteen sets, in two draws. The test rows of `novels` are from other books, and
`ai_text` has pairs of a human and a machine's text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_command
from claims import Claim, Lines, Metric, comparison, described, paired
from fold_mean import run_with_folds
from peers.process import commit
from peers.sets import FRESH_SETS, SETS

NAME = "fold_temperature"
SCALED, PLAIN = "scaled", "as they are"
NAMES = {SCALED: "scaled logits", PLAIN: "logits as they are"}
MEASURES = ("loss", "ece", "gap")


def cells() -> list[Cell]:
    return list(grid(seed=(2, 3), rows=(300, 100), data=(*SETS, *FRESH_SETS)))


def run_one(cell: Cell) -> Result | None:
    from holdfast.core.records import Outputs
    from holdfast.metrics.classes import ece
    from holdfast.stats.temperature import losses_at
    from holdfast.tasks.classes.classifier import kept_temperature

    found = run_with_folds(cell)
    if found is None:
        return None
    fitted, _, test = found
    logits, labels = fitted.measure(test)[1], test.labels
    right = float((logits.argmax(axis=1) == labels).mean())
    temperatures = {
        name: kept_temperature(replace(fitted, fold_scale=scale))
        for name, scale in ((SCALED, fitted.fold_scale), (PLAIN, 1.0))
    }
    result: Result = {
        "scale": fitted.fold_scale,
        "accuracy": right,
        "best step": fitted.trained.best_step,
        "last step": fitted.trained.last_step,
        "commit": commit(),
    }
    for name, by in temperatures.items():
        losses = losses_at(logits, labels, by)
        outputs = Outputs(test.rows, labels, logits / by, losses)
        gap = float(outputs.probabilities.max(axis=1).mean()) - right
        known = zip(MEASURES, (float(losses.mean()), ece(outputs, ()), abs(gap)), strict=True)
        result |= {f"{name} {measure}": value for measure, value in known}
        result[f"{name} excess"] = gap
    return result


def melted(lines: Lines) -> list[dict[str, Any]]:
    """A line for each temperature, with its measures."""
    return [
        {**line, "arm": name, **{one: line[f"{name} {one}"] for one in (*MEASURES, "excess")}}
        for line in lines
        for name in NAMES
    ]


def finding(lines: Lines) -> str:
    known = melted(lines)
    words = []
    for measure, title, factor, digits, unit in (
        ("loss", "loss", 1, 3, " nats"),
        ("ece", "calibration error", 100, 1, " points"),
    ):
        gap = paired(known, measure, SCALED, PLAIN)
        if gap:
            words.append(f"{title} {gap.words(factor, digits, unit)}")
    excess = {name: np.mean([one[f"{name} excess"] for one in lines]) for name in NAMES}
    return (
        f"On new rows, scaled minus not: {'; '.join(words)}. Mean confidence minus accuracy is "
        f"{100 * excess[SCALED]:+.1f} instead of {100 * excess[PLAIN]:+.1f} points."
    )


CLAIM = Claim(
    NAME,
    "Decisions and intervals",
    "The temperature of a cross-fitted run",
    described(__doc__),
    cells,
    finding,
    [
        lambda lines: comparison(
            [(SCALED, PLAIN)],
            {
                "Loss, nats": Metric("loss", 1, 3),
                "Calibration error, points": Metric("ece", 100),
                "|Confidence − accuracy|, points": Metric("gap", 100),
            },
            "rows",
            names=NAMES,
        )(melted(lines))
    ],
    "The rule was chosen on other draws of twelve of these sets.",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
