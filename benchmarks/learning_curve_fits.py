"""What twice the rows bring, foretold by `holdfast cv --learning-curve`, with fine-tuned models:
how often the interval holds the true gain.

    python benchmarks/learning_curve_fits.py --part classes
    python benchmarks/learning_curve_fits.py --part texts

`classes`: of each of ten sets, 125 labelled rows are cross-validated with the defaults of `holdfast
cv` (MiniLM, five folds, so that a fold has 100 rows to learn from and to choose by). `texts`: the
same with a Llama of 4 million weights, on instructions, summaries of dialogues, and passages of one
novel. The true gain is that of the same fit on 200 rows instead of 100, on 600 test rows (200 of
texts): the mean of six draws.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from cells import Cell, grid, run_command
from claims import Claim, Column, Lines, average, described, number, runs, share, table
from learning_curves import SETS
from make_base_models import cache_folder
from peers.process import commit
from peers.task_rows import LENGTH, MAKERS

import holdfast
from holdfast.core.records import Estimate
from holdfast.core.seeds import generator
from holdfast.stats.learning_curve import Doublings
from quality import rows_of

NAME = "learning_curve_fits"
Row = Mapping[str, Any]
ROWS, FOLDS, TRUE_DRAWS = 100, 5, 6
DRAWS = {"classes": 2, "texts": 4}
# Sets of texts, by the job that makes their rows.
TEXTS = {"answers": "instructions", "summaries": "dialogues", "one novel": "novel"}
PARTS = {"classes": SETS, "texts": tuple(TEXTS)}
TESTED_TEXTS = 200
MEASURES = ("accuracy", "loss")
# The ratio of two gains and its spread were chosen on curves of these sets.
CHOSEN_ON = ("cr", "mr", "trec", "banking77", "packages")
# The fit of a fold: validation rows of its own, and the policy of `cv`.
SETTINGS = {"train.folds": 0, "control.policy": "stop", "probes.skip": "all"}


def labelled(data: str, seed: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """400 rows to learn from (200 of texts), and the test rows."""
    if data in TEXTS:
        sizes = (2 * ROWS, 0, TESTED_TEXTS)
        texts = MAKERS[TEXTS[data]](cache_folder() / "llama", sizes, seed)
        return texts.raw["train"], texts.raw["test"]
    parts = rows_of(data, 400, seed)
    return parts.whole().train.records(), parts.test.records()


def arguments(data: str) -> dict[str, Any]:
    """Those of ``holdfast.train`` and ``holdfast.cv``."""
    settings: dict[str, Any] = {"train.threads": 1}
    if data not in TEXTS:
        return {"settings": settings | {"data.rare_classes": "drop"}, "quiet": True}
    settings |= {"generate.rows": 0, "model.max_length": LENGTH}
    model = cache_folder() / "llama"
    return {"settings": settings, "quiet": True, "task": "causal-lm", "model": model}


def drawn(rows: Sequence[Row], count: int, draw: int, what: str) -> list[Row]:
    order = generator(draw, "benchmark", NAME, what).permutation(len(rows))
    return [rows[at] for at in order[:count]]


def of_common_classes(rows: Sequence[Row], known: Sequence[Row]) -> list[Row]:
    """The rows of classes with a row for each fold among the ``known`` ones; all texts."""
    counts = Counter(row.get("label") for row in known)
    return [row for row in rows if counts[row.get("label")] >= FOLDS]


def run_one(cell: Cell) -> dict[str, Any]:
    data = cell["data"]
    rows, _ = labelled(data, cell["draw"])
    some = drawn(rows, ROWS * FOLDS // (FOLDS - 1), cell["draw"], data)
    some = of_common_classes(some, some)
    seen: list[list[float]] = []

    def keep(self: Doublings, room: tuple[float, float]) -> Estimate:
        upper = self.covariance[np.triu_indices(2)]
        seen.append([*self.seen, *upper, self.freedom, *room])
        return foretell(self, room=room)

    foretell = Doublings.foretell
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(Doublings, "foretell", keep):
        out = Path(folder) / "cv"
        run = holdfast.cv(some, folds=FOLDS, learning_curve=True, out=out, **arguments(data))
        told = run.result["cv"]["learning_curve"]["metrics"]
    truth = true_gains(data)
    result: dict[str, Any] = {"commit": commit()}
    for name, known in zip(told, seen, strict=True):
        result |= {
            f"{name}_values": [score["value"] for score in told[name]["scores"]],
            f"{name}_truth": truth[name],
            f"{name}_doublings": known,
        }
    return result


def foretold(line: Row, measure: str) -> Estimate | None:
    """The gain that the present rule foretells; nothing for a measure that a set does not have."""
    known = line.get(f"{measure}_doublings")
    if known is None:
        return None
    first, second, a, b, c, freedom, *room = known
    covariance = np.array([[a, b], [b, c]])
    return Doublings(np.array([first, second]), covariance, freedom).foretell(room=tuple(room))


@functools.cache
def true_gains(data: str) -> dict[str, float]:
    """The mean gain in accuracy, and the mean fall of the loss, of twice the rows."""
    gains: dict[str, list[float]] = {}
    for draw in range(TRUE_DRAWS):
        rows, test = labelled(data, draw)
        most = drawn(rows, 2 * ROWS, draw, f"truth {data}")
        test, *parts = (of_common_classes(one, most[:ROWS]) for one in (test, most[:ROWS], most))
        few, twice = (scores(data, part, test) for part in parts)
        for name, value in few.items():
            sign = -1 if name == "loss" else 1
            gains.setdefault(name, []).append(sign * (twice[name] - value))
    return {name: float(np.mean(values)) for name, values in gains.items()}


def scores(data: str, rows: Sequence[Row], test: Sequence[Row]) -> dict[str, float]:
    """The measures on the test rows of a fit on ``rows``."""
    given = arguments(data)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = given.pop("settings") | SETTINGS
        run = holdfast.train(list(rows), test=test, out=out, settings=settings, **given)
        found = run.result["test"]["metrics"]
    return {name: found[name]["value"] for name in MEASURES if name in found}


def cells(part: str = "") -> list[dict[str, Any]]:
    return [
        cell
        for one in ([part] if part else PARTS)
        for cell in grid(data=PARTS[one], draw=range(DRAWS[one]))
    ]


def _held(measure: str) -> Column:
    def told(lines: Lines) -> str:
        known = [
            gain.low <= one[f"{measure}_truth"] <= gain.high
            for one in lines
            if (gain := foretold(one, measure)) and gain.low is not None and gain.high is not None
        ]
        return share(sum(known), len(known)) if known else ""

    return told


def _foretold(measure: str) -> Column:
    def told(lines: Lines) -> str:
        gains = [gain.value for one in lines if (gain := foretold(one, measure))]
        known = [gain for gain in gains if gain is not None]
        return number(statistics.fmean(known), 3) if known else ""

    return told


def finding(lines: Lines) -> str:
    """The share of each measure, for classifiers and for language models."""
    texts = [one for one in lines if one["data"] in TEXTS]
    classes = [one for one in lines if one["data"] not in TEXTS]
    fresh = [one for one in classes if one["data"] not in CHOSEN_ON]
    parts = [
        (fresh, "on sets on which nothing was chosen", MEASURES),
        ([one for one in classes if one not in fresh], "on the other sets", MEASURES),
        (texts, "of language models", ("loss",)),
    ]
    rates = [
        f"{', '.join(f'{one} {_held(one)(some)} %' for one in measures)} {where}"
        for some, where, measures in parts
        if some
    ]
    return (
        "How often the 95 % interval holds the true gain of twice the rows (95 % CI): "
        f"{'; '.join(rates)}."
    )


CLAIM = Claim(
    NAME,
    "Decisions and intervals",
    "What twice the rows would bring, of fine-tuned models",
    described(__doc__),
    cells,
    finding,
    [
        lambda lines: table(
            {"data": "Set"},
            {
                "Curves": runs,
                **{
                    f"True gain, {measure}": average(f"{measure}_truth", 1, 3, limits=False)
                    for measure in MEASURES
                },
                **{f"Foretold, {measure}": _foretold(measure) for measure in MEASURES},
                **{f"Holds it, {measure}, %": _held(measure) for measure in MEASURES},
            },
        )(lines)
    ],
    "The true gain is itself estimated, from six draws of rows. A class with fewer than five of "
    "the drawn rows (for the true gain, of the first 100) is left out.",
)


if __name__ == "__main__":
    run_command(NAME, __doc__ or "", cells, run_one, tuple(PARTS))
