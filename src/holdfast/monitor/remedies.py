"""What to try for each finding, the likeliest to help first, as sentences with runnable ``--set``
strings: a table of remedies by name, and a table of findings. A test reads every one of them with
the recipe. ``advisable_remedies`` is the one place that decides which of them a verdict may name:
none that the run's task refuses, none that the run itself has already shown to be wrong."""

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
RATE_STEP = 3.0  # times as high or as low a learning rate: about half an order of magnitude
MOST_VALID = ("data.split.train=0.6", "data.split.valid=0.25", "data.split.test=0.15")
USUAL_VALID = ("data.split.train=0.7", "data.split.valid=0.15", "data.split.test=0.15")

# Every setting that a remedy names by a fixed value, and whether larger or smaller values do more
# of the same. Whoever trains says which of them the task refuses or the recipe has already, or more
# than that (``RunFacts.refused``); numbers of passes and learning rates are worked out here.
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

# Remedies whose words are the same for every run.
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
    "full precision": Remedy("compute in full precision", ("train.precision=float32",)),
    "no numbers": Remedy(
        "look for rows without a target, and for values or weights that are not numbers"
    ),
    "leave it": Remedy(
        "change nothing if only the predicted class matters: the saved model is calibrated"
    ),
    "calibrated loss": Remedy(
        "choose the checkpoint by its calibrated loss", ("train.metric=refined_loss",)
    ),
    "smooth": Remedy("smooth the labels", ("train.label_smoothing=0.1",)),
    "check labels": Remedy("check that the labels belong to these rows"),
    "correct labels": Remedy(
        "look at the rows with the largest losses in the report, and correct their labels"
    ),
    "fit less": Remedy("fit labels less closely", ("train.label_smoothing=0.1", "train.epochs=3")),
    "find copies": Remedy("look for validation rows that copy a training row or share its source"),
    "group": Remedy(
        "keep rows of one source together: name the source column", ("data.group=COLUMN",)
    ),
    "target column": Remedy("name the column that holds the targets", ("data.target=COLUMN",)),
    "drop copies": Remedy("remove the rows whose target is equal to their source"),
    "drop the word": Remedy("remove the word that gives the label away from the texts"),
    "replay": Remedy("mix general texts into the training rows", ("methods.replay=true",)),
    "stay near": Remedy(
        "penalize distance from the base model's outputs", ("methods.kl_start=true",)
    ),
    "read texts": Remedy("look at the texts in the report beside their sources and references"),
    "train less": Remedy("lower the learning rate and train less", ("train.epochs=2",)),
    "beams": Remedy("search for texts with beams", ("generate.beams=4",)),
    "learn more": Remedy(
        "train longer: a model that has learned little repeats itself", aim="longer"
    ),
    "more validation": Remedy("give validation more rows", MOST_VALID),
    "keep validation": Remedy("keep rows for validation", USUAL_VALID),
}

# Each finding, and the names of what helps; ``slower``, ``faster`` and ``longer`` are worked out.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    # A gap that is not a matter of time.
    "gap": ("regularize", "layer decay", "adapter"),
    "gap of few rows": ("more rows", "regularize", "layer decay", "adapter"),
    "diverging": ("slower", "warm up and clip", "full precision"),
    # A loss that is no number before any update: no rate can be the reason.
    "broken start": ("no numbers", "full precision"),
    "slow": ("faster", "longer"),
    "learning": ("longer",),
    # Nothing shows that the best state beats the first.
    "no progress": ("longer", "faster", "more rows", "more validation"),
    "nothing learned": ("check labels", "longer", "faster", "more rows", "more validation"),
    # The temperature that mends it is fitted and saved with the model by itself.
    "miscalibrated": ("leave it", "calibrated loss", "smooth"),
    "noisy labels": ("correct labels", "fit less"),
    "leaks": ("find copies", "group"),
    "copied targets": ("target column", "drop copies"),
    "giveaway": ("drop the word",),
    "forgetting": ("frozen base", "slower", "replay", "stay near"),
    # Rows seen first are fitted more than later ones.
    "primacy": ("warm up", "layer decay", "longer"),
    "too large": ("adapter", "freeze"),
    "copying": ("read texts", "train less", "adapter"),
    "repeating": ("beams", "learn more"),
    "few rows": ("more rows", "more validation"),
    "no rows": ("keep validation",),
}


def remedies_for(finding: str, history: History | None = None) -> Remedies:
    """What helps against a finding, the likeliest first. ``history`` is needed where a number of
    passes or a learning rate is worked out."""
    return select_remedies(FINDINGS[finding], REMEDIES, COMPUTED_REMEDIES, history)


def select_remedies(
    names: Sequence[str],
    remedies: Mapping[str, Remedy],
    worked_out: Mapping[str, Callable[[Any], Remedies]],
    run: object,
) -> Remedies:
    """The remedies of these names, from the table or worked out for this run, in order."""
    selected: list[Remedy] = []
    for name in names:
        selected += (remedies[name],) if name in remedies else worked_out[name](run)
    return tuple(selected)


def overfit_remedies(history: History, best: int) -> Remedies:
    """``best`` is the look after which nothing was gained. To train to another state than the one
    that the run is known to keep would give that up; nothing is shorter than to the first one, of
    step 0, which means that fine-tuning gained nothing at this rate with so many rows."""
    kept_place = history.kept_place
    target_place, which = (
        (best, "best step") if kept_place is None else (kept_place, "kept checkpoint")
    )
    if target_place == len(history.snapshots) - 1:
        return remedies_for("gap")
    if history.steps[target_place] == 0:
        rows, (slower,) = REMEDIES["more rows"], _slower(history)
        is_rate_high = history.highest_rate > _usual(history)[1]
        return (*((slower, rows) if is_rate_high else (rows, slower)), *remedies_for("gap"))
    shorter = Remedy(
        f"train no longer than to the {which}", _epochs(history.snapshots[target_place].epoch)
    )
    return (shorter, *remedies_for("gap"))


def _longer(history: History) -> Remedies:
    """Twice as many passes as so far; ten where there was no look yet."""
    passes = 2 * history.snapshots[-1].epoch if history.snapshots else 10.0
    return (Remedy("train longer", _epochs(passes), aim="longer"),)


def _epochs(passes: float) -> tuple[str, ...]:
    """So many passes as a setting; none where nobody knows how many there were."""
    return (f"train.epochs={max(1, math.ceil(passes))}",) if math.isfinite(passes) else ()


def _faster(history: History) -> Remedies:
    """Three times the peak rate, or more where that is still below the usual ones, and never above
    them. None where nobody knows the peak: evaluations show a rate at a few steps, often those of
    a warm-up and of an end near 0, and what is above all of them may be below the peak."""
    peak, (low, high) = history.peak_rate, _usual(history)
    if math.isnan(peak):
        return ()
    new_rate = f"{min(max(RATE_STEP * peak, low), high):.2g}"
    if not float(new_rate) > peak:
        return ()
    return (Remedy("raise the learning rate", (f"train.learning_rate={new_rate}",)),)


def _slower(history: History) -> Remedies:
    """A third of the highest rate that is known, and no more than the usual ones. The rates at the
    evaluations are enough for that: what is below one of them is below the peak."""
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

# Shares of what a task counts as correct, where a row as a whole is neither right nor wrong.
SHARES = ("token_accuracy", "accuracy", "entity_f1")


def advisable_remedies(
    history: History, label: Label, symptoms: Container[str], remedies: Iterable[Remedy]
) -> Iterator[Remedy]:
    """The remedies in their order, without settings that cannot help this run; one that had
    settings and has none left is not given.

    Not advised are: what the task refuses or the recipe has already (``RunFacts.refused``); more
    training where the training rows have nothing left to teach, where validation got worse, or the
    run diverged, and less where it ends too early; a higher learning rate where the training rows
    have nothing left to teach, the run diverged, or it was too high, and a lower one where it was
    too low; as many passes again as the whole run made. ``symptoms`` are the detectors that
    saw something.
    """
    last = history.snapshots[-1] if history.snapshots else None
    # Of no number nothing is more and nothing less.
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
            # A remedy that asks for less must not ask for more than there was.
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
    """Whether the training rows have next to nothing left to teach: they are at their floor, or
    95 % of what is counted in them is correct and validation is more than 10 points behind."""
    if history.at_floor or not history.snapshots:
        return history.at_floor
    last = history.snapshots[-1]
    for name in SHARES:
        train, valid = last.train_metrics.get(name), last.valid_metrics.get(name)
        if train is not None and valid is not None:
            # A comparison with NaN is false.
            return train >= limits.FLOOR_SHARE and train - valid > limits.GAP
    return False
