"""One recorded run: its snapshots, what is known of it, and its losses on a large pool of rows.

The pool is never seen by anything in the run: it is the truth that a verdict or a rule is held
against. A recording is one ``.npz`` file in the cache beside the base models, made again by
``recordings.py`` where it is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.records import Floats, Ints, Snapshot
from holdfast.stats.temperature import best_temperature, losses_at

ROWS = ("train_losses", "valid_losses", "train_correct", "valid_correct", "valid_logits")
PLAIN = (
    "step",
    "epoch",
    "examples_seen",
    "phase",
    "train_metrics",
    "valid_metrics",
    "refined_loss",
    "temperature",
    "learning_rate",
    "gradient_norm",
    "relative_update",
    "distance",
    "seconds",
)
Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Recording:
    """``facts`` are plain values; ``arrays`` what the run_facts can be made of; ``pool_losses``
    [looks, pool]; ``pool_logits`` [looks, pool, classes] for classifiers."""

    cell: dict[str, Any]
    facts: dict[str, Any]
    history: tuple[Snapshot, ...]
    pool_losses: Floats
    pool_logits: Floats | None
    pool_labels: Ints | None
    valid_labels: Ints | None
    arrays: dict[str, Any]

    @property
    def raw(self) -> Floats:
        """Mean pool loss at each look."""
        return self.pool_losses.mean(axis=1)

    @property
    def refined(self) -> Floats:
        """Mean pool loss at each look after the best temperature of the pool itself; the raw one
        where there are no logits."""
        if self.pool_logits is None or self.pool_labels is None:
            return self.raw
        return np.array([best_temperature(x, self.pool_labels)[1] for x in self.pool_logits])

    def served(self, look: int) -> float:
        """The pool loss of the model that a run keeping this state would save: with the
        temperature that the validation rows give, as the pipeline folds it into the last layer."""
        logits = self.history[look].valid_logits
        if self.pool_logits is None or logits is None or self.valid_labels is None:
            return float(self.raw[look])
        temperature, _ = best_temperature(logits, self.valid_labels, smoothing=1)
        assert self.pool_labels is not None
        return float(losses_at(self.pool_logits[look], self.pool_labels, temperature).mean())


def folder() -> Path:
    base = Path.home() / ".cache" / "holdfast" / "base_models"
    return Path(os.environ.get("HOLDFAST_CACHE", base)).parent / "recordings"


def path_of(cell: Cell) -> Path:
    name = "-".join(str(cell[key]).replace(" ", "_").replace("/", "_") for key in sorted(cell))
    return folder() / f"{name}.npz"


def write(
    cell: Cell,
    history: Sequence[Snapshot],
    pool: Sequence[tuple[Floats, Floats | None]],
    facts: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> None:
    """Keep a run, whole or not at all."""
    looks = [{name: getattr(s, name) for name in PLAIN} for s in history]
    rows = {
        name: np.stack([getattr(s, name) for s in history]).astype(
            bool if "correct" in name else np.float32
        )
        for name in ROWS
        if getattr(history[-1], name) is not None
    }
    found = {f"run_{k}": np.asarray(v) for k, v in arrays.items() if v is not None}
    logits = [x for _, x in pool if x is not None]
    found["pool_losses"] = np.stack([x for x, _ in pool]).astype(np.float32)
    if logits:
        found["pool_logits"] = np.stack(logits).astype(np.float32)
    told = json.dumps({"cell": dict(cell), "facts": dict(facts), "looks": looks})
    path = path_of(cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp.npz")
    np.savez_compressed(scratch, told=np.array(told), **rows, **found)
    scratch.rename(path)


def read(cell: Cell) -> Recording:
    with np.load(path_of(cell)) as kept:
        told = json.loads(str(kept["told"]))
        held = {name: kept[name] for name in kept.files if name != "told"}
    arrays = {k.removeprefix("run_"): v for k, v in held.items() if k.startswith("run_")}
    history = tuple(
        Snapshot(**look, **{name: held[name][i] for name in ROWS if name in held})
        for i, look in enumerate(told["looks"])
    )
    return Recording(
        told["cell"],
        told["facts"],
        history,
        held["pool_losses"].astype(np.float64),
        held.get("pool_logits"),
        arrays.get("pool_labels"),
        arrays.get("valid_labels"),
        arrays,
    )
