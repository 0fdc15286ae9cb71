"""Remedies for each finding, the most likely to help first, as instructions with runnable ``--set``
strings: a table of remedies by name, and a table of findings. A test checks every remedy against
the recipe. ``advisable_remedies`` is the only place that decides which of them a verdict may name:
none that the task refuses, and none that the run itself has already shown to be wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from holdfast.core.labels import OVERFITTED, Label
from holdfast.core.records import Remedy
from holdfast.monitor import limits
from holdfast.monitor.history import History

Remedies = tuple[Remedy, ...]
RATE_STEP = 3.0  # factor on a learning rate: about half an order of magnitude
MOST_VALID = ("data.split.train=0.6", "data.split.valid=0.25", "data.split.test=0.15")
USUAL_VALID = ("data.split.train=0.7", "data.split.valid=0.15", "data.split.test=0.15")

# Every setting that a remedy names with a fixed value, and whether larger or smaller values have
# more of the same effect. The training code says which of them, or which stronger values, the task
# refuses or the recipe already has (``RunFacts.refused``). Numbers of epochs and learning rates are
# computed here.
FIXED: dict[str, Literal["larger", "smaller"] | None] = {
    "train.weight_decay=0.1": "larger",
    "train.label_smoothing=0.1": "larger",
    "train.layer_decay=0.9": "smaller",
    "train.warmup=0.2": "larger",
    "train.clip=0.5": "smaller",
    "train.precision=float32": None,
    "train.metric=refined_loss": None,
    "model.adapter.kind=lora": None,
    "model.freeze=0.75": "larger",
    "methods.replay=true": None,
    "methods.kl_start=true": None,
    "generate.beams=4": "larger",
}

# Remedies whose wording is the same for every run.
REMEDIES: Mapping[str, Remedy] = {
    "more rows": Remedy("label more rows"),
    "regularize": Remedy(
        "regularize more", ("train.weight_decay=0.1", "train.label_smoothing=0.1")
    ),
    "layer decay": Remedy(
        "lower the learning rate of the lower layers", ("train.layer_decay=0.9",)
    ),
    "adapter": Remedy("train fewer weights", ("model.adapter.kind=lora",)),
    "frozen base": Remedy(
        "train an adapter and freeze the base model", ("model.adapter.kind=lora",)
    ),
    "freeze": Remedy("freeze the first layers", ("model.freeze=0.75",)),
    "warm up": Remedy("warm up longer", ("train.warmup=0.2",)),
    "warm up and clip": Remedy(
        "warm up longer and clip harder", ("train.warmup=0.2", "train.clip=0.5")
    ),
    "full precision": Remedy("train in full precision", ("train.precision=float32",)),
    "no numbers": Remedy(
        "look for rows without a target, and for values or weights that are not finite"
    ),
    "leave it": Remedy(
        "change nothing if only the predicted class matters: the saved model is calibrated"
    ),
    "calibrated loss": Remedy(
        "choose the checkpoint by its calibrated loss", ("train.metric=refined_loss",)
    ),
    "smooth": Remedy("use label smoothing", ("train.label_smoothing=0.1",)),
    "check labels": Remedy("check that the labels belong to these rows"),
    "correct labels": Remedy(
        "check the rows with the largest losses in the report, and correct their labels"
    ),
    "fit less": Remedy(
        "fit the labels less closely", ("train.label_smoothing=0.1", "train.epochs=3")
    ),
    "find copies": Remedy(
        "look for validation rows that duplicate a training row or share its source"
    ),
    "group": Remedy(
        "keep rows of one source together: name the source column", ("data.group=COLUMN",)
    ),
    "target column": Remedy("name the column that holds the targets", ("data.target=COLUMN",)),
    "drop copies": Remedy("remove the rows whose target is equal to their source"),
    "drop the word": Remedy("remove the word that reveals the label from the texts"),
    "replay": Remedy("mix general texts into the training rows", ("methods.replay=true",)),
    "stay near": Remedy(
        "penalize distance from the base model's outputs", ("methods.kl_start=true",)
    ),
    "read texts": Remedy(
        "compare the generated texts in the report with their sources and references"
    ),
    "train less": Remedy("lower the learning rate and train less", ("train.epochs=2",)),
    "beams": Remedy("generate with beam search", ("generate.beams=4",)),
    "learn more": Remedy(
        "train longer: a model that has learned little repeats itself", aim="longer"
    ),
    "more validation": Remedy("use more rows for validation", MOST_VALID),
    "keep validation": Remedy("split off rows for validation, as holdfast train does by default"),
}

# Each finding, and the names of its remedies; ``slower``, ``faster`` and ``longer`` are computed.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    # A gap that a shorter run would not close.
    "gap": ("regularize", "layer decay", "adapter"),
    "gap of few rows": ("more rows", "regularize", "layer decay", "adapter"),
    "diverging": ("slower", "warm up and clip", "full precision"),
    # A loss that is not finite before any update: the learning rate cannot be the reason.
    "broken start": ("no numbers", "full precision"),
    "slow": ("faster", "longer"),
    "learning": ("longer",),
    # Nothing shows that the best checkpoint beats the first.
    "no progress": ("longer", "faster", "more rows", "more validation"),
    "nothing learned": ("check labels", "longer", "faster", "more rows", "more validation"),
    # The temperature that corrects it is fitted and saved with the model automatically.
    "miscalibrated": ("leave it", "calibrated loss", "smooth"),
    "noisy labels": ("correct labels", "fit less"),
    "leaks": ("find copies", "group"),
    "copied targets": ("target column", "drop copies"),
    "giveaway": ("drop the word",),
    "forgetting": ("slower", "replay", "stay near", "frozen base"),
    # Rows used first are fitted more than later ones.
    "primacy": ("warm up", "layer decay", "longer"),
    "too large": ("adapter", "freeze"),
    "copying": ("read texts", "train less", "adapter"),
    "repeating": ("beams", "learn more"),
    "few rows": ("more rows", "more validation"),
    "few training rows": ("more rows",),
    "no rows": ("keep validation",),
}


def remedies_for(finding: str, history: History | None = None) -> Remedies:
    """Remedies for a finding, the most likely to help first. ``history`` is required where a number
    of epochs or a learning rate is computed."""
    return select_remedies(FINDINGS[finding], REMEDIES, COMPUTED_REMEDIES, history)


def select_remedies(
    names: Sequence[str],
    remedies: Mapping[str, Remedy],
    worked_out: Mapping[str, Callable[[Any], Remedies]],
    run: object,
) -> Remedies:
    """The remedies of these names, from the table or computed for this run, in order."""
    selected: list[Remedy] = []
    for name in names:
        selected += (remedies[name],) if name in remedies else worked_out[name](run)
    return tuple(selected)


def overfit_remedies(history: History, best: int) -> Remedies:
    """Remedies for overfitting. ``best`` is the index of the evaluation after which nothing was
    gained. Where a run saves an earlier checkpoint, the epochs after it cost time and no quality,
    so fewer of them are no remedy. If that checkpoint or ``best`` is step 0, no run is shorter:
    fine-tuning gained nothing at this rate with these rows."""
    kept_place = history.kept_place
    target_place = best if kept_place is None else kept_place
    if target_place == len(history.snapshots) - 1:
        return remedies_for("gap")
    if history.steps[target_place] == 0:
        rows, (slower,) = REMEDIES["more rows"], _slower(history)
        is_rate_high = history.highest_rate > _usual(history)[1]
        return (*((slower, rows) if is_rate_high else (rows, slower)), *remedies_for("gap"))
    epochs = _epochs(history.snapshots[target_place].epoch)
    if kept_place is None:
        return (Remedy("train only up to the best step", epochs), *remedies_for("gap"))
    saved = Remedy(
        "use the saved model: it is the best checkpoint, and later epochs did not change it"
    )
    faster = Remedy("if you want to save time, train only up to the best checkpoint", epochs)
    return (saved, faster, *remedies_for("gap of few rows"))


def _longer(history: History) -> Remedies:
    """Twice as many epochs as so far, and updates where these are limited; ten epochs where there
    was no evaluation yet."""
    passes = 2 * history.snapshots[-1].epoch if history.snapshots else 10.0
    limit = history.run_facts.step_limit
    steps = () if limit is None else (f"train.max_steps={2 * limit}",)
    return (Remedy("train longer", (*_epochs(passes), *steps), aim="longer"),)


def _epochs(passes: float) -> tuple[str, ...]:
    """A number of epochs as a setting; empty where the number is not known."""
    return (f"train.epochs={max(1, math.ceil(passes))}",) if math.isfinite(passes) else ()


def _faster(history: History) -> Remedies:
    """Three times the peak learning rate, or more where that is still below the usual ones; never
    above the usual ones. Empty where the peak is not known: evaluations show the rate at a few
    steps, often in the warm-up or near the end, so a rate above all of them may be below the
    peak."""
    peak, (low, high) = history.peak_rate, _usual(history)
    if math.isnan(peak):
        return ()
    new_rate = f"{min(max(RATE_STEP * peak, low), high):.2g}"
    if not float(new_rate) > peak:
        return ()
    return (Remedy("raise the learning rate", (f"train.learning_rate={new_rate}",)),)


def _slower(history: History) -> Remedies:
    """A third of the highest known learning rate, and at most the usual ones. The rates at the
    evaluations are enough: a rate below one of them is below the peak."""
    highest = history.highest_rate
    new_rate = f"{min(highest / RATE_STEP, _usual(history)[1]):.2g}"
    is_lower = 0 < float(new_rate) < highest
    setting = (f"train.learning_rate={new_rate}",) if is_lower else ()
    return (Remedy("lower the learning rate", setting),)


def _usual(history: History) -> tuple[float, float]:
    return history.run_facts.usual_rates or (0.0, math.inf)


COMPUTED_REMEDIES: Mapping[str, Callable[[History], Remedies]] = {
    "longer": _longer,
    "faster": _faster,
    "slower": _slower,
}

# Task metrics that act as an accuracy where a row is neither correct nor wrong.
SHARES = ("token_accuracy", "accuracy", "entity_f1")


def advisable_remedies(
    history: History, label: Label, symptoms: Container[str], remedies: Iterable[Remedy]
) -> Iterator[Remedy]:
    """Yield the remedies in order, without settings that cannot help this run. A remedy that had
    settings and has none left is dropped.

    Dropped settings:

    - what the task refuses or the recipe already has (``RunFacts.refused``);
    - more training where the training rows are memorized, validation got worse or the run diverged;
      less training where the run ended too early;
    - a higher learning rate where the training rows are memorized, the run diverged or the rate was
      too high; a lower one where it was too low;
    - the number of epochs that the run already made.

    ``symptoms`` are the names of the detectors that reported a symptom.
    """
    last = history.snapshots[-1] if history.snapshots else None
    # No value is larger or smaller than NaN.
    epochs, rate = (last.epoch, history.highest_rate) if last else (math.nan, math.nan)
    diverging, nothing_to_learn = label == "diverging", has_nothing_to_learn(history)
    long_enough = diverging or label in OVERFITTED or history.has_risen or nothing_to_learn
    fast_enough = diverging or nothing_to_learn or "rate_high" in symptoms
    slow_enough = "rate_low" in symptoms and not diverging and label != "forgetting"

    def helps(setting: str, longer: bool) -> bool:
        key, _, text = setting.partition("=")
        if setting in history.run_facts.refused:
            return False
        if key == "train.epochs":
            value = float(text)
            # A remedy that advises less training must not set more epochs than the run had.
            too_long = value > epochs and (long_enough or not longer)
            too_short = value < epochs and label in ("underfit", "learning")
            as_it_is = last is not None and history.is_at_plan_end and value == epochs
            return not (as_it_is or too_long or too_short)
        if key == "train.learning_rate":
            value = float(text)
            return not ((value > rate and fast_enough) or (value < rate and slow_enough))
        return True

    for remedy in remedies:
        longer = remedy.aim == "longer"
        settings = tuple(one for one in remedy.set if helps(one, longer))
        if not (longer and long_enough) and (settings or not remedy.set):
            yield replace(remedy, set=settings)


def has_nothing_to_learn(history: History) -> bool:
    """Whether the training rows are memorized: their loss is near zero, or 95 % of what is counted
    in them is correct and validation is more than 10 points lower."""
    if history.at_floor or not history.snapshots:
        return history.at_floor
    last = history.snapshots[-1]
    for name in SHARES:
        train, valid = last.train_metrics.get(name), last.valid_metrics.get(name)
        if train is not None and valid is not None:
            # Comparisons with NaN are false.
            return train >= limits.FLOOR_SHARE and train - valid > limits.GAP
    return False
