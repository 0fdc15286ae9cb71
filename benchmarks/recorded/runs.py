"""Making recordings: the real loop with a listener that measures the pool at every look."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.arms import write_recipe
from peers.rows import Parts

from holdfast.core.seeds import generator
from holdfast.models.layers import count_parameters
from holdfast.training.loop import fit
from recorded.store import Cell, write

LOOKS = 20


class Pool:
    """A listener: the pool's losses (and logits) at each snapshot, and who was seen when."""

    name = "pool"

    def __init__(self, examples: Any, classifies: bool) -> None:
        self._examples = examples
        self._classifies = classifies
        self.looks: list[tuple[Any, Any]] = []
        self.first_seen: dict[int, int] = {}

    def snapshot_taken(self, run: Any) -> None:
        rows = np.arange(len(self._examples))
        losses, kept = run.observer.measure(run.network, self._examples, rows)
        self.looks.append((losses, kept if self._classifies else None))

    def batch_ready(self, run: Any) -> None:
        from holdfast.training.step import draw_of_step

        for row in draw_of_step(run).rows:
            self.first_seen.setdefault(int(row), run.step)


def record_texts(cell: Cell, parts: Parts, settings: list[str]) -> None:
    """A run of the embedded encoder on rows of a text set, with the cell's fault planted after the
    division."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe

    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        # Class names as rows would be learned beside planted rows, without their fault.
        settings = ["train.added=[]", *settings]
        recipe = override(read_recipe(write_recipe(parts, Path(name), cell["seed"])), settings)
        splits = load_and_divide(recipe).splits
        ready = make_training_plan(*prepare_divided(recipe, splits))
        pool = ready.definition.encode(splits.test.open(), ready.loaded, ready.recipe)
    train, valid = planted(ready.train, ready.valid, cell)
    sides = replace(ready.splits, train=train, valid=valid)
    record(cell, replace(ready, splits=sides), pool, classifies=True)


def planted(train: Any, valid: Any, cell: Cell) -> tuple[Any, Any]:
    """Wrong labels on both sides, or validation rows copied over training rows."""
    word, _, amount = str(cell["fault"]).partition(" ")
    if word == "noise":
        share = int(amount) / 100
        return tuple(
            replace(rows, labels=with_noise(rows.labels, share, (cell["seed"], side)))
            for side, rows in (("train", train), ("valid", valid))
        )  # type: ignore[return-value]
    if word == "copies":
        return with_copies(train, valid, int(amount) / 100, cell["seed"]), valid
    return train, valid


def with_noise(labels: Any, share: float, seed: Any) -> Any:
    """Exactly this share of the labels changed to another class."""
    rng = generator(seed[0], "benchmark", "noise", seed[1])
    noisy, classes = labels.copy(), int(labels.max()) + 1
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy[chosen] = (noisy[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return noisy


def with_copies(train: Any, valid: Any, share: float, seed: int) -> Any:
    """Training rows, of which some stand in for copies of this share of the validation rows."""
    rng = generator(seed, "benchmark", "copies")
    copied = rng.permutation(len(valid))[: round(share * len(valid))]
    kept = np.sort(rng.permutation(len(train))[: len(train) - len(copied)])
    return joined(train, kept, valid, copied)


def joined(one: Any, first: Any, other: Any, second: Any) -> Any:
    """Encoded texts of rows ``first`` of one set and ``second`` of another."""
    pieces = [(one, int(i)) for i in first] + [(other, int(i)) for i in second]
    cut = [slice(rows.offsets[i], rows.offsets[i + 1]) for rows, i in pieces]
    lengths = [piece.stop - piece.start for piece in cut]
    types = None
    if one.types is not None:
        types = np.concatenate([rows.types[c] for (rows, _), c in zip(pieces, cut, strict=True)])
    return replace(
        one,
        types=types,
        ids=np.concatenate([rows.ids[c] for (rows, _), c in zip(pieces, cut, strict=True)]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        rows=np.arange(len(pieces)),
        labels=np.array([rows.labels[i] for rows, i in pieces]),
    )


def record(cell: Cell, ready: Any, pool: Any, classifies: bool) -> None:
    """Run the loop to its planned end, whatever happens, and keep what was seen."""
    from holdfast.fits.fit import make_job
    from holdfast.training.machine.machine import make_accelerator

    torch.set_num_threads(1)
    watch = Pool(pool, classifies)
    accelerator = make_accelerator(str(ready.recipe.train.precision))
    job, own = make_job(ready, accelerator, listeners=(watch,))
    job = replace(job, advisor=None)
    total, trainable = count_parameters(ready.loaded.network)
    arrays = features_of(job, ready) if classifies else {}
    fitted = fit(job)
    rate = max(phase.learning_rate for phase in ready.plan.phases)
    facts = facts_of(ready, fitted, {"total": total, "trainable": trainable, "rate": rate})
    write(cell, fitted.history, watch.looks, facts, {**arrays, **seen(job, watch, pool, ready)})
    del own


def facts_of(ready: Any, fitted: Any, numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **numbers,
        "task": ready.recipe.task,
        "planned_steps": ready.plan.steps,
        "train_rows": len(ready.train),
        "train_tokens": int(ready.train.lengths.sum()),
        "train_s": fitted.train_s,
        "evaluate_s": fitted.evaluate_s,
        "guard_s": fitted.guard_s,
        "looks_at": list(ready.plan.evaluate_at),
        "classes": len(ready.task.classes),
    }


def features_of(job: Any, ready: Any) -> dict[str, Any]:
    """What the untouched model's last layer would read, of training and validation rows."""
    from holdfast.training.observe import Observer

    observer = Observer(job.accelerator, job.task)
    return {
        f"{side}_features": observer.features(job.network, rows, np.arange(len(rows))).astype(
            np.float16
        )
        for side, rows in (("train", ready.train), ("valid", ready.valid))
    }


def seen(job: Any, watch: Pool, pool: Any, ready: Any) -> dict[str, Any]:
    from holdfast.training.plan import probe_positions

    probe = probe_positions(ready.train.rows, job.plan.probe_rows, job.plan.seed)
    return {
        "probe": probe,
        "first_seen": np.array([watch.first_seen.get(int(i), -1) for i in probe]),
        "train_labels": getattr(ready.train, "labels", None),
        "valid_labels": getattr(ready.valid, "labels", None),
        "pool_labels": getattr(pool, "labels", None),
    }
