"""Fits in this process on a cell's rows: ours with any settings, and Trainer with early stopping.

A cell names ``data``, ``rows`` (labelled, validation in them) and ``seed``; every arm of it has
the same rows. Of CR, MR and TREC they are those of ``peers/rows.py``, of BANKING77 the training
file without copies, and 1,000 rows of its test file. Nothing that is chosen sees a test row.
"""

from __future__ import annotations

import csv
import functools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peers.process import commit
from peers.rows import (
    LEAST,
    SETS,
    Parts,
    Rows,
    clean_set,
    data_folder,
    draw,
    labelled_counts,
    stratified,
    table_of,
    without_copies,
)

FOUR = (*SETS, "banking77")
TESTED = 1000
# Of both sides, as Holdfast chooses it by itself on a processor that has it.
PRECISION = "bfloat16"
STOPPING = {"epochs": 20, "batch_size": 16, "patience": 3, "bf16": PRECISION == "bfloat16"}


def parts_of(cell: Mapping[str, Any]) -> Parts:
    """Training, validation and test rows of a cell; the test rows are the same for all of a set."""
    counts = labelled_counts(cell["rows"])
    if cell["data"] in SETS:
        rows = clean_set(cell["data"])
        return draw(rows, seed=cell["seed"], **counts, test=slice(0, TESTED))
    rows, test = banking()
    order = np.random.default_rng([cell["seed"], 17]).permutation(len(rows))
    each = min(sum(LEAST.values()), cell["rows"] // len(set(rows.labels)))
    labelled = stratified(rows, order, cell["rows"], each)
    valid = judging(rows, labelled, counts["valid"])
    return Parts(rows.take(labelled[~np.isin(labelled, valid)]), rows.take(valid), test)


def judging(rows: Rows, labelled: np.ndarray, count: int) -> np.ndarray:
    """Validation rows of classes that keep a row to learn from, evenly by class."""
    names = np.array([rows.labels[place] for place in labelled])
    turn = np.zeros(len(labelled), dtype=int)
    for name in np.unique(names):
        turn[names == name] = np.arange((names == name).sum())
    # The first row of a class is learned from; then every class gives one in its turn.
    others = np.flatnonzero(turn > 0)
    return labelled[others[np.argsort(turn[others], kind="stable")][:count]]


@functools.cache
def banking() -> tuple[Rows, Rows]:
    """The training rows of BANKING77 that are copies of nothing, and its test rows."""
    read = []
    for name in ("train.csv", "test.csv"):
        with (data_folder() / "banking77" / name).open(encoding="utf-8", newline="") as lines:
            found = [(row["text"], row["label"]) for row in csv.DictReader(lines)]
        read.append(Rows(tuple(t for t, _ in found), tuple(label for _, label in found)))
    fixed = np.random.default_rng(7).permutation(len(read[1]))[:TESTED]
    test = read[1].take(fixed)
    seen, clean = set(test.texts), without_copies(read[0])
    return clean.take(i for i, text in enumerate(clean.texts) if text not in seen), test


@functools.lru_cache(maxsize=1)
def prepared_for(data: str, rows: int, seed: int) -> tuple[Any, Any, Any, Any, Any]:
    """Labelled rows and model, which rows are of which side, the test rows, the classes."""
    from holdfast.prepare.model import prepare
    from holdfast.prepare.signals import with_signals
    from holdfast.recipe import parse

    parts = parts_of({"data": data, "rows": rows, "seed": seed})
    of_all = banking()[0] if data not in SETS else clean_set(data)
    classes = tuple(sorted(set(of_all.labels)))
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

    prepared, train, valid, test, _ = prepared_for(cell["data"], cell["rows"], cell["seed"])
    begun, clock = time.process_time(), time.perf_counter()
    fitted = fit(prepared, train, valid, settings)
    seconds, wall = time.process_time() - begun, time.perf_counter() - clock
    rows = fitted.encode(test)
    logits = fitted.measure(rows)[1]
    return {
        **scores(logits, rows.labels),
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


def trainer_fit(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Trainer with early stopping on the same rows."""
    from holdfast.core.packaged_models import EMBEDDED
    from holdfast.models.compute.processor import use_onednn
    from holdfast.models.loading.packaged import packaged_folder
    from peers import trainer_arm

    _, _, _, test, classes = prepared_for(cell["data"], cell["rows"], cell["seed"])
    parts = parts_of(cell)
    sides = {n: {"texts": r.texts, "labels": r.labels} for n, r in parts.named().items()}
    told = {"model": str(packaged_folder(EMBEDDED)), "seed": cell["seed"], "classes": list(classes)}
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as place:
        job = {**told, "rows": sides, "settings": STOPPING}
        trainer, tokenised = trainer_arm.build(job, Path(place))
        # The same numbers in less time.
        use_onednn(trainer.model)
        begun, clock = time.process_time(), time.perf_counter()
        trainer.train()
        seconds, wall = time.process_time() - begun, time.perf_counter() - clock
        logits = trainer.predict(tokenised).predictions
    return {
        **scores(logits, np.array(test.rows["label"])),
        "fit_s": round(seconds, 2),
        "wall_s": round(wall, 2),
        "last_step": int(trainer.state.global_step),
        "epochs": float(trainer.state.epoch),
        "precision": PRECISION,
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
