"""Small real trainings for the benchmark of foreign logs, each with a large pool as its truth.

A network with one hidden layer learns from real texts (TF-IDF of MR or TREC, reduced to 100
directions) or from a random teacher. A log is written as a stranger's program would write it; the
pool, thousands of rows that nothing in the run sees, is measured at every look beside it.

Families, each seed drawing sizes, rates, dropout, wrong labels and the number of looks anew:

- ``plain``: whatever comes of that, healthy and overfitted alike
- ``early``: high rates and few looks, so that the lowest loss is one early look
- ``noisy``: 30 to 80 validation rows
- ``restarts``: a cosine rate with warm restarts, the log cut off anywhere in the last cycle
- ``resumed``: a run without overfitting (or with it) whose logged losses change their scale once
- ``metrics``: a log with accuracies and no losses
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(
    os.environ.get("HOLDFAST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
FAMILIES = ("plain", "early", "noisy", "restarts", "resumed", "metrics")
SOURCES = ("mr", "trec", "teacher")
POOL, MOST_STEPS = 2500, 1600
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Draw:
    """One run: what it learns from, and how."""

    source: str
    rows: int
    valid: int
    width: int
    rate: float
    dropout: float
    wrong: float
    looks: int
    steps: int
    cycles: int
    running: bool
    metrics: str
    scale: float
    scaled_at: float


def drawn(family: str, seed: int) -> Draw:
    """The settings of one run, by its family."""
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    rate = float(np.exp(rng.uniform(np.log(1e-3), np.log(0.01))))
    draw = Draw(
        source=str(rng.choice(SOURCES)),
        rows=int(np.exp(rng.uniform(np.log(100), np.log(2500)))),
        valid=int(np.exp(rng.uniform(np.log(100), np.log(1000)))),
        width=int(rng.choice([16, 64, 256])),
        rate=rate,
        dropout=float(rng.choice([0.0, 0.2, 0.5])),
        wrong=float(rng.choice([0.0, 0.0, 0.1])),
        looks=int(np.exp(rng.uniform(np.log(6), np.log(60)))),
        steps=int(np.exp(rng.uniform(np.log(40), np.log(700)))),
        cycles=1,
        running=bool(rng.random() < 0.7),
        metrics=str(rng.choice(["both", "valid", "none"])),
        scale=1.0,
        scaled_at=1.0,
    )
    if family == "early":
        draw = replace(
            draw, rate=4 * rate, looks=int(rng.integers(6, 13)), rows=min(draw.rows, 400)
        )
    if family == "noisy":
        draw = replace(draw, valid=int(rng.integers(30, 81)))
    if family == "restarts":
        draw = replace(
            draw,
            cycles=int(rng.integers(3, 6)),
            looks=int(rng.integers(24, 61)),
            rate=2 * rate,
            steps=max(draw.steps, 200),
        )
    if family == "resumed":
        scale = float(rng.choice([0.5, 1.3, 1.6, 2.0, 3.0]))
        draw = replace(
            draw, scale=scale, scaled_at=float(rng.uniform(0.4, 0.8)), looks=max(12, draw.looks)
        )
    return replace(draw, metrics="only") if family == "metrics" else draw


def record(cell: Mapping[str, Any]) -> dict[str, Any]:
    """One run: the log's columns, rounded as logs are, and the pool's course."""
    draw = drawn(cell["family"], cell["seed"])
    rng = np.random.default_rng([cell["seed"], 7])
    told = _train(draw, rng)
    logged = {name: [float(f"{v:.4g}") for v in values] for name, values in told.items()}
    return {"draw": {k: getattr(draw, k) for k in Draw.__dataclass_fields__}, **logged}


def _train(draw: Draw, rng: np.random.Generator) -> dict[str, list[float]]:
    import torch

    torch.manual_seed(int(rng.integers(2**31)))
    sets = _sets(draw, rng)
    classes = int(max(y.max() for _, y in sets.values())) + 1
    wide = sets["train"][0].shape[1]
    net = torch.nn.Sequential(
        torch.nn.Dropout(draw.dropout / 2),
        torch.nn.Linear(wide, draw.width),
        torch.nn.ReLU(),
        torch.nn.Dropout(draw.dropout),
        torch.nn.Linear(draw.width, classes),
    )
    steps = min(draw.steps, MOST_STEPS)
    cycle = math.ceil(steps / draw.cycles)
    # Where the log ends within the last cycle; the run itself goes on to the end of that cycle.
    end = steps if draw.cycles == 1 else steps - int(rng.integers(0, max(1, cycle // 2)))
    at = np.unique(np.linspace(0, end, draw.looks + 1).round().astype(int))[1:]
    optimizer = torch.optim.AdamW(net.parameters(), lr=draw.rate, weight_decay=0.01)
    rows, labels = (torch.as_tensor(a) for a in sets["train"])
    told: dict[str, list[float]] = {name: [] for name in _names()}
    running: list[tuple[float, float]] = []
    for step in range(steps):
        share = (step % cycle) / cycle
        low = 0.5 * (1 + math.cos(math.pi * share)) if draw.cycles > 1 else 1 - step / (2 * steps)
        optimizer.param_groups[0]["lr"] = draw.rate * max(0.01, low)
        batch = torch.as_tensor(rng.integers(0, len(rows), 32))
        out = net(rows[batch])
        loss = torch.nn.functional.cross_entropy(out, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hit = float((out.argmax(1) == labels[batch]).float().mean())
        running.append((float(loss.detach()), hit))
        if step + 1 in at:
            _look(net, sets, told, running if draw.running else [])
            running = []
    if draw.cycles > 1:
        final: dict[str, list[float]] = {name: [] for name in _names()}
        _look(net, sets, final, [])
        told |= {f"final_{k}": final[k] for k in ("pool_loss", "pool_accuracy", "probe_accuracy")}
    return _rescaled(told, draw)


def _names() -> tuple[str, ...]:
    kinds = ("loss", "accuracy")
    return tuple(f"{s}_{k}" for s in ("train", "valid", "pool", "probe") for k in kinds)


def _look(
    net: Any,
    sets: Mapping[str, tuple[Array, Array]],
    told: dict[str, list[float]],
    running: list[tuple[float, float]],
) -> None:
    import torch

    net.eval()
    for name, (rows, labels) in sets.items():
        with torch.no_grad():
            out = net(torch.as_tensor(rows))
        y = torch.as_tensor(labels)
        side = "probe" if name == "train" else name
        told[f"{side}_loss"].append(float(torch.nn.functional.cross_entropy(out, y)))
        told[f"{side}_accuracy"].append(float((out.argmax(1) == y).float().mean()))
    net.train()
    mean = np.mean(running, axis=0) if running else None
    for place, kind in enumerate(("loss", "accuracy")):
        known = told[f"probe_{kind}"][-1] if mean is None else float(mean[place])
        told[f"train_{kind}"].append(known)


def _rescaled(told: dict[str, list[float]], draw: Draw) -> dict[str, list[float]]:
    """Logged losses in another scale from one look on; the pool keeps its own."""
    first = int(draw.scaled_at * len(told["valid_loss"]))
    for name in ("train_loss", "valid_loss"):
        told[name] = [v * (draw.scale if i >= first else 1) for i, v in enumerate(told[name])]
    return told


def _sets(draw: Draw, rng: np.random.Generator) -> dict[str, tuple[Array, Array]]:
    if draw.source == "teacher":
        rows, labels = _teacher(rng, draw.rows + draw.valid + POOL)
    else:
        rows, labels = _texts(draw.source)
    order = rng.permutation(len(rows))
    first, second = draw.rows, draw.rows + draw.valid
    parts = {"train": order[:first], "valid": order[first:second], "pool": order[second:]}
    sets = {name: (rows[part], labels[part]) for name, part in parts.items()}
    given = sets["train"][1].copy()
    flipped = rng.random(first) < draw.wrong
    given[flipped] = rng.integers(0, labels.max() + 1, int(flipped.sum()))
    return sets | {"train": (sets["train"][0], given)}


def _teacher(rng: np.random.Generator, count: int) -> tuple[Array, Array]:
    """Answers of a random network, sharper or softer, over 30 normal features."""
    rows = rng.normal(size=(count, 30)).astype(np.float32)
    classes = int(rng.integers(2, 6))
    hidden = np.tanh(rows @ rng.normal(size=(30, 10)) / math.sqrt(30))
    logits = rng.uniform(2, 12) * hidden @ rng.normal(size=(10, classes))
    return rows, np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)


@functools.cache
def _texts(name: str) -> tuple[Array, Array]:
    import csv

    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    file = DATA / name / ("mr.csv" if name == "mr" else "train.csv")
    with file.open(encoding="utf-8", newline="") as handle:
        found = list(csv.DictReader(handle))
    classes = sorted({row["label"] for row in found})
    table = TfidfVectorizer(min_df=2, ngram_range=(1, 2)).fit_transform(r["text"] for r in found)
    rows = TruncatedSVD(100, random_state=0).fit_transform(table)
    rows = 10 * rows / np.maximum(1e-6, np.linalg.norm(rows, axis=1, keepdims=True))
    return rows.astype(np.float32), np.array([classes.index(row["label"]) for row in found])
