"""Good and bad recipes, the rows that they learn from, and what a bad one is held against.

A bad recipe is one setting away from the good one (``hot``: the rate times ten, ``cold``: ÷ 30,
``long``: 50 epochs, ``no_decay``: no weight decay, ``short``: the three epochs of 1,600 rows on 16
rows a class), or it is the good one on rows with a fault (``noise``: 20 % of all labelled rows have
a wrong label, ``skew``: classes' sizes fall to a twentieth). Its good one has the same rows in
the first case; in the second as many rows without the fault, which no recipe can wholly make up
for: beside these stands a ``remedy``, the faulty rows with the treatment that is known to help.

Labelled rows are 82 % training and 18 % validation rows; test rows are 2,000 others, the same for
every cell of a set, with their labels as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from peers.rows import POOL, Rows, stratified

from forked.stand_in import Case, case, learn_vectors, rows_of
from holdfast.core.seeds import generator

Cell = Mapping[str, Any]
VALID, NOISE, SKEW, FEW = 0.18, 0.2, 20.0, 16
# Of a layer over vectors, fine-tuning alone; of MiniLM's last block the default recipe at three
# times the rate, since one block must learn what six would; of MiniLM itself just that.
GOOD: dict[str, dict[str, Any]] = {
    "vectors": {"methods.contrast": False, "train.learning_rate": 1e-4, "train.epochs": 12},
    "upper": {"train.learning_rate": 3e-4},
    "minilm": {"train.learning_rate": 1e-4},
}
LOOKS = 12
# Settings that a course changes; of the rate, the factor.
COURSES: dict[str, dict[str, Any]] = {
    "good": {},
    "hot": {"train.learning_rate": 10.0},
    "cold": {"train.learning_rate": 1 / 30},
    "long": {"train.epochs": 50},
    "no_decay": {"train.weight_decay": 0.0},
    "noise": {},
    "short": {"train.epochs": 3},
    "skew": {},
}
BAD = tuple(name for name in COURSES if name != "good")
# The treatment that is known to help against a fault of the rows.
REMEDIES: dict[str, dict[str, Any]] = {
    "noise": {"methods.gce": True},
    "skew": {"methods.balance": {"by": "draw", "target": "drawn"}},
}
# How often a run may begin: from the probe as by default, or from a head drawn anew.
STARTS: dict[str, dict[str, Any]] = {"probe": {}, "new": {"methods.probe_first": False}}


@dataclass(frozen=True)
class Course:
    """A cell ready to run: its rows, and where the training and validation rows are."""

    case: Case
    train: Any
    valid: Any


def course(cell: Cell, *, faulty: bool = True, remedy: bool = False, tested: bool = True) -> Course:
    """The cell's bad recipe; or with ``faulty=False`` the good one it is held against; or with
    ``remedy`` the faulty rows under the treatment that is known. Without ``tested`` it has no test
    rows, which take the longest."""
    name, model = cell["course"], cell["model"]
    settings = {
        **GOOD[model],
        **STARTS[cell["start"]],
        "train.evaluations": LOOKS,
        "seed": cell["seed"],
        **(COURSES[name] if faulty else {}),
        **(REMEDIES[name] if remedy else {}),
    }
    if faulty and "train.learning_rate" in COURSES[name]:
        settings["train.learning_rate"] *= GOOD[model]["train.learning_rate"]
    if name == "short" and not faulty:
        settings["train.epochs"] = 20
    rows = rows_of(cell["data"])
    labelled, valid = labelled_rows(cell, rows, skewed=faulty and name == "skew")
    marks = [rows.labels[i] for i in labelled]
    if faulty and name == "noise":
        marks = with_wrong(marks, cell)
    if model == "vectors":
        _learn(cell["data"])
    test = rows.take(pool_of(cell["data"])[0] if tested else ())
    made = case(model, [rows.texts[i] for i in labelled], marks, test, settings)
    judged = np.isin(labelled, valid)
    return Course(made, np.flatnonzero(~judged), np.flatnonzero(judged))


@functools.cache
def _learn(data: str) -> None:
    learn_vectors(data)


@functools.cache
def pool_of(data: str) -> tuple[Any, Any]:
    """Where the test rows are, and all others."""
    order = generator(0, "benchmark", "pool").permutation(len(rows_of(data)))
    return order[:POOL], order[POOL:]


def labelled_rows(cell: Cell, rows: Rows, *, skewed: bool) -> tuple[Any, Any]:
    """Positions of the labelled rows, and of those that are validation rows."""
    rest = pool_of(cell["data"])[1]
    shuffled = rest[generator(cell["seed"], "benchmark", "rows").permutation(len(rest))]
    names = sorted(set(rows.labels))
    count = FEW * len(names) if cell["course"] == "short" else cell["rows"]
    if cell["course"] == "short":
        labelled = _by_class(rows, shuffled, dict.fromkeys(names, FEW))
    elif skewed:
        labelled = _by_class(rows, shuffled, sizes(names, count, cell["seed"]))
    else:
        labelled = stratified(rows, shuffled, count, 4)
    return labelled, stratified(rows, labelled, round(VALID * len(labelled)), 1)


def sizes(names: list[str], count: int, seed: int) -> dict[str, int]:
    """Rows of each class, falling to a twentieth, in an order of the classes drawn by ``seed``."""
    shares = SKEW ** (-np.arange(len(names)) / (len(names) - 1))
    order = generator(seed, "benchmark", "skew").permutation(len(names))
    wanted = np.maximum(4, np.round(count * shares / shares.sum()).astype(int))
    return {names[place]: int(n) for place, n in zip(order, wanted, strict=True)}


def _by_class(rows: Rows, positions: Any, wanted: Mapping[str, int]) -> Any:
    labels = np.array([rows.labels[i] for i in positions])
    taken = [np.flatnonzero(labels == name)[:count] for name, count in wanted.items()]
    return positions[np.sort(np.concatenate(taken))]


def with_wrong(labels: list[str], cell: Cell) -> list[str]:
    """A fifth of the labels exchanged for another class's."""
    rng = generator(cell["seed"], "benchmark", "wrong", cell["data"])
    names, marks = sorted(set(labels)), list(labels)
    for place in rng.permutation(len(marks))[: round(NOISE * len(marks))]:
        others = [name for name in names if name != marks[place]]
        marks[place] = others[int(rng.integers(len(others)))]
    return marks
