"""What to try for each verdict and cause, the likeliest to help first, as sentences with runnable
``--set`` strings. A test reads every one of them with the recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from holdfast.core.records import Remedy, Snapshot

if TYPE_CHECKING:
    from holdfast.monitor.history import History

Remedies = tuple[Remedy, ...]
RATE_STEP = 3.0  # times as high or as low a learning rate: about half an order of magnitude

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


def for_overfit(history: History, best: int) -> Remedies:
    """``best`` is the look after which nothing was gained. To train to another state than the one
    that the run is known to keep would give that up; nothing is shorter than to the first one, of
    step 0, which means that fine-tuning gained nothing at this rate with so many rows."""
    kept = history.kept_look
    to, which = (best, "best step") if kept is None else (kept, "kept checkpoint")
    if to == len(history.snapshots) - 1:
        return for_memory()
    if history.steps[to] == 0:
        rows, slower = Remedy("label more rows"), _slower(history)
        fast = history.highest_rate > _usual(history)[1]
        return (*((slower, rows) if fast else (rows, slower)), *for_memory())
    shorter = Remedy(f"train no longer than to the {which}", _epochs(history.snapshots[to].epoch))
    return (shorter, *for_memory())


def for_memory() -> Remedies:
    """Against a gap that is not a matter of time."""
    return (
        Remedy("regularize more", ("train.weight_decay=0.1", "train.label_smoothing=0.1")),
        Remedy("lower the learning rate of the lower layers", ("train.layer_decay=0.9",)),
        Remedy("train fewer weights", ("model.adapter.kind=lora",)),
    )


def for_diverging(history: History) -> Remedies:
    """A lower rate first, then a gentler start, then full precision."""
    return (
        _slower(history),
        Remedy("warm up longer and clip harder", ("train.warmup=0.2", "train.clip=0.5")),
        Remedy("compute in full precision", ("train.precision=float32",)),
    )


def for_broken_start() -> Remedies:
    """Where a loss is no number before any update: no rate can be the reason."""
    return (
        Remedy("look for rows without a target, and for values or weights that are not numbers"),
        Remedy("compute in full precision", ("train.precision=float32",)),
    )


def for_slow(history: History) -> Remedies:
    """Where the rate is too low: a higher one, or more steps."""
    return (*_faster(history), *for_learning(history.snapshots))


def for_learning(history: Sequence[Snapshot]) -> Remedies:
    """Twice as many passes as so far; ten where there was no look yet."""
    longer = _epochs(2 * history[-1].epoch if history else 10.0)
    return (Remedy("train longer", longer, aim="longer"),)


def _epochs(passes: float) -> tuple[str, ...]:
    """So many passes as a setting; none where nobody knows how many there were."""
    return (f"train.epochs={max(1, math.ceil(passes))}",) if math.isfinite(passes) else ()


def for_no_progress(history: History) -> Remedies:
    """Where nothing shows that the best state beats the first."""
    return (*for_learning(history.snapshots), *_faster(history), *for_few_rows())


def for_miscalibrated() -> Remedies:
    """The temperature that mends it is fitted and saved with the model by itself."""
    return (
        Remedy("change nothing if only the predicted class matters: the saved model is calibrated"),
        Remedy("choose the checkpoint by its calibrated loss", ("train.metric=refined_loss",)),
        Remedy("smooth the labels", ("train.label_smoothing=0.1",)),
    )


def for_noisy_labels() -> Remedies:
    """Correct what can be seen, and trust the rest less."""
    return (
        Remedy("look at the rows with the largest losses in the report, and correct their labels"),
        Remedy("fit labels less closely", ("train.label_smoothing=0.1", "train.epochs=3")),
    )


def for_leaks() -> Remedies:
    """Where validation rows are known from training."""
    return (
        Remedy("look for validation rows that copy a training row or share its source"),
        Remedy("keep rows of one source together: name the source column", ("data.group=COLUMN",)),
    )


def for_copied_targets() -> Remedies:
    """Where most targets are their own source."""
    return (
        Remedy("name the column that holds the targets", ("data.target=COLUMN",)),
        Remedy("remove the rows whose target is equal to their source"),
    )


def for_giveaway() -> Remedies:
    """Where the label can be read off the text."""
    return (Remedy("remove the word that gives the label away from the texts"),)


def for_forgetting(history: History) -> Remedies:
    """Where the general probe got worse."""
    return (
        Remedy("train an adapter and freeze the base model", ("model.adapter.kind=lora",)),
        _slower(history),
        Remedy("mix general texts into the training rows", ("methods.replay=true",)),
        Remedy("penalize distance from the base model's outputs", ("methods.kl_start=true",)),
    )


def for_primacy(history: Sequence[Snapshot]) -> Remedies:
    """Where the rows seen first are fitted more than later ones."""
    return (
        Remedy("warm up longer", ("train.warmup=0.2",)),
        Remedy("lower the learning rate of the lower layers", ("train.layer_decay=0.9",)),
        *for_learning(history),
    )


def for_too_large() -> Remedies:
    """Where far more parameters learn than there are rows for."""
    return (
        Remedy("train fewer weights", ("model.adapter.kind=lora",)),
        Remedy("freeze the first layers", ("model.freeze=0.75",)),
    )


def for_copying() -> Remedies:
    """Where written texts copy: their source, or a training answer."""
    return (
        Remedy("look at the texts in the report beside their sources and references"),
        Remedy("lower the learning rate and train less", ("train.epochs=2",)),
        Remedy("train fewer weights", ("model.adapter.kind=lora",)),
    )


def for_repeating() -> Remedies:
    """Where written texts repeat themselves."""
    return (
        Remedy("search for texts with beams", ("generate.beams=4",)),
        Remedy("train longer: a model that has learned little repeats itself", aim="longer"),
    )


def for_few_rows() -> Remedies:
    """Where more rows would tell, or teach."""
    shares = ("data.split.train=0.6", "data.split.valid=0.25", "data.split.test=0.15")
    return (Remedy("label more rows"), Remedy("give validation more rows", shares))


def for_no_rows() -> Remedies:
    """Where no row was kept for validation."""
    shares = ("data.split.train=0.7", "data.split.valid=0.15", "data.split.test=0.15")
    return (Remedy("keep rows for validation", shares),)


def _faster(history: History) -> Remedies:
    """Three times the peak rate, or more where that is still below the usual ones, and never above
    them. None where nobody knows the peak: evaluations show a rate at a few steps, often those of
    a warm-up and of an end near 0, and what is above all of them may be below the peak."""
    peak, (low, high) = history.peak_rate, _usual(history)
    if math.isnan(peak):
        return ()
    wanted = f"{min(max(RATE_STEP * peak, low), high):.2g}"
    if not float(wanted) > peak:
        return ()
    return (Remedy("raise the learning rate", (f"train.learning_rate={wanted}",)),)


def _slower(history: History) -> Remedy:
    """A third of the highest rate that is known, and no more than the usual ones. The rates at the
    evaluations are enough for that: what is below one of them is below the peak."""
    highest = history.highest_rate
    wanted = f"{min(highest / RATE_STEP, _usual(history)[1]):.2g}"
    known = 0 < float(wanted) < highest
    setting = (f"train.learning_rate={wanted}",) if known else ()
    return Remedy("lower the learning rate", setting)


def _usual(history: History) -> tuple[float, float]:
    return history.run_facts.usual_rates or (0.0, math.inf)
