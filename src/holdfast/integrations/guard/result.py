"""``result.json`` of a watched run: what the report reads, as far as the guard knows it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast._version import __version__
from holdfast.core.files import write_json
from holdfast.core.records import Estimate, Floats, Outputs, Remedy, Scores, Snapshot, to_json
from holdfast.core.seeds import generator
from holdfast.evaluate.score import score
from holdfast.pipeline import outcome
from holdfast.stats.paired import paired_bootstrap
from holdfast.stats.temperature import recover_labels
from holdfast.training.looks import LOOKS, write_looks

if TYPE_CHECKING:
    from holdfast.integrations.guard.guard import ForeignRun
    from holdfast.integrations.guard.watch import Watch

# What the remedies of the monitor are called in ``transformers.TrainingArguments``.
THEIRS = {
    "train.epochs": "num_train_epochs",
    "train.learning_rate": "learning_rate",
    "train.weight_decay": "weight_decay",
    "train.label_smoothing": "label_smoothing_factor",
    "train.clip": "max_grad_norm",
    "train.warmup": "warmup_steps",
}
NO_TEST = "the guard sees no test rows; score the restored model on rows of your own"


def write_result(watch: Watch, foreign_run: ForeignRun, policy: str, seed: int) -> None:
    """Write ``result.json``, schema 1, of what was seen so far.

    The rows on which the best state was chosen flatter it, so nothing stands under ``test``.
    """
    best = next((s for s in watch.history if s.step == watch.best_step), watch.history[-1])
    assert watch.verdict is not None
    facts = watch.run_facts
    write_looks(watch.folder / LOOKS, watch.history, facts, watch.best_step, __version__)
    # A remedy names settings of the trainer, which Holdfast does not set.
    verdict = replace(watch.verdict, remedies=tuple(map(_theirs, watch.verdict.remedies)))
    valid = scores(best, foreign_run.classes, seed)
    probe = Scores(best.train_losses.size, _plain(best.train_losses, best.train_metrics, seed))
    write_json(
        watch.folder / "result.json",
        {
            "schema": 1,
            "holdfast": __version__,
            "task": facts.task,
            "model": foreign_run.name,
            "trainer": foreign_run.trainer,
            "policy": policy,
            "seed": seed,
            "classes": list(foreign_run.classes) or None,
            "data": {
                "rows": None,
                "train": facts.train_rows,
                "valid": best.valid_losses.size,
                "test": 0,
                "used": (facts.train_rows or 0) + best.valid_losses.size,
                "findings": [],
            },
            "test": {"n": 0, "metrics": _undefined(valid)},
            "valid": valid.to_json(),
            "train_probe": probe.to_json(),
            "baseline": {"what": None, "test": None},
            "verdict": to_json(verdict),
            "best_step": watch.best_step,
            "last_step": watch.history[-1].step,
            "stopped_because": watch.stop_because or "the trainer ended the run",
            "actions": [{"step": s, "action": a, "because": b} for s, a, b, _ in watch.actions],
            "probes": {"memorization": None, "forgetting": None},
            "timing": _timing(watch),
            "peak_memory_mb": outcome.peak_memory_mb(),
            "decisions": to_json(watch.decisions),
            **outcome.surroundings(*_machine(watch)),
        },
    )


def scores(best: Snapshot, classes: tuple[str, ...], seed: int) -> Scores:
    """The evaluation rows at the kept state, with intervals; every metric for a classifier."""
    losses, logits = best.valid_losses, best.valid_logits
    if logits is None or not classes or not np.isfinite(logits).all():
        return Scores(losses.size, _plain(losses, best.valid_metrics, seed))
    labels = recover_labels(logits, losses)
    found = score(Outputs(np.arange(losses.size), labels, logits, losses), classes, seed=seed)
    return Scores(found.n, found.metrics)


def _plain(losses: Floats, metrics: dict[str, float], seed: int) -> dict[str, Estimate]:
    """The mean loss with its interval over rows, and metrics as they were measured."""
    gap = paired_bootstrap(losses, np.zeros_like(losses), seed=generator(seed, "guard", "loss"))
    told = {name: _estimate(value, "no interval") for name, value in metrics.items()}
    mean = _estimate(gap.value, "BCa over rows")
    if mean.value is not None and np.isfinite(gap.low) and np.isfinite(gap.high):
        mean = replace(mean, low=gap.low, high=gap.high)
    return {**told, "loss": mean}


def _estimate(value: float, note: str) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None, why="it is not a number")
    return Estimate(float(value), note=note)


def _undefined(valid: Scores) -> dict[str, Any]:
    return {name: Estimate(None, why=NO_TEST).to_json() for name in valid.metrics}


def _theirs(remedy: Remedy) -> Remedy:
    names = [
        f"{THEIRS[key]}={value}"
        for key, _, value in (s.partition("=") for s in remedy.set)
        if key in THEIRS
    ]
    do = re.sub(r"\.$", "", remedy.do)
    return Remedy(f"{do} ({', '.join(names)})" if names else do)


def _timing(watch: Watch) -> dict[str, float]:
    total, last = watch.seconds, watch.history[-1]
    return {
        "total_s": round(total, 3),
        "train_s": round(total, 3),
        "evaluate_s": round(watch.evaluate_s, 3),
        "guard_s": round(watch.guard_s, 4),
        "examples_per_s": round(last.examples_seen / total, 3) if total else 0.0,
    }


def _machine(watch: Watch) -> tuple[int, str]:
    import torch

    return torch.get_num_threads(), watch.device
