"""The policy ``adapt``: one remedy after the other, each as a trial; for a healthy run
only where its learning rate is far from the usual one, or too little is learned.

| finding | when | trial |
|---|---|---|
| leaking | third evaluation | stop, and name the rows |
| learning rate above the usual | no gain, or third evaluation (texts) | restart at the usual one |
| learning rate below the usual ones | third evaluation | the usual one, with the lost steps added |
| hardly anything is learned | 30 % of the plan | a higher learning rate, more steps |
| the run diverges | at once | back to the best checkpoint, a third of the learning rate |
| underfit at the end of the plan | end | the layers that the default froze; more steps |
| rows used first are fitted most | end | the last layer of step 0, another order, more steps |
| forgetting | end | back, regularize towards the base model, learning-rate decay |
| too large a model for these rows | end | back, freeze lower layers, learning-rate decay |
| stopped while the rate was high, or overfit | end | back, learning-rate decay in few evaluations |
| still overfit | end | the same with stronger augmentation (images) or regularization (texts) |

The usual rate is the geometric mean of the range that is known to work (``Sight.usual``), which is
what the table of defaults uses for a small model. In a run that is stopped early the learning rate
never decayed, and its best checkpoint is from a high rate. So decay from that checkpoint is the
first trial against overfitting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from holdfast.control.policy import Remedy, trial_start
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
from holdfast.core.wording import factor_phrase, lower_first, percent_phrase, signed

Settings = Mapping[str, Mapping[str, float]]
WELL_LABELS = ("healthy", "learning")
OVERFIT = ("overfit", "memorizing", "miscalibrated")
HIGH = "the learning rate is too high"
LOW = "the learning rate is too low"
BREAKS = "a third of the learning rate"
MORE_LAYERS, MORE_STEPS = "more trainable layers", "more steps"
HEAD_RESET = "a reset last layer"
TOWARDS_BASE_MODEL = "regularization towards the base model"
DECAY = "learning-rate decay from the best checkpoint"
AUGMENTATION, LABEL_SMOOTHING = "stronger augmentation", "label smoothing"


@dataclass(frozen=True, slots=True)
class Ladder:
    """The settings of the policy. A rate is too high or too low from the factor ``far`` to the
    usual one. ``few`` is the number of evaluations in which the rate decays. A run stopped before
    the share ``early`` of its plan had a high rate. If after three tenths of the plan the training
    loss is above ``slow`` of that of the class frequencies, the rate is raised by up to
    ``most_faster``. At a rate far below the usual one ``idle`` of it is enough, at the third
    evaluation."""

    far: float = 5.0
    few: int = 4
    early: float = 0.6
    slow: float = 0.75
    most_faster: float = 6.0
    idle: float = 0.9

    def decide(self, sight: Sight) -> Remedy | Stop | Continue | None:
        """The first remedy that fits; else ``Continue``, where a stop would be too early."""
        if sight.label == "leaking" and sight.look > 1:
            rows = " ".join(sight.findings)
            return Stop(f"the validation set cannot be trusted: {sight.because} {rows}".strip())
        if not sight.valid_rows or not sight.step:
            return None
        rungs = RUNGS if sight.trials_left > 0 else ()
        remedies = filter(None, (rung(self, sight) for rung in rungs))
        possible = (one for one in remedies if sight.may_end_from(trial_start(sight, one)))
        return next(possible, None) or continue_early(self, sight)


def continue_early(ladder: Ladder, sight: Sight) -> Continue | None:
    """Continue until the rate has decayed, where training has gained something: the best checkpoint
    is from a high rate then, and continuing cost nothing on average (benchmarks/forks.py). Not
    under a schedule that does not decay, and not where the first evaluation is still the best: such
    a run gained nothing worth keeping. The user's patience and the end of the run still apply."""
    trial, over = sight.trial, sight.over
    # Undoing a failed trial puts the run back to where it began.
    failed = trial if trial is not None and not trial.kept else None
    at = failed.step if failed is not None else sight.step
    # The rate of a kept trial may have decayed sooner.
    plan = sight.first_planned if failed is not None else min(sight.planned, sight.first_planned)
    if sight.kept_step == 0 or at >= ladder.early * plan or not sight.can.falls:
        return None
    if failed is not None:
        early = failed.over and failed.name != BREAKS
    else:
        # The stop comes from a verdict other than divergence, or from an unlikely gain: not from
        # the user's patience, and not because nothing is left to learn.
        has_reason = over is not None and (
            over["settings"].get("chance") is not None or over["because"].startswith(sight.label)
        )
        early = has_reason and not sight.end and sight.label not in ("healthy", "diverging")
    why = f"{percent_phrase(at / plan)} of the plan is too early to stop"
    return Continue(why) if early else None


def _is_too_early(sight: Sight) -> bool:
    """Whether the run is too young to say what its learning rate gains."""
    return sight.look < 2 and sight.step < 0.3 * sight.planned


def _may_gain_more(ladder: Ladder, sight: Sight) -> bool:
    """Whether a run that gains at a rate far above the usual one would gain more at the usual one:
    with texts, and where a linear probe has learned a part of the training rows before the first
    update. Restarts of other runs lost 2.9 points (small networks with random weights, MNIST and
    CIFAR-10, six runs)."""
    first, chance = sight.first_train, sight.chance
    fitted = first is not None and chance is not None and first < ladder.slow * chance
    return fitted or not sight.can.pictures


def usual_rate(sight: Sight) -> float | None:
    """The geometric mean of the range of rates that is known to work."""
    return math.sqrt(sight.usual[0] * sight.usual[1]) if sight.usual else None


def rate_too_high(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Restart early in the run, where the rate is far above the usual one and nothing is gained.
    Texts gain at such a rate too, and far less than at the usual one; there the third evaluation is
    enough."""
    usual, name = usual_rate(sight), "the usual learning rate from the beginning"
    if usual is None or sight.rate is None or sight.rate < ladder.far * usual or sight.trial:
        return None
    broken = sight.label == "diverging" or sight.cause == HIGH or sight.against_first.worse
    above = sight.usual is not None and sight.rate > sight.usual[1]
    fails = broken or (above and not sight.against_first.better)
    if not (fails or (_may_gain_more(ladder, sight) and not _is_too_early(sight))) or sight.tries(
        name
    ):
        return None
    if not sight.can.does("ScaleLearningRate"):
        return None
    why = (
        f"the learning rate {sight.rate:.2g} is {sight.rate / usual:.3g} times the usual one, and "
        f"{_loss_words(sight)}"
    )
    # A run that cannot go back continues from here.
    back = (RollBack(why, 0),) if 0 in sight.points else ()
    # A run that gains, or is not shown to fail, is worth finishing if the restart gains nothing.
    in_time = bool(back) and (sight.against_first.better or not fails)
    return Remedy(name, (*back, ScaleLearningRate(why, usual / sight.rate)), in_time=in_time)


def rate_too_low(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Continue at the usual rate, with as many additional updates as were lost: where little is
    learned, or where the rate is below the range that is known to work."""
    usual, name = usual_rate(sight), "the usual learning rate from here on"
    if (
        usual is None
        or sight.rate is None
        or sight.rate * ladder.far > usual
        or _is_too_early(sight)
    ):
        return None
    fine = not sight.against_first.worse
    idle = sight.left is not None and sight.left >= ladder.idle and fine
    # A linear probe at step 0 leaves little to learn, and even such a rate learns some of it.
    below = sight.usual is not None and sight.rate < sight.usual[0] and fine
    slow = sight.cause == LOW or (
        (sight.label == "underfit" or idle or below) and not _training_got_worse(sight)
    )
    if not slow or (sight.at_floor and not below) or sight.tries(name) or sight.trial:
        return None
    if not sight.can.does("ScaleLearningRate") or sight.room < sight.apart:
        return None
    why = f"the learning rate {sight.rate:.2g} is {factor_phrase(sight.rate / usual)} the usual one"
    faster = ScaleLearningRate(f"{why}, and {_loss_words(sight)}", usual / sight.rate)
    return Remedy(name, (faster, *_longer(sight, "to make up for the lost updates")))


def learns_too_slowly(ladder: Ladder, sight: Sight) -> Remedy | None:
    """A higher rate where the plan will end long before the rows are learned: from three tenths
    on, most of the loss of the class frequencies is left, and the newest checkpoint is the best."""
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
        f"after {percent_phrase(done)} of the updates, the training loss is still "
        f"{percent_phrase(left)} of its first value (or of the loss of predicting the class "
        "frequencies, if that is larger): at this learning rate the run is likely to underfit"
    )
    return Remedy(name, (ScaleLearningRate(why, factor), *_longer(sight, why)), in_time=True)


def _training_got_worse(sight: Sight) -> bool:
    """Whether the training loss is above its first value: then a high loss does not show that
    little was learned."""
    first, now = sight.first_train, sight.train_loss
    return first is not None and (now is None or now > 1.02 * first)


def _longer(sight: Sight, why: str) -> tuple[Action, ...]:
    """As many additional updates as may still be taken."""
    more = sight.step + sight.room - sight.planned
    return (Extend(why, steps=more),) if more > 0 and sight.can.does("Extend") else ()


def diverges(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Go back to the best checkpoint and continue with a third of the rate."""
    name = BREAKS
    if sight.label != "diverging" or sight.over is None or sight.tries(name) > 1:
        return None
    if not sight.can.does("RollBack", "ScaleLearningRate"):
        return None
    why = f"the run diverges: {sight.because}"
    return _from_best_checkpoint(sight, name, why, ScaleLearningRate(why, 1 / 3))


def underfit(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Train more layers, then take more steps."""
    if sight.label != "underfit" or not sight.end or not sight.can.does("Extend"):
        return None
    steps, why = sight.room, f"the run ended too early: {sight.because}"
    if steps < sight.apart or sight.trial:
        return None
    longer = Extend(why, steps=steps)
    if sight.can.frozen and sight.can.does("Unfreeze") and not sight.tries(MORE_LAYERS):
        return Remedy(MORE_LAYERS, (Unfreeze(why, ("*",)), longer))
    return None if sight.tries(MORE_STEPS) else Remedy(MORE_STEPS, (longer,))


def primacy(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Reset the last layer and reshuffle the rows, for as many steps as are left."""
    name = HEAD_RESET
    if sight.cause is None or "first" not in sight.cause or sight.tries(name):
        return None
    if not sight.finished or not sight.can.does("ResetHead", "Reshuffle", "Extend"):
        return None
    if sight.room < sight.apart:
        return None
    why = f"{sight.cause}: {sight.because}"
    return Remedy(name, (ResetHead(why), Reshuffle(why), *_longer(sight, why)))


def forgetting(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Regularize the weights, or the outputs, towards the base model."""
    if sight.label != "forgetting":
        return None
    settings: Settings = {"kl_start": {}, "l2_sp": {}}
    why = f"the model forgets what the base model knew: {sight.because}"
    return _with_method(ladder, sight, TOWARDS_BASE_MODEL, why, settings)


def model_too_large(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Freeze the lower half of the layers."""
    name, lower = "lower layers frozen", sight.can.layers[: len(sight.can.layers) // 2]
    large = sight.cause is not None and sight.cause.startswith("too large a model")
    if not large or not lower or sight.label not in OVERFIT or not sight.can.does("Freeze"):
        return None
    why = f"{sight.cause}: {sight.because}"
    return _with_falling_rate(ladder, sight, name, why, Freeze(why, lower))


def overfit(ladder: Ladder, sight: Sight) -> Remedy | None:
    """Learning-rate decay from the best checkpoint; then the same with one regularization."""
    early = sight.over is not None and sight.step < ladder.early * sight.first_planned
    if sight.label in WELL_LABELS or not (sight.label in OVERFIT or sight.harm or early):
        return None
    why = f"{sight.label.replace('_', ' ')}: {sight.because}"
    if continue_early(ladder, sight) is not None:
        return None
    first = _with_falling_rate(ladder, sight, DECAY, why)
    if first is not None:
        return first
    # Regularization: augmentation for images, a penalty for texts; no text augmentation is known to
    # gain (2010.01764).
    can = sight.can
    if can.pictures and can.notches and can.does("StrengthenAugmentation"):
        stronger = StrengthenAugmentation(why)
        return _with_falling_rate(ladder, sight, AUGMENTATION, why, stronger)
    settings: Settings = {"label_smoothing": {"share": 0.1}}
    remedy = _with_method(ladder, sight, LABEL_SMOOTHING, why, settings)
    if remedy is not None or not can.does("SetWeightDecay"):
        return remedy
    return _with_falling_rate(ladder, sight, "more weight decay", why, SetWeightDecay(why, 0.1))


def _with_method(
    ladder: Ladder, sight: Sight, name: str, why: str, settings: Settings
) -> Remedy | None:
    """Switch on the first of these methods that can join, from the best checkpoint."""
    method = next((one for one in settings if one in sight.can.methods), None)
    if method is None or not sight.can.does("SwitchOn"):
        return None
    return _with_falling_rate(ladder, sight, name, why, SwitchOn(why, method, settings[method]))


def _with_falling_rate(
    ladder: Ladder, sight: Sight, name: str, why: str, *changes: Action
) -> Remedy | None:
    """Go back to the best checkpoint and let its rate decay to zero within few evaluations."""
    possible = sight.can.does("RollBack", "Shorten", "Extend")
    start = _restart_step(sight)
    if not sight.finished or sight.tries(name) or not possible:
        return None
    if start is None or start == sight.step:
        return None
    # Only the last phase can be shortened.
    decay_from = max(start, sight.first_end - 1)
    end = min(start + sight.room, decay_from + ladder.few * sight.apart)
    # Under a schedule that does not decay, a shorter plan lowers no rate.
    if not sight.can.falls or end <= decay_from + 1 or end >= sight.first_planned:
        return _from_best_checkpoint(sight, name, why, *changes) if changes else None
    because = f"the learning rate decays to zero within {end - decay_from} updates"
    # A trial that was kept may already have a shorter plan of its own.
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
    """The step of the checkpoint kept before the current trial, or kept without one."""
    trial = sight.trial
    step = sight.kept_step if trial is None or trial.kept else sight.kept_before
    return step if step in sight.points else None


def _loss_words(sight: Sight) -> str:
    if sight.label == "diverging" or sight.cause in (HIGH, LOW):
        return lower_first(sight.because)
    if sight.against_first.value is None:
        return "the validation loss cannot be compared with that of step 0"
    return (
        f"the validation loss changed by {signed(sight.against_first.value, '+.3f')} since step 0"
    )


Rung = Callable[[Ladder, Sight], Remedy | None]
RUNGS: tuple[Rung, ...] = (
    rate_too_high,
    rate_too_low,
    learns_too_slowly,
    diverges,
    underfit,
    primacy,
    forgetting,
    model_too_large,
    overfit,
)
