"""Which score of two linear probes tells which encoder is better?

    python benchmarks/probe_scores.py --jobs 2

A cell is a set with 100 labelled rows: the default's probes on the vectors of MiniLM and of
all-mpnet-base-v2. The truth is the difference of their accuracies on 600 test rows, fitted on all
100. Against it stand differences of cross-validated scores: accuracy, and the Brier score (squared
error of the outputs, summed over classes), on the 82 training rows or on all 100.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_command
from claims import Claim, Column, Line, Lines, melt, table
from peers.process import commit
from peers.rows import Rows
from peers.sets import SETS

from quality import MINILM, SEEDS, STRONG, rows_of, vectors_of

NAME = "probe_scores"
LABELLED = 100
ACCURACY, BRIER = "accuracy", "Brier score"
TRAINING, ALL = "82 training rows", "all 100 rows"
SCORES = tuple(f"{score}, {rows}" for rows in (TRAINING, ALL) for score in (ACCURACY, BRIER))
# The rule without rows: the larger encoder is better, by as much as on the other sets.
CONSTANT = "none: always the larger encoder"


def cells() -> list[dict[str, Any]]:
    return grid(data=SETS, seed=range(SEEDS))


def run_one(cell: Cell) -> Result | None:
    parts = rows_of(cell["data"], LABELLED, cell["seed"])
    if parts is None:
        return None
    minilm, strong = (scores_of(encoder, cell) for encoder in (MINILM, STRONG))
    return {name: strong[name] - minilm[name] for name in minilm} | {"commit": commit()}


def scores_of(encoder: str, cell: Cell) -> dict[str, float]:
    from holdfast.models.probes.head_fit import fit_head
    from holdfast.models.probes.transferability import ridge_out_of_fold
    from holdfast.prepare.probe_evidence import assign_folds

    parts = rows_of(cell["data"], LABELLED, cell["seed"])
    assert parts is not None
    known = vectors_of(encoder, cell["data"], (LABELLED,))
    place = {name: index for index, name in enumerate(parts.classes)}

    def arrays(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        labels = [place.get(label, -1) for label in rows.labels]
        return np.stack([known[text] for text in rows.texts]), np.array(labels)

    found: dict[str, float] = {}
    for name, rows in ((TRAINING, parts.train), (ALL, parts.whole().train)):
        x, y = arrays(rows)
        folds = assign_folds(np.arange(len(y)), y, cell["seed"])
        targets = np.eye(len(place))[y]
        outputs = ridge_out_of_fold(x, targets, folds).predictions
        found[f"{ACCURACY}, {name}"] = float((outputs.argmax(axis=1) == y).mean())
        found[f"{BRIER}, {name}"] = -float(((outputs - targets) ** 2).sum(axis=1).mean())
        if name == ALL:
            test, right = arrays(parts.test)
            head = fit_head(x, y, classes=len(place), seed=cell["seed"])
            found["truth"] = float((head.logits(test).argmax(axis=1) == right).mean())
    return found


def estimates(lines: Lines) -> list[Line]:
    """A line for each score of a cell."""
    return melt([{**line, CONSTANT: 1.0} for line in lines], (CONSTANT, *SCORES), "estimate")


def correlation(lines: Lines) -> str:
    estimate, truth = (np.array([line[name] for line in lines]) for name in ("estimate", "truth"))
    return f"{np.corrcoef(estimate, truth)[0, 1]:.2f}" if estimate.std() else ""


def left_out_error(lines: Lines) -> float:
    """The error of the true difference, root mean square, as the other sets' line foretells it."""
    errors: list[float] = []
    for name in {line["data"] for line in lines}:
        others = [line for line in lines if line["data"] != name]
        known = [line["estimate"] for line in others]
        line_of_others = np.polyfit(
            known, [line["truth"] for line in others], int(len(set(known)) > 1)
        )
        of_set: list[Line] = [line for line in lines if line["data"] == name]
        errors += [np.polyval(line_of_others, one["estimate"]) - one["truth"] for one in of_set]
    return float(np.sqrt(np.mean(np.square(errors))))


def right_choices(lines: Lines) -> str:
    """How often the better one has the higher score, where they differ by 2 points or more; equal
    scores are half right."""
    clear = [line for line in lines if abs(line["truth"]) >= 0.02]
    right = sum(0.5 + 0.5 * np.sign(line["truth"] * line["estimate"]) for line in clear)
    return f"{right:g} of {len(clear)}"


def finding(lines: Lines) -> str:
    if len({line["data"] for line in lines}) < 3:
        return ""
    words = []
    for name in (*SCORES[-2:], CONSTANT):
        own = [line for line in estimates(lines) if line["arm"] == name]
        words.append(f"{name}: {100 * left_out_error(own):.1f} points")
    what = "Error, with one set left out, in predicting the difference in probe test accuracy"
    return f"{what} between two encoders, by the probe score: {'; '.join(words)}."


COLUMNS: dict[str, Column] = {
    "Cells": lambda lines: str(len(lines)),
    "Correlation with the difference": correlation,
    "Error (leave one set out), points": lambda lines: f"{100 * left_out_error(lines):.1f}",
    "The better encoder has the higher score": right_choices,
}
CLAIM = Claim(
    NAME,
    "Accuracy",
    "Which probe score best predicts the difference between two encoders",
    """\
Scores are those of ridge probes on the frozen vectors of MiniLM and all-mpnet-base-v2, as
`model.name: auto` fits them, cross-validated on 100 labelled rows (82 of them training rows). What
they are to predict is the difference in accuracy on 600 test rows between the default linear probes
on the two encoders. The error is the root mean square error of a
straight line (without a score: the mean), fitted on the other sets, that predicts this difference.
The last column counts cells in which the encoders differ by 2 points or more, equal scores as half
right.""",
    cells,
    finding,
    [lambda lines: table({"arm": "Score"}, COLUMNS)(estimates(lines))],
    """\
One pair of encoders, of which the larger one is nearly always better: no score picks the better
encoder more often than always taking the larger one, but the Brier score predicts the size of the
difference best. Probes, not fine-tuned models: how
much fine-tuning adds to each differs by set ([quality.md](quality.md)).""",
    command=f"python benchmarks/{NAME}.py --jobs 2",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
