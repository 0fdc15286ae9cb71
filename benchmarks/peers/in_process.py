"""Fits in this process on a cell's rows, with any settings.

A cell names ``data`` (CR, MR or TREC), ``rows`` (labelled, validation in them) and ``seed``; every
arm of it has the same rows, those of ``peers/rows.py``. Nothing that is chosen sees a test row.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from peers.process import commit
from peers.rows import Parts, Rows, clean_set, draw, labelled_counts, table_of

TESTED = 1000
# As Holdfast chooses it by itself on a processor that has it.
PRECISION = "bfloat16"


def parts_of(cell: Mapping[str, Any]) -> Parts:
    """Training, validation and test rows of a cell; the test rows are the same for all of a set."""
    counts = labelled_counts(cell["rows"])
    return draw(clean_set(cell["data"]), seed=cell["seed"], **counts, test=slice(0, TESTED))


@functools.lru_cache(maxsize=1)
def prepared_for(data: str, rows: int, seed: int) -> tuple[Any, Any, Any, Any, Any]:
    """Labelled rows and model, which rows are of which side, the test rows, the classes."""
    from holdfast.prepare.model import prepare
    from holdfast.prepare.signals import with_signals
    from holdfast.recipe import parse

    parts = parts_of({"data": data, "rows": rows, "seed": seed})
    classes = tuple(sorted(set(clean_set(data).labels)))
    given = {"task": "text-classification", "seed": seed}
    recipe = parse({**given, "train": {"threads": 1, "precision": PRECISION}}, "benchmark")
    both = Rows(parts.train.texts + parts.valid.texts, parts.train.labels + parts.valid.labels)
    train = np.arange(len(parts.train))
    valid = np.arange(len(parts.train), len(both))
    prepared = with_signals(prepare(recipe, table_of(both, classes)), train)
    return prepared, train, valid, table_of(parts.test, classes), classes


def holdfast_fit(
    cell: Mapping[str, Any], settings: Mapping[str, Any], *, probe: bool = True
) -> dict[str, Any]:
    """One fit: accuracy and losses on the test rows, those of its probe, and its time."""
    from holdfast.fits.fit import fit
    from holdfast.training.task import labels_of

    prepared, train, valid, test, _ = prepared_for(cell["data"], cell["rows"], cell["seed"])
    begun, clock = time.process_time(), time.perf_counter()
    fitted = fit(prepared, train, valid, settings)
    seconds, wall = time.process_time() - begun, time.perf_counter() - clock
    rows = fitted.encode(test)
    logits = fitted.measure(rows)[1]
    return {
        **scores(logits, labels_of(rows)),
        **({"probe": probe_accuracy(fitted, rows)} if probe else {}),
        "fit_s": round(seconds, 2),
        "wall_s": round(wall, 2),
        "best_step": int(fitted.trained.best_step),
        "last_step": int(fitted.trained.last_step),
        "verdict": str(fitted.trained.verdict.label),
        "precision": PRECISION,
        "commit": commit(),
    }


@functools.lru_cache(maxsize=1)
def stand_in_for(data: str, rows: int, seed: int) -> tuple[Any, Any, Any]:
    """The same rows for two residual blocks over MiniLM's frozen vectors, and which rows are of
    which side (``stand_in.py``)."""
    from peers.stand_in import case, learn_vectors

    learn_vectors(data)
    parts = parts_of({"data": data, "rows": rows, "seed": seed})
    texts, labels = parts.train.texts + parts.valid.texts, parts.train.labels + parts.valid.labels
    made = case("vectors", texts, labels, parts.test, {"seed": seed})
    return made, np.arange(len(parts.train)), np.arange(len(parts.train), len(texts))


def stand_in_fit(cell: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """One fit of the stand-in, which takes a second, through the whole pipeline."""
    from holdfast.fits.fit import fit

    made, train, valid = stand_in_for(cell["data"], cell["rows"], cell["seed"])
    begun = time.process_time()
    fitted = fit(made.prepared, train, valid, settings)
    seconds = time.process_time() - begun
    return {
        **scores(fitted.measure(made.test)[1], made.test.labels),
        "fit_s": round(seconds, 3),
        "best_step": int(fitted.trained.best_step),
        "last_step": int(fitted.trained.last_step),
        "commit": commit(),
    }


def scores(logits: Any, labels: Any) -> dict[str, float]:
    """Accuracy, log loss, and log loss after the best temperature of the same rows."""
    from holdfast.stats.temperature import best_temperature

    logits = np.asarray(logits, dtype=np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_share = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return {
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "loss": float(-log_share[np.arange(len(labels)), labels].mean()),
        "refined": float(best_temperature(logits, labels)[1]),
    }


def probe_accuracy(fitted: Any, rows: Any) -> float | None:
    """The accuracy of the linear probe that the fit began with, on the untouched features."""
    from holdfast.methods.closed_form import HeadRefit
    from holdfast.training.observe import Observer

    found = [one for one in fitted.listeners if isinstance(one, HeadRefit)]
    if not found or found[0].baseline is None:
        return None
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    network = fitted.base_network(head=found[0].baseline)
    logits = observer.measure(network, rows, np.arange(len(rows)))[1]
    return float((logits.argmax(axis=1) == rows.labels).mean())
