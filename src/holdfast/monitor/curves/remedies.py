"""What to try after a foreign log, as sentences with runnable ``--set`` strings: the tables of
``monitor.remedies`` with the remedies that only a log has; and those for a log of the Hugging Face
Trainer in its own words."""

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
    "more validation": Remedy("give validation more rows", MOST_VALID),
    "more rows": Remedy("give it more training rows"),
    "new rows": Remedy("give it more training rows: those it has are known already"),
    "while it falls": Remedy(
        "go on only while validation falls: the training rows are fitted already"
    ),
    "training metric": Remedy("log the metric on the training rows too: the gap tells which it is"),
    "best so far": Remedy("until then keep the state of the best evaluation"),
    "end of a cycle": Remedy("judge at the end of a cycle, where the rate is lowest"),
    "no restarts": Remedy("or train without restarts", ("train.schedule=cosine",)),
    "two logs": Remedy("diagnose the parts before and after the jump as two logs"),
    "temperature": Remedy("scale the logits by a temperature fitted on validation rows"),
    "soft labels": Remedy("train towards softer labels", ("train.label_smoothing=0.1",)),
    "metric": Remedy("choose the state by the metric that matters", ("train.metric=accuracy",)),
    # Without a value: curves do not tell the peak that it must lie below.
    "slower": Remedy("use a smaller learning rate"),
    "warm up and clip": Remedy("warm up longer and clip", ("train.warmup=0.1", "train.clip=1.0")),
    "evaluate precisely": Remedy("evaluate in full precision", ("train.precision=float32",)),
    "answers left": Remedy(
        "check that every validation row has an answer left after it is cut to length"
    ),
    "check labels": Remedy("check that labels and inputs belong together"),
    "find copies": Remedy("look for copies between the training and the validation set"),
    "find a giveaway": Remedy("look for a feature that gives the answer away"),
    "keep validation": Remedy(
        "keep rows for validation and evaluate on them during the run", USUAL_VALID
    ),
    "name a column": Remedy("or name the column: holdfast diagnose LOG --set valid=COL"),
    "evaluate often": Remedy("evaluate more often", ("train.evaluations=20",)),
}

# Each finding, and the names of what helps; what has no words in the table is worked out.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    "rise": ("keep the best", "regularize", "layer decay", "more rows"),
    # Nothing that fits training rows further that are known by heart.
    "gap": ("new rows", "regularize", "layer decay", "keep the best of several"),
    # Little is left to learn from the training rows, whatever the rate or the length of the run.
    "fitted": ("while it falls", "more rows"),
    # A rise of the loss may be confidence alone, or more.
    "unknown gap": ("training metric", "more validation", "best so far"),
    "restarts": ("end of a cycle", "no restarts"),
    "shift": ("two logs", "evaluate often"),
    "confidence": ("temperature", "soft labels", "metric", "lowest loss"),
    "diverging": ("slower", "warm up and clip", "full precision"),
    # Training goes on and only the evaluation breaks.
    "broken evaluation": ("evaluate precisely", "answers left"),
    "falling": ("longer",),
    # Not a larger rate: curves do not tell whether the peak was too low or too high.
    "no progress": ("longer", "check labels"),
    "leak": ("find copies", "find a giveaway"),
    "no validation": ("keep validation", "name a column"),
    "few points": ("evaluate often",),
    "few rows": ("more validation",),
    "noise": ("more validation", "evaluate often"),
}


def remedies_for(finding: str, curves: Curves) -> Remedies:
    """What helps against a finding of a log, the likeliest first."""
    return select_remedies(FINDINGS[finding], OF_LOGS, WORKED_OUT, curves)


def _keep_best(curves: Curves) -> Remedies:
    do = "stop at the best evaluation and keep that state"
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
    """Whole epochs done at a position; programs that count from 0 have done one more."""
    if place is None:
        return None
    if curves.axis == "epoch":
        first = min(
            s.positions[0] for s in (curves.train, curves.valid) if s is not None and len(s)
        )
        # A setting counts epochs that are done.
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

# A setting of a recipe to arguments of ``transformers.TrainingArguments``; what is not here has
# none (layer_decay needs an optimizer of one's own, the division is made before the trainer).
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
    """The remedies with ``TrainingArguments(…)`` after their words where ``log`` is one of the
    Hugging Face Trainer, else as they are; ``set`` stays."""
    if log.source != TRANSFORMERS:
        return remedies
    pairs = [(remedy, arguments(remedy, log)) for remedy in remedies]
    return tuple(
        replace(r, do=f"{r.do}: {CALL}({', '.join(names)})") if names else r for r, names in pairs
    )


def arguments(remedy: Remedy, log: Curves) -> tuple[str, ...]:
    """What a remedy is in ``transformers.TrainingArguments``, as ``name=value`` strings."""
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
    """A share of the plan in steps; as it is, which newer versions read as a share, where the plan
    is not known."""
    return f"{share:g}" if log.planned_end is None else str(max(1, round(share * log.planned_end)))
