"""What twice the rows bring, foretold by cross-validation with a quarter, half and all of them:
how often the interval holds the true gain.

    python benchmarks/learning_curves.py

A logistic regression on frozen MiniLM vectors stands in for the model, so that thousands of fits
are possible. Rows are drawn from 400 labelled rows of each of eleven sets and folded; the folds are
also trained on half and a quarter of their rows. The true gain of twice the rows is the mean over
24 draws, on 600 test rows.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import Claim, Lines, average, runs, share, table
from peers.sets import SETS as TEN
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from holdfast.augment.text_forms import meaning
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.metrics.score import RATE_EFFECT
from holdfast.stats.intervals import wilson
from holdfast.stats.learning_curve import Doublings, is_told, room_above
from quality import rows_of

NAME = "learning_curves"
# Rows of `ai_text` are pairs of a human text and a machine's: a held-out text is the more often
# taken for its other half's class, the more rows are learned. A set of passages takes its place,
# and one of kinds of text is the tenth whose test rows are of the same books or sources.
SHIFTED = "novels"
SETS = (*(name for name in TEN if name != "ai_text"), "passages", "kinds")
SIZES, DRAWS, POOLS, FOLDS = (60, 100, 160), 12, 4, 5
TRUE_DRAWS = 6
MEASURES = ("accuracy", "loss")


@functools.cache
def pool(data: str, seed: int) -> tuple[Floats, Ints, Floats, Ints]:
    """Vectors and classes of 400 labelled rows, and those of the test rows."""
    parts = rows_of(data, 400, seed)
    labelled = parts.whole().train
    classes = {name: number for number, name in enumerate(sorted(set(labelled.labels)))}
    known, test = (
        (
            np.asarray(meaning().vectors(list(rows.texts))),
            np.array([classes[label] for label in rows.labels]),
        )
        for rows in (labelled, parts.test)
    )
    return (*known, *test)


def scores(train: tuple[Floats, Ints], test: tuple[Floats, Ints], measure: str) -> Floats:
    """The score of each test row, higher is better."""
    model = LogisticRegression(C=10, max_iter=1000).fit(*train)
    # A class without a training row has a probability of almost 0.
    chances = np.full((len(test[1]), int(max(test[1].max(), train[1].max())) + 1), 1e-3)
    chances[:, model.classes_] = model.predict_proba(test[0])
    own = chances[np.arange(len(test[1])), test[1]]
    if measure == "loss":
        return np.asarray(np.log(np.maximum(own, 1e-3)))
    return np.asarray((chances.argmax(axis=1) == test[1]).astype(np.float64))


@functools.cache
def true_gain(data: str, rows: int, measure: str) -> float:
    gains = []
    for seed in range(POOLS):
        vectors, labels, *_ = pool(data, seed)
        test = pool(data, seed)[2:]
        for draw in range(TRUE_DRAWS):
            rng = generator(draw, "benchmark", NAME, f"truth {data} {seed}")
            order = rng.permutation(len(labels))
            some, more = order[:rows], order[: 2 * rows]
            few, twice = (
                float(scores((vectors[at], labels[at]), test, measure).mean())
                for at in (some, more)
            )
            gains.append(twice - few)
    return float(np.mean(gains))


def curve(data: str, rows: int, draw: int, measure: str) -> Floats:
    """Scores [3, m] of held-out rows with a quarter, half and all of ``rows`` training rows."""
    vectors, labels, *_ = pool(data, draw % POOLS)
    rng = generator(draw, "benchmark", NAME, data)
    drawn = rng.permutation(len(labels))[: rows * FOLDS // (FOLDS - 1)]
    found = np.full((3, len(drawn)), np.nan)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=draw)
    warnings.filterwarnings("ignore", "The least populated class")
    for train, held in folds.split(drawn, labels[drawn]):
        order = rng.permutation(train)
        for number, part in enumerate((4, 2, 1)):
            at = drawn[order[: len(order) // part]]
            if len(np.unique(labels[at])) > 1:
                tested = vectors[drawn[held]], labels[drawn[held]]
                found[number, held] = scores((vectors[at], labels[at]), tested, measure)
    return found[:, np.isfinite(found).all(axis=0)]


def cells() -> list[dict[str, Any]]:
    return grid(data=SETS, rows=SIZES, draw=range(DRAWS), measure=MEASURES)


def measured(rows: Floats, measure: str) -> tuple[Estimate, float]:
    """The score with its interval as in `cv`, and the best possible one."""
    if measure == "loss":
        mean, error = -float(rows.mean()), float(rows.std(ddof=1)) / math.sqrt(len(rows))
        half = 1.96 * math.sqrt(1 + FOLDS / (FOLDS - 1)) * error
        return Estimate(mean, max(0.0, mean - half), mean + half), 0.0
    n = len(rows) / RATE_EFFECT
    return Estimate(float(rows.mean()), *wilson(float(rows.mean()) * n, n)), 1.0


def run_one(cell: Cell) -> dict[str, Any]:
    given = cell["data"], cell["rows"], cell["draw"], cell["measure"]
    found = curve(*given)
    score, best = measured(found[2], cell["measure"])
    doublings = Doublings.from_scores(found, np.arange(found.shape[1]))
    gain = doublings.foretell(room=room_above(score, best))
    truth = true_gain(cell["data"], cell["rows"], cell["measure"])
    low, high = gain.low, gain.high
    if low is None or high is None:
        return {"truth": truth, "gain": gain.value, "told": False, "held": None}
    return {
        "truth": truth,
        "gain": gain.value,
        "low": low,
        "high": high,
        "told": is_told(gain),
        "held": low <= truth <= high,
    }


def held(lines: Lines) -> str:
    """Of the curves with an interval."""
    known = [one["held"] for one in lines if one["held"] is not None]
    return share(sum(known), len(known))


def told(lines: Lines) -> str:
    return share(sum(bool(one["told"]) for one in lines), len(lines))


def finding(lines: Lines) -> str:
    def rates(some: Lines) -> str:
        by_measure = {m: [one for one in some if one["measure"] == m] for m in MEASURES}
        return ", ".join(f"{measure} {held(of)} %" for measure, of in by_measure.items() if of)

    alike = [one for one in lines if one["data"] != SHIFTED]
    return (
        "How often the 95 % interval of the gain of twice the rows holds the true gain (95 % CI): "
        f"{rates(alike)} on ten sets; with `{SHIFTED}`, whose test rows are from other books, "
        f"{rates(lines)}."
    )


CLAIM = Claim(
    NAME,
    "Decisions and intervals",
    "What twice the rows would bring",
    """\
A logistic regression on frozen MiniLM vectors stands in for the model. Of eleven sets, 75, 125 or
200 labelled rows are folded in five, so that a fold learns from 60, 100 or 160 rows; each fold is
also trained on half and a quarter of them (`holdfast cv --learning-curve`). The true gain of twice
the rows is the mean of 24 draws, on 600 test rows. Sets of passages and of kinds of text take the
place of `ai_text`.""",
    cells,
    finding,
    [
        lambda lines: table(
            {"measure": "Measure", "rows": "Rows"},
            {
                "Curves": runs,
                "True gain": average("truth", 1, 3),
                "Foretold gain": average("gain", 1, 3),
                "Interval holds it, %": held,
                "Sign told, %": told,
                "Steeper, without an interval": lambda some: str(
                    sum(one["held"] is None for one in some)
                ),
            },
        )(lines),
        lambda lines: table({"data": "Set"}, {"Curves": runs, "Interval holds it, %": held})(lines),
    ],
    "The expected ratio of two gains and the spreads were chosen on other draws of ten of these "
    "sets (without `novels`). Draws of a set share their rows, and fine-tuned models vary more "
    "than a linear model on frozen vectors. Folds at random cannot foretell the gain on rows of "
    "another kind, as in `novels`: fold by group there (`--group`).",
)


def main() -> None:
    run_cells(NAME, cells(), run_one)


if __name__ == "__main__":
    main()
