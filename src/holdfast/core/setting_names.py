"""The names of recipe keys: the stored one, which run folders and scripts read, and the plain one,
which pages, messages and reports show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# The key that a written recipe has → its plain name, which stands in the same section.
PLAIN_NAMES: Mapping[str, str] = {
    "enrich": "augment",
    "treat": "clean",
    "data.names": "data.class_names",
    "data.rare": "data.rare_classes",
    "data.split.held": "data.split.test_groups",
    "train.accumulate": "train.gradient_accumulation_steps",
    "train.clip": "train.max_grad_norm",
    "train.warmup": "train.warmup_ratio",
    "train.patience": "train.early_stopping_patience",
    "train.metric": "train.metric_for_best_model",
    "train.keep": "train.checkpoint_selection",
    "train.checkpoint_activations": "train.gradient_checkpointing",
    "control.worth": "control.min_gain",
    "control.chance": "control.min_gain_probability",
    "meta.looks": "meta.evaluations",
}


def plain_key(key: str, used: Iterable[str] = PLAIN_NAMES) -> str:
    """A dotted key under its plain name, if the key or its section is one of ``used``."""
    for stored in used:
        if key == stored or key.startswith(f"{stored}."):
            return PLAIN_NAMES[stored] + key.removeprefix(stored)
    return key
