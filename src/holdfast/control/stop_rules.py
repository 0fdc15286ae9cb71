"""When to stop: the run has got worse, or a further gain is not worth the remaining steps.

| reason | when | setting |
|---|---|---|
| it diverges | the verdict says so | – |
| its predictions got worse | a significant rise above the best, tested over all evaluations | – |
| it no longer improves | only probabilities got worse, or no rise; no gain at 3 evaluations | – |
| nothing to gain | a relevant further gain is unlikely | ``control.worth``, ``.chance`` |
| patience | no improvement of the criterion at so many evaluations in a row | ``train.patience`` |

A run that begins as a fitted linear probe may first get worse while its rate is high, and regain
that and more as the rate falls. So while its best evaluation is still its first one, neither a rise
nor an unlikely gain stops it before three fifths of its planned steps. The outlook is then computed
from the evaluations after the first. The exception is a training loss near zero at two evaluations
in a row: then nothing is left to learn. Over random weights a fitted linear probe has large
weights, which magnify every change of the features. The loss then climbs far above that of the
linear probe, which is called ``diverging``. That stops such a run only where its calibrated
predictions are no better than chance at two evaluations in a row, as those of a run that really
diverges.

Labelling a run and stopping it are two decisions. A verdict of ``overfit`` by probabilities does
not stop a run while its predictions still improve. Worse predictions stop a run, whatever else is
wrong with it (for example wrong labels).

Compared with siblings: ``Patience`` counts evaluations and ignores their noise; ``StopAtStep`` ends
a run where other fits have determined the step before it began.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.actions import Action, Stop
from holdfast.core.records import Floats, Snapshot, Verdict
from holdfast.core.wording import percent_phrase
from holdfast.monitor.evidence import (
    beats_chance,
    is_at_floor,
    last_gain,
    validation_labels,
    validation_losses,
)
from holdfast.monitor.limits import WAIT

OVERFIT_LABELS = ("overfit", "memorizing", "miscalibrated")
# Share of the planned steps: a linear schedule is then below half of its peak rate, a cosine
# schedule below a third.
SETTLED_SHARE = 0.6
# The number of last evaluations that an outlook uses, and the minimum.
RECENT_EVALUATIONS, MIN_EVALUATIONS = 5, 4


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of each error, as settings.

    ``worth`` is the smallest further gain that is worth the rest of a run, as a share of the lowest
    validation loss: below it, stopping too early costs nothing relevant. ``chance`` is the
    probability of such a gain that is needed for the run to continue: the lower, the more a lost
    gain counts against lost time. ``ahead`` is how far the line is extrapolated, as a share of the
    learning done so far: learning curves bend in proportion to their age.
    """

    worth: float = 0.005
    chance: float = 0.3
    ahead: float = 0.5


@dataclass(frozen=True, slots=True)
class Outlook:
    """``gain`` is how far the end of the run should be below the best evaluation so far, in the
    unit of the loss (negative: above it), ``error`` its standard error, ``chance`` the probability
    that it is at least the required gain; NaN where it is unknown."""

    gain: float
    error: float
    chance: float


UNKNOWN = Outlook(math.nan, math.nan, math.nan)


def outlook(losses: Floats, learning_done: Floats, end: float, worth: float) -> Outlook:
    """The probability that the rest of a run still gains at least ``worth``.

    The validation losses of the last evaluations are extrapolated linearly, row by row, over the
    learning that is left. A learning curve flattens as it falls, so the line overestimates the
    gain: a gain that even the line does not predict is not worth waiting for.

    Parameters
    ----------
    losses : [n, evaluations] validation losses of the same rows, oldest evaluation first.
    learning_done : [evaluations] the learning done by each evaluation, Σ rate over its steps;
        increasing.
    end : the learning done when the run is over, at least ``learning_done[-1]``.
    worth : the smallest gain of the mean loss that is worth the rest of the run.

    Notes
    -----
    The line is the least-squares one through the last five evaluations, ŷ(e) = Σ c_j y_j with
    c_j = 1/m + (e − x̄)(x_j − x̄) ÷ S_xx, so the predicted gain of row i is
    g_i = y_i,best − Σ c_j y_ij, and its mean over rows the gain. It has two kinds of noise: the
    rows are a sample, s² = var(g_i) ÷ n; and the weights vary between evaluations, which the
    residuals of the mean losses show, r² (1/m + (e − x̄)² ÷ S_xx), r² with m − 2 degrees of
    freedom. The probability is that of a t distribution with m − 2 degrees of freedom, the smaller
    of the two. Fewer than four evaluations, fewer than two rows, a loss that is not finite, or no
    learning between the evaluations: NaN.
    """
    from scipy.special import stdtr

    n, evaluations = losses.shape
    if evaluations < MIN_EVALUATIONS or n < 2 or not np.isfinite(losses).all():
        return UNKNOWN
    recent, x = (
        losses[:, -RECENT_EVALUATIONS:],
        np.asarray(learning_done[-RECENT_EVALUATIONS:], dtype=np.float64),
    )
    spread = float(((x - x.mean()) ** 2).sum())
    if not spread > 0:
        return UNKNOWN
    points = len(x)
    weights = 1 / points + (end - x.mean()) * (x - x.mean()) / spread
    best = losses[:, int(np.argmin(losses.mean(axis=0)))]
    promised = best - recent @ weights
    means = recent.mean(axis=0)
    slope = float(((x - x.mean()) * means).sum()) / spread
    residuals = means - means.mean() - slope * (x - x.mean())
    wander = float((residuals**2).sum()) / (points - 2)
    variance = float(promised.var(ddof=1)) / n
    variance += wander * (1 / points + (end - x.mean()) ** 2 / spread)
    gain, error = float(promised.mean()), math.sqrt(variance)
    if error == 0:
        return Outlook(gain, 0.0, float(gain >= worth))
    return Outlook(gain, error, 1 - float(stdtr(points - 2, (worth - gain) / error)))


class Patience:
    """Stop when the criterion has not improved at ``patience`` evaluations in a row: the part of
    ``StoppingRule`` that counts evaluations and ignores their noise; also an advisor of its own.
    ``diverging`` stops at once. The counter is part of its state, so it survives a resume
    (transformers #28544 lost it).

    Parameters
    ----------
    patience : evaluations without improvement after which the run stops, or ``None``.
    criterion : a snapshot to a number, smaller is better.
    start_step : counting starts after this step, so that a first phase cannot use up the patience.
    """

    def __init__(
        self, patience: int | None, criterion: Callable[[Snapshot], float], start_step: int = 0
    ) -> None:
        self._patience = patience
        self._criterion = criterion
        self._start_step = start_step
        self._best = float("inf")
        self._best_step = 0
        self._waited = 0

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        if verdict.label == "diverging":
            return (Stop(f"the run diverges: {verdict.because}"),)
        return self.count(history)

    def count(self, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        """The decision by the evaluations only, whatever the verdict."""
        snapshot = history[-1]
        value = self._criterion(snapshot)
        if value < self._best:
            self._best, self._best_step, self._waited = value, snapshot.step, 0
        elif snapshot.step > self._start_step:
            self._waited += 1
        if self._patience is not None and self._waited >= self._patience:
            return (
                Stop(
                    "no improvement of the validation score that early stopping uses, at "
                    f"{self._waited} evaluations in a row; its best value was at step "
                    f"{self._best_step}"
                ),
            )
        return ()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "best_step": self._best_step, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._best_step = state["best"], state["best_step"]
        self._waited = state["waited"]


class StoppingRule:
    """The advisor of ``control.policy=stop``. Deterministic; its only state is that of its
    patience, since everything else is a function of the history.

    Parameters
    ----------
    learning : the steps of evaluations to the learning planned by then, Σ rate over steps (an
        evaluation that is not in it is an extra one); the last is that of the whole plan.
    costs : of the errors; ``None``: no run is stopped because a gain is unlikely.
    start_step : evaluations up to this step decide nothing (a first phase that prepares the next).
    """

    def __init__(
        self,
        learning: dict[int, float],
        costs: Costs | None,
        patience: int | None,
        criterion: Callable[[Snapshot], float],
        start_step: int = 0,
    ) -> None:
        self._steps = sorted(learning)
        self._learning = [learning[step] for step in self._steps]
        self._costs = costs
        self._start = start_step
        self._patience = Patience(patience, criterion, start_step)

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        reason = self._reason(verdict, history)
        if reason:
            return (Stop(reason),)
        waited = self._patience.count(history)
        return waited or self._nothing_to_gain(history)

    def _reason(self, verdict: Verdict, history: Sequence[Snapshot]) -> str | None:
        """Why the verdict ends the run here; ``None`` where it does not."""
        settling = self._is_settling(history)
        if verdict.label == "diverging":
            magnified = (
                settling
                and _has_finite_losses(history[-1])
                and any(map(_is_better_than_chance, history[-2:]))
            )
            return None if magnified else f"{verdict.label}: {verdict.because}"
        if history[-1].step <= self._start or settling:
            return None
        if verdict.harm in ("answers", "both"):
            return f"{verdict.label}: {verdict.because}"
        evaluations = [s for s in history if s.step >= self._start]
        if verdict.label not in OVERFIT_LABELS or not evaluations[-1].valid_losses.size:
            return None
        losses = validation_losses(evaluations)
        waited = len(evaluations) - 1 - last_gain(evaluations, losses)
        if waited < WAIT:
            return None
        idle = f"and the predictions did not improve at {waited} evaluations in a row"
        return f"{verdict.label}, {idle}: {verdict.because}"

    def _is_settling(self, history: Sequence[Snapshot]) -> bool:
        if not self._steps or history[-1].step >= SETTLED_SHARE * self._steps[-1]:
            return False
        losses = validation_losses(history)
        fitted = len(history) > 1 and all(is_at_floor(snapshot) for snapshot in history[-2:])
        return bool(losses.size) and _lowest_place(losses) == 0 and not fitted

    def _nothing_to_gain(self, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        evaluations = [s for s in history if s.step >= self._start]
        costs = self._costs
        if costs is None or len(evaluations) < 2 or not history[-1].valid_losses.size:
            return ()
        losses = validation_losses(evaluations)
        learnt = np.interp([s.step for s in evaluations], self._steps, self._learning)
        learnt, planned_learning_left = learnt - learnt[0], self._learning[-1] - learnt[0]
        worth = costs.worth * float(losses.mean(axis=0).min())
        first = int(_lowest_place(losses) == 0)
        losses, learnt = losses[:, first:], learnt[first:]
        gain_outlook = outlook(
            losses, learnt, min(planned_learning_left, (1 + costs.ahead) * learnt[-1]), worth
        )
        if (
            planned_learning_left <= learnt[-1]
            or not gain_outlook.chance < costs.chance
            or self._is_settling(history)
        ):
            return ()
        return (
            Stop(
                "the rest of the plan is unlikely to lower the validation loss by another "
                f"{worth:.2g}: the probability is {percent_phrase(gain_outlook.chance)}, below "
                f"{percent_phrase(costs.chance)}",
                gain=gain_outlook.gain,
                error=gain_outlook.error,
                chance=gain_outlook.chance,
            ),
        )

    def state_dict(self) -> dict[str, Any]:
        return self._patience.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._patience.load_state_dict(state)


class StopAtStep:
    """The advisor of a run that ends at a given evaluation, ``because`` of other fits. It keeps no
    state; ``StoppingRule`` is the one that judges."""

    def __init__(self, step: int, because: str) -> None:
        self._step, self._because = step, because

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        return (Stop(self._because),) if history[-1].step >= self._step else ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """There is no state to load."""


def _has_finite_losses(snapshot: Snapshot) -> bool:
    return bool(
        np.isfinite(snapshot.train_losses).all() and np.isfinite(snapshot.valid_losses).all()
    )


def _is_better_than_chance(snapshot: Snapshot) -> bool:
    """Whether the predictions of an evaluation are better than chance; false where rows have no
    class."""
    labels = validation_labels(snapshot) if snapshot.step and _has_finite_losses(snapshot) else None
    if labels is None or snapshot.valid_correct is None or not len(labels):
        return False
    losses = validation_losses([snapshot])
    return beats_chance(np.asarray(snapshot.valid_logits).argmax(axis=1), losses[:, 0], labels)


def _lowest_place(losses: Floats) -> int:
    return int(losses.mean(axis=0).argmin())


def planned_learning(steps: Sequence[int], rates: Floats) -> dict[int, float]:
    """The learning done by each of these steps: Σ of ``rates`` [all steps] before it."""
    done = np.concatenate([[0.0], np.cumsum(np.asarray(rates, dtype=np.float64))])
    return {int(step): float(done[step]) for step in steps}
