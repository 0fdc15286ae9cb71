"""Ways to fit a linear head, on frozen vectors: its form, and its loss where labels are wrong.

    python benchmarks/heads.py [--seeds 10]

MiniLM's mean-pooled vectors of CR, MR, TREC and BANKING77 without copies (``balance.py`` makes and
keeps them). For each seed 70, 280 and 1,120 rows are drawn to learn from, which is what a run of
100, 400 and 1,600 rows has; up to 3,000 others are the test. Strengths are chosen out of fold on
the training rows, as a run does. With ``noise`` a fifth of the training labels are drawn anew among
the other classes; the test labels are true.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import numpy as np
import torch
from balance import vectors
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, Metric, comparison, paired

from holdfast.core.seeds import generator
from holdfast.methods.losses import generalized
from holdfast.models.probes.head_fit import HeadType, fit_head
from holdfast.models.probes.probe import fit_probe
from holdfast.stats.temperature import losses_at

NAME = "heads"
SETS, ROWS, TESTED = ("cr", "mr", "trec", "banking77"), (70, 280, 1120), 3000
HEAD_TYPES: tuple[HeadType, ...] = ("logistic", "discriminant", "both")
FORMS = (*HEAD_TYPES, "better")
LOSSES = ("cross-entropy", "gce 0.3", "gce 0.7", "mixup 0.4")
NOISE, STEPS = 0.2, 400
Array = np.ndarray[Any, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--noise", action="store_true", help="only the losses at wrong labels")
    parser.add_argument("--forms", action="store_true", help="only the forms")
    args = parser.parse_args()
    parts = [forms] if args.forms else [losses] if args.noise else [forms, losses]
    for cells in parts:
        run_cells(NAME, cells(args.seeds), run_one)


@functools.lru_cache(maxsize=4)
def drawn(data: str, rows: int, seed: int, noise: float) -> tuple[Array, Array, Array, Array]:
    """Training and test vectors with their labels."""
    x, y = vectors(data)
    order = generator(seed, NAME, data).permutation(len(y))
    train, test = order[:rows], order[rows:][:TESTED]
    labels, random = y[train].copy(), generator(seed, NAME, "noise", data, rows)
    wrong = random.random(rows) < noise
    classes = int(y.max()) + 1
    labels[wrong] = (labels[wrong] + random.integers(1, classes, rows)[wrong]) % classes
    return x[train], labels, x[test], y[test]


def run_one(cell: Cell) -> Result:
    torch.set_num_threads(1)
    x, y, tested, truth = drawn(cell["data"], cell["rows"], cell["seed"], cell.get("noise", 0.0))
    classes, seed = int(max(y.max(), truth.max())) + 1, cell["seed"]
    system: Any = cell["system"]
    if system in LOSSES:
        logits = by_gradient(x, y, tested, classes, seed, system)
    elif system == "better":
        kinds = [fit_head(x, y, classes=classes, seed=seed, head_type=k) for k in HEAD_TYPES[:2]]
        logits = min(kinds, key=lambda one: out_of_fold(one, y)).logits(tested)
    else:
        logits = fit_head(x, y, classes=classes, seed=seed, head_type=system).logits(tested)
    right = logits.argmax(axis=1) == truth
    loss = losses_at(logits, truth, 1.0).mean()
    return {"accuracy": float(right.mean()), "loss": float(loss)}


def out_of_fold(probe: Any, y: Array) -> float:
    if probe.held_out is None:
        return float("inf")
    known = np.isfinite(probe.held_out).all(axis=1)
    return float(losses_at(probe.held_out[known], y[known], 1.0).mean())


def by_gradient(x: Array, y: Array, tested: Array, classes: int, seed: int, system: str) -> Array:
    """Softmax regression from nothing by Adam, with the ridge that the logistic head chose."""
    c = fit_probe(x, y, classes=classes, seed=seed).c
    centre, scale = x.mean(axis=0), float(np.sqrt(x.var(axis=0).mean()))
    rows, marks = torch.tensor((x - centre) / scale), torch.tensor(y)
    one_hot = torch.nn.functional.one_hot(marks, classes).double()
    table = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    best = torch.optim.Adam([table], lr=0.03)
    falling = torch.optim.lr_scheduler.LinearLR(best, 1.0, 0.0, STEPS)
    name, _, strength = system.partition(" ")
    random = generator(seed, NAME, system)
    for _ in range(STEPS):
        given, wanted = rows, one_hot
        if name == "mixup":
            partner = torch.from_numpy(random.permutation(len(y)))
            share = torch.from_numpy(random.beta(float(strength), float(strength), (len(y), 1)))
            given = share * rows + (1 - share) * rows[partner]
            wanted = share * one_hot + (1 - share) * one_hot[partner]
        logs = (given @ table[:, :-1].T + table[:, -1]).log_softmax(1)
        losses = -(logs * wanted).sum(1)
        if name == "gce":
            losses = generalized(losses, float(strength))
        loss = losses.mean() + (table[:, :-1] ** 2).sum() / (2 * c * len(y))
        best.zero_grad()
        loss.backward()
        best.step()
        falling.step()
    kept = table.detach().numpy()
    return np.asarray((tested - centre) / scale @ kept[:, :-1].T + kept[:, -1])


def forms(seeds: int = 10) -> list[dict[str, Any]]:
    return grid(seed=range(seeds), data=SETS, rows=ROWS, system=FORMS)


def losses(seeds: int = 10) -> list[dict[str, Any]]:
    return grid(seed=range(seeds), noise=[0.0, NOISE], data=SETS, rows=ROWS[1:], system=LOSSES)


BY = ("data", "rows", "seed", "noise")


def finding(lines: Lines) -> str:
    gap = paired(lines, "accuracy", "both", "logistic", BY, arm="system")
    nats = paired(lines, "loss", "both", "logistic", BY, arm="system")
    if not gap or not nats:
        return ""
    return (
        f"The default linear head (the mean of two fits) has {gap.words(100, 2, ' points')} of "
        "accuracy and "
        f"{nats.words(1, 3, ' nats')} of test loss (lower is better) compared with logistic "
        "regression."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "The linear head",
    """\
Linear heads on frozen MiniLM vectors. First table: logistic regression, discriminant analysis, the
mean of their logits ("both", the default), or the one with the lower cross-validated loss
("better"). Second table: training by generalized cross-entropy ("gce") or mixup against
cross-entropy, with correct labels (noise 0) and with a fifth of them wrong (0.2).""",
    lambda: [*forms(), *losses()],
    finding,
    [
        comparison(
            [(form, "logistic") for form in FORMS if form != "logistic"],
            {"Accuracy, points": Metric("accuracy", 100, 2), "Loss, nats": Metric("loss", 1, 3)},
            arm="system",
            by=BY,
        ),
        comparison(
            [(loss, LOSSES[0]) for loss in LOSSES[1:]],
            {"Accuracy, points": Metric("accuracy", 100, 2), "Loss, nats": Metric("loss", 1, 3)},
            "noise",
            arm="system",
            by=BY,
        ),
    ],
)


if __name__ == "__main__":
    main()
