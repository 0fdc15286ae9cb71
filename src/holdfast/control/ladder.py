"""The policy ``adapt``: one rung after the other, each a trial, and none for a run that is well.

| what is seen | when | what is tried |
|---|---|---|
| leaking | at once | stop, and say which rows |
| the rate is above the usual ones, nothing is gained | first looks | anew at the usual one |
| the rate is below the usual ones | third look | the usual one from here on, as long as was lost |
| hardly anything is learned | a third of the plan | a higher rate, longer |
| the run breaks | at once | back to the state that is kept, a third of the rate |
| underfit at the end of the plan | end | more layers where some are frozen; longer |
| wrong labels | end | back to the state that is kept; a robust loss, the rate brought down |
| what was seen first has a hold | end | the last layer as at the first look, other order, longer |
| forgetting | end | back, the weights held near the start, the rate brought down |
| too large a model for these rows | end | back, lower layers frozen, the rate brought down |
| stopped while the rate was high, or overfit | end | back, the rate brought down within few looks |
| still overfit | end | the same with one more notch: of pictures other forms, of texts a penalty |

The usual rate is the geometric middle of those that are known to work (``Sight.usual``), which is
what the table of defaults takes for a small model. A run that is stopped early has never had its
rate brought down, and its best state is one of a high rate: bringing it down from there is the
first rung of every ladder against overfitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from holdfast.control.policy import Remedy
from holdfast.control.sight import Sight
from holdfast.core.actions import (
    Action,
    Continue,
    Extend,
    Freeze,
    ResetHead,
    Reshuffle,
    RollBack,
    ScaleLearningRate,
    SetWeightDecay,
    Shorten,
    Stop,
    StrengthenAugmentation,
    SwitchOn,
    Unfreeze,
)

Settings = Mapping[str, Mapping[str, float]]
WELL_LABELS = ("healthy", "learning")
OVERFIT = ("overfit", "memorizing", "miscalibrated")
HIGH = "the learning rate is too high"
LOW = "the learning rate is too low"
BREAKS = "a third of the learning rate"


@dataclass(frozen=True, slots=True)
class Ladder:
    """The settings of the ladder: a rate is ``far`` from the usual one from this factor on. ``few``
    is how many looks the rate is brought down in. A run that was stopped before ``early`` of its
    plan had a high rate. One whose training rows have more than ``slow`` of the loss of knowing
    nothing left after three tenths of it is made up to ``most_faster`` times as fast; at a rate far
    below the usual one ``idle`` of it is enough at the third look."""

    far: float = 5.0
    few: int = 4
    early: float = 0.6
    slow: float = 0.75
    most_faster: float = 6.0
    idle: float = 0.9
    name: ClassVar[str] = "adapt"

    def decide(self, sight: Sight) -> Remedy | Stop | Continue | None:
        """The first rung that fits; else, where the run would be stopped too early, that it goes
        on."""
        if sight.label == "leaking" and sight.look > 1:
            rows = " ".join(sight.findings)
            return Stop(f"validation tells nothing: {sight.because} {rows}".strip())
        if not sight.valid_rows or not sight.step:
            return None
        rungs = RUNGS if sight.trials_left > 0 else ()
        remedies = filter(None, (rung(self, sight) for rung in rungs))
        return next(remedies, None) or continue_early(self, sight)


def continue_early(ladder: Ladder, sight: Sight) -> Continue | None:
    """Not stopped before the rate has come down, where training has brought something: the best
    state is one of a high rate then, and going on has cost nothing on average
    (benchmarks/forks.py). Not where the first look is still the one that is kept: of such a run
    nothing was worth keeping. The patience that was asked for holds, and so does a run's end."""
    trial, over = sight.trial, sight.over
    # Undone, a trial that failed leaves the run where it began.
    failed = trial if trial is not None and not trial.kept else None
    at = failed.step if failed is not None else sight.step
    # A kept trial may have brought its rate down sooner.
    plan = sight.first_planned if failed is not None else min(sight.planned, sight.first_planned)
    if sight.kept_step == 0 or at >= ladder.early * plan:
        return None
    if failed is not None:
        early = failed.over and failed.name != BREAKS
    else:
        # A verdict of a run that does not break, or want of further gain, would end it: not the
        # patience that was asked for, and not where nothing is left to learn.
        has_reason = over is not None and (
            over["settings"].get("chance") is not None or over["because"].startswith(sight.label)
        )
        early = has_reason and not sight.end and sight.label not in ("healthy", "diverging")
    why = f"{at / plan:.0%} of the plan is too early to stop"
    return Continue(why) if early else None


def usual_rate(sight: Sight) -> float | None:
    """The geometric middle of the rates that are known to work."""
    return math.sqrt(sight.usual[0] * sight.usual[1]) if sight.usual else None


def rate_too_high(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Begin again, while the run is young, where the rate is far above the usual one and the looks
    so far are no better than the first."""
    usual, name = usual_rate(sight), "the usual learning rate from the beginning"
    if usual is None or sight.rate is None or sight.rate < ladder.far * usual or sight.trial:
        return None
    broken = sight.label == "diverging" or sight.cause == HIGH or sight.against_first.worse
    above = sight.usual is not None and sight.rate > sight.usual[1]
    if not (broken or (above and not sight.against_first.better)) or sight.tries(name):
        return None
    if not sight.can.does("ScaleLearningRate"):
        return None
    why = (
        f"{sight.rate:.2g} is {sight.rate / usual:.3g} times the usual learning rate, and "
        f"{_loss_words(sight)}"
    )
    # Where a run cannot go back it goes on from here.
    back = (RollBack(why, 0),) if 0 in sight.points else ()
    return Remedy(name, (*back, ScaleLearningRate(why, usual / sight.rate)))


def rate_too_low(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Go on at the usual rate, for as many updates more as were lost."""
    usual, name = usual_rate(sight), "the usual learning rate from here on"
    early = sight.look < 2 and sight.step < 0.3 * sight.planned
    if usual is None or sight.rate is None or sight.rate * ladder.far > usual or early:
        return None
    idle = sight.left is not None and sight.left >= ladder.idle and not sight.against_first.worse
    slow = sight.cause == LOW or (
        (sight.label == "underfit" or idle) and not _training_got_worse(sight)
    )
    if not slow or sight.at_floor or sight.tries(name) or sight.trial:
        return None
    if not sight.can.does("ScaleLearningRate") or sight.room < sight.apart:
        return None
    why = f"{sight.rate:.2g} is {usual / sight.rate:.3g} times below the usual learning rate"
    faster = ScaleLearningRate(f"{why}, and {_loss_words(sight)}", usual / sight.rate)
    return Remedy(name, (faster, *_longer(sight, "for the updates that were lost")))


def learns_too_slowly(ladder: Ladder, sight: Sight) -> Remedy | None:
    """A higher rate where the plan will end long before the rows are learned: from three tenths
    on, most is left of what knowing nothing costs, and the newest state is the best."""
    usual, name = usual_rate(sight), "a higher learning rate"
    done, left = sight.step / max(1, sight.planned), sight.left
    if usual is None or sight.rate is None or left is None or sight.trial or sight.tries(name):
        return None
    if not 0.3 <= done < 1 or left < ladder.slow or sight.kept_step != sight.step:
        return None
    if _training_got_worse(sight):
        return None
    factor = min(ladder.most_faster, ladder.far * usual / sight.rate)
    if factor < 1.5 or not sight.can.does("ScaleLearningRate"):
        return None
    why = (
        f"after {done:.0%} of the updates {left:.0%} is left of the training loss of knowing "
        "nothing: at this rate the run ends long before the rows are learned"
    )
    return Remedy(name, (ScaleLearningRate(why, factor), *_longer(sight, why)), in_time=True)


def _training_got_worse(sight: Sight) -> bool:
    """Whether the training rows are worse off than at the start: then what is left of their loss
    does not say that little was learned."""
    first, now = sight.first_train, sight.train_loss
    return first is not None and (now is None or now > 1.02 * first)


def _longer(sight: Sight, why: str) -> tuple[Action, ...]:
    """As many updates more as may yet be taken."""
    more = sight.step + sight.room - sight.planned
    return (Extend(why, steps=more),) if more > 0 and sight.can.does("Extend") else ()


def diverges(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Back to the state that is kept and on with a third of the rate."""
    name = BREAKS
    if sight.label != "diverging" or sight.over is None or sight.tries(name) > 1:
        return None
    if not sight.can.does("RollBack", "ScaleLearningRate"):
        return None
    why = f"the run breaks: {sight.because}"
    return _from_best_checkpoint(sight, name, why, ScaleLearningRate(why, 1 / 3))


def underfit(ladder: Ladder, sight: Sight) -> Remedy | None:
    """More to learn with, then more time."""
    if sight.label != "underfit" or not sight.end or not sight.can.does("Extend"):
        return None
    steps, why = sight.room, f"the run ends with more to learn: {sight.because}"
    if steps < sight.apart or sight.trial:
        return None
    longer = Extend(why, steps=steps)
    if sight.can.frozen and sight.can.does("Unfreeze") and not sight.tries("more layers"):
        return Remedy("more layers", (Unfreeze(why, ("*",)), longer))
    return None if sight.tries("longer") else Remedy("longer", (longer,))


def wrong_labels(ladder: Ladder, sight: Sight) -> Remedy | None:
    """A loss that trusts labels less."""
    if sight.label != "noisy_labels":
        return None
    why = f"labels are wrong: {sight.because}"
    settings: Settings = {"gce": {}, "label_smoothing": {"share": 0.2}}
    return _with_method(ladder, sight, "a robust loss", why, settings)


def primacy(ladder: Ladder, sight: Sight) -> Remedy | None:
    """The last layer anew, the rows in another order, as long as there is time."""
    name = "a fresh last layer"
    if sight.cause is None or "first" not in sight.cause or sight.tries(name):
        return None
    if not sight.finished or not sight.can.does("ResetHead", "Reshuffle", "Extend"):
        return None
    if sight.room < sight.apart:
        return None
    why = f"{sight.cause}: {sight.because}"
    return Remedy(name, (ResetHead(why), Reshuffle(why), *_longer(sight, why)))


def forgetting(ladder: Ladder, sight: Sight) -> Remedy | None:
    """The weights, or the answers, held near those of the start."""
    if sight.label != "forgetting":
        return None
    settings: Settings = {"kl_start": {}, "l2_sp": {}}
    why = f"what the model knew is getting lost: {sight.because}"
    return _with_method(ladder, sight, "held near the start", why, settings)


def model_too_large(ladder: Ladder, sight: Sight) -> Remedy | None:
    """The lower half of the layers as it is."""
    name, lower = "lower layers frozen", sight.can.layers[: len(sight.can.layers) // 2]
    large = sight.cause is not None and sight.cause.startswith("too large a model")
    if not large or not lower or sight.label not in OVERFIT or not sight.can.does("Freeze"):
        return None
    why = f"{sight.cause}: {sight.because}"
    return _with_falling_rate(ladder, sight, name, why, Freeze(why, lower))


def overfit(ladder: Ladder, sight: Sight) -> Remedy | None:
    """The rate brought down from the best state; then the same with a notch of what suits."""
    early = sight.over is not None and sight.step < ladder.early * sight.first_planned
    if sight.label in WELL_LABELS or not (sight.label in OVERFIT or sight.harm or early):
        return None
    why = f"{sight.label.replace('_', ' ')}: {sight.because}"
    if continue_early(ladder, sight) is not None:
        return None
    first = _with_falling_rate(ladder, sight, "the rate brought down from the best state", why)
    if first is not None:
        return first
    # One notch: other forms of pictures, a penalty for texts; of texts no form is known to gain
    # (benchmarks/methods.md).
    can = sight.can
    if can.pictures and can.notches and can.does("StrengthenAugmentation"):
        stronger = StrengthenAugmentation(why)
        return _with_falling_rate(ladder, sight, "rows in other forms", why, stronger)
    settings: Settings = {"label_smoothing": {"share": 0.1}}
    remedy = _with_method(ladder, sight, "one notch of regularisation", why, settings)
    if remedy is not None or not can.does("SetWeightDecay"):
        return remedy
    return _with_falling_rate(ladder, sight, "more weight decay", why, SetWeightDecay(why, 0.1))


def _with_method(
    ladder: Ladder, sight: Sight, name: str, why: str, settings: Settings
) -> Remedy | None:
    """The first of these methods that can join, from the state that is kept."""
    method = next((one for one in settings if one in sight.can.methods), None)
    if method is None or not sight.can.does("SwitchOn"):
        return None
    return _with_falling_rate(ladder, sight, name, why, SwitchOn(why, method, settings[method]))


def _with_falling_rate(
    ladder: Ladder, sight: Sight, name: str, why: str, *changes: Action
) -> Remedy | None:
    """From the state that is kept, and its rate down to nothing within few looks."""
    possible = sight.can.does("RollBack", "Shorten", "Extend")
    start = _restart_step(sight)
    if not sight.finished or sight.tries(name) or not possible:
        return None
    if start is None or start == sight.step:
        return None
    end = start + min(sight.room, ladder.few * sight.apart)
    # Under a schedule that does not fall, a shorter plan brings nothing down.
    if not sight.can.falls or end <= start + 1 or end >= sight.first_planned:
        return _from_best_checkpoint(sight, name, why, *changes) if changes else None
    because = f"the rate is brought down to nothing within {end - start} updates"
    # A trial that was kept may have a plan of its own, which is shorter already.
    later = end - sight.planned_from(start)
    down = (
        (Extend(because, steps=later),) if later > 0 else (Shorten(because, end),) if later else ()
    )
    return Remedy(name, (RollBack(why, start), *changes, *down))


def _from_best_checkpoint(sight: Sight, name: str, why: str, *changes: Action) -> Remedy | None:
    start = _restart_step(sight)
    if start is None or sight.room < sight.apart or start >= sight.first_planned:
        return None
    return Remedy(name, (RollBack(why, start), *changes))


def _restart_step(sight: Sight) -> int | None:
    """The state that was kept before the present trial, or is kept without one."""
    trial = sight.trial
    step = sight.kept_step if trial is None or trial.kept else sight.kept_before
    return step if step in sight.points else None


def _loss_words(sight: Sight) -> str:
    if sight.label == "diverging" or sight.cause in (HIGH, LOW):
        return sight.because
    if sight.against_first.value is None:
        return "no look is better than the first"
    return f"validation is {sight.against_first.value:+.3f} against the first look"


Rung = Callable[[Ladder, Sight], Remedy | None]
RUNGS: tuple[Rung, ...] = (
    rate_too_high,
    rate_too_low,
    learns_too_slowly,
    diverges,
    underfit,
    wrong_labels,
    primacy,
    forgetting,
    model_too_large,
    overfit,
)
