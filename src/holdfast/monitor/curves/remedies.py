"""Remedies for another program's log, as instructions with runnable ``--set`` strings: the tables
of ``monitor.remedies`` with remedies that only apply to a log. For a log of the Hugging Face
Trainer they also name the ``TrainingArguments``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from holdfast.core.curves import TRANSFORMERS, Curves
from holdfast.core.records import Remedy
from holdfast.monitor.remedies import MOST_VALID, REMEDIES, USUAL_VALID, Remedies, select_remedies

OF_LOGS: Mapping[str, Remedy] = {
    **{name: REMEDIES[name] for name in ("regularize", "layer decay", "full precision")},
    "more validation": Remedy("use more rows for validation", MOST_VALID),
    "more rows": Remedy("label more training rows"),
    "new rows": Remedy("label more training rows: the present ones are already fitted"),
    "while it falls": Remedy(
        "continue only while the validation loss falls: the training rows are already fitted"
    ),
    "training metric": Remedy("log the metric on the training rows too: the gap decides"),
    "best so far": Remedy("until then keep the checkpoint of the best evaluation"),
    "end of a cycle": Remedy("evaluate at the end of a cycle, where the learning rate is lowest"),
    "no restarts": Remedy("or train without restarts", ("train.schedule=cosine",)),
    "two logs": Remedy("diagnose the parts before and after the jump as two logs"),
    "temperature": Remedy("use temperature scaling, fitted on the validation rows"),
    "soft labels": Remedy("use label smoothing", ("train.label_smoothing=0.1",)),
    "metric": Remedy(
        "choose the checkpoint by the metric that matters", ("train.metric=accuracy",)
    ),
    # Without a value: curves do not show the peak that it must be below.
    "slower": Remedy("lower the learning rate"),
    "warm up and clip": Remedy(
        "warm up longer and clip gradients", ("train.warmup=0.1", "train.clip=1.0")
    ),
    "evaluate precisely": Remedy("evaluate in full precision", ("train.precision=float32",)),
    "answers left": Remedy(
        "check that every validation row has target tokens left after truncation"
    ),
    "check labels": Remedy("check that labels and inputs belong together"),
    "find copies": Remedy("look for duplicates between the training and the validation set"),
    "find a giveaway": Remedy("look for a feature that reveals the label"),
    "keep validation": Remedy(
        "split off rows for validation and evaluate on them during the run", USUAL_VALID
    ),
    "name a column": Remedy("or name the column: holdfast diagnose LOG --set valid=COL"),
    "evaluate often": Remedy("evaluate more often", ("train.evaluations=20",)),
}

# Each finding, and the names of its remedies; names that are not in the table are computed.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    "rise": ("keep the best", "regularize", "layer decay", "more rows"),
    # No remedy that fits memorized training rows even more closely.
    "gap": ("new rows", "regularize", "layer decay", "keep the best of several"),
    # Little is left to learn from the training rows, whatever the rate or the length of the run.
    "fitted": ("while it falls", "more rows"),
    # The rise of the loss may be overconfidence only, or more.
    "unknown gap": ("training metric", "more validation", "best so far"),
    "restarts": ("end of a cycle", "no restarts"),
    "shift": ("two logs", "evaluate often"),
    "confidence": ("temperature", "soft labels", "metric", "lowest loss"),
    "diverging": ("slower", "warm up and clip", "full precision"),
    # Training continues normally and only the evaluation fails.
    "broken evaluation": ("evaluate precisely", "answers left"),
    "falling": ("longer",),
    # No higher rate: curves do not show whether the peak was too low or too high.
    "no progress": ("longer", "check labels"),
    "leak": ("find copies", "find a giveaway"),
    "no validation": ("keep validation", "name a column"),
    "few points": ("evaluate often",),
    "few rows": ("more validation",),
    "noise": ("more validation", "evaluate often"),
}


def remedies_for(finding: str, curves: Curves) -> Remedies:
    """Remedies for a finding of a log, the most likely to help first."""
    return select_remedies(FINDINGS[finding], OF_LOGS, WORKED_OUT, curves)


def _keep_best(curves: Curves) -> Remedies:
    do = "stop at the best evaluation and keep that checkpoint"
    return (Remedy(do, _until_best(curves), aim="best"),)


def _keep_best_of_several(curves: Curves) -> Remedies:
    return () if curves.best in (None, curves.last) else _keep_best(curves)


def _longer(curves: Curves) -> Remedies:
    epochs = _epochs_at(curves, curves.last)
    longer = () if epochs is None else (f"train.epochs={2 * epochs}",)
    return (Remedy("train longer", longer),)


def _lowest_loss(curves: Curves) -> Remedies:
    return (Remedy("or stop at the lowest validation loss", _until_best(curves)),)


def _until_best(curves: Curves) -> tuple[str, ...]:
    epochs = _epochs_at(curves, curves.best)
    if epochs is not None:
        return (f"train.epochs={epochs}",)
    steps = curves.best if curves.axis == "step" else None
    return () if steps is None or steps < 1 else (f"train.max_steps={round(steps)}",)


def _epochs_at(curves: Curves, place: float | None) -> int | None:
    """Completed epochs at a position; programs that count from 0 have completed one more."""
    if place is None:
        return None
    if curves.axis == "epoch":
        first = min(
            s.positions[0] for s in (curves.train, curves.valid) if s is not None and len(s)
        )
        # The setting counts completed epochs.
        return max(1, math.ceil(place) + (1 if first == 0 else 0))
    if curves.epochs is None or not len(curves.epochs):
        return None
    return max(1, math.ceil(np.interp(place, curves.epochs.positions, curves.epochs.values)))


WORKED_OUT: Mapping[str, Callable[[Curves], Remedies]] = {
    "keep the best": _keep_best,
    "keep the best of several": _keep_best_of_several,
    "longer": _longer,
    "lowest loss": _lowest_loss,
}

CALL = "TrainingArguments"
BEST = re.compile(r"train\.(epochs|max_steps)=")

# A setting of a recipe to arguments of ``transformers.TrainingArguments``. Settings that are not
# listed have none (layer_decay needs a custom optimizer; the split is made before the trainer).
THEIRS: dict[str, Callable[[str, Curves], tuple[str, ...]]] = {
    "train.epochs": lambda value, _: (f"num_train_epochs={value}",),
    "train.max_steps": lambda value, _: (f"max_steps={value}",),
    "train.learning_rate": lambda value, _: (f"learning_rate={value}",),
    "train.weight_decay": lambda value, _: (f"weight_decay={value}",),
    "train.label_smoothing": lambda value, _: (f"label_smoothing_factor={value}",),
    "train.warmup": lambda value, log: (f"warmup_steps={_steps(float(value), log)}",),
    "train.clip": lambda value, _: (f"max_grad_norm={value}",),
    "train.precision": lambda _, __: ("fp16=False", "bf16=False"),
    "train.metric": lambda value, _: _best_by(value, rises=True),
    "train.evaluations": lambda value, log: (
        'eval_strategy="steps"',
        f"eval_steps={_steps(1 / float(value), log)}",
    ),
}


def in_their_words(remedies: Remedies, log: Curves) -> Remedies:
    """Add ``TrainingArguments(…)`` to the words of each remedy where ``log`` is one of the Hugging
    Face Trainer; else return them unchanged. ``set`` does not change."""
    if log.source != TRANSFORMERS:
        return remedies
    pairs = [(remedy, arguments(remedy, log)) for remedy in remedies]
    return tuple(
        replace(r, do=f"{r.do}: {CALL}({', '.join(names)})") if names else r for r, names in pairs
    )


def arguments(remedy: Remedy, log: Curves) -> tuple[str, ...]:
    """A remedy as ``name=value`` arguments of ``transformers.TrainingArguments``."""
    arguments_found: list[str] = []
    for setting in remedy.set:
        key, _, value = setting.partition("=")
        if key in THEIRS:
            arguments_found += THEIRS[key](value, log)
    if remedy.aim == "best" and log.valid is not None and any(map(BEST.match, remedy.set)):
        arguments_found += _best_by(
            log.valid.name.removeprefix("eval_"), log.valid.higher_is_better
        )
    return tuple(arguments_found)


def _best_by(metric: str, rises: bool) -> tuple[str, ...]:
    return (
        "load_best_model_at_end=True",
        f'metric_for_best_model="{metric}"',
        f"greater_is_better={rises}",
    )


def _steps(share: float, log: Curves) -> str:
    """A share of the plan in steps. Where the plan is not known, the share itself, which newer
    versions accept."""
    return f"{share:g}" if log.planned_end is None else str(max(1, round(share * log.planned_end)))
