"""The remedies for a log of the Hugging Face Trainer in its own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from holdfast.core.curves import TRANSFORMERS, Curves
from holdfast.core.records import Remedy

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


def in_their_words(remedies: tuple[Remedy, ...], log: Curves) -> tuple[Remedy, ...]:
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
    found: list[str] = []
    for setting in remedy.set:
        key, _, value = setting.partition("=")
        if key in THEIRS:
            found += THEIRS[key](value, log)
    keeps = remedy.aim == "best" and log.valid is not None
    if keeps and log.valid is not None and any(map(BEST.match, remedy.set)):
        found += _best_by(log.valid.name.removeprefix("eval_"), log.valid.rises)
    return tuple(found)


def _best_by(metric: str, rises: bool) -> tuple[str, ...]:
    return (
        "load_best_model_at_end=True",
        f'metric_for_best_model="{metric}"',
        f"greater_is_better={rises}",
    )


def _steps(share: float, log: Curves) -> str:
    """A share of the plan in steps; as it is, which newer versions read as a share, where the plan
    is not known."""
    return f"{share:g}" if log.planned is None else str(max(1, round(share * log.planned)))
