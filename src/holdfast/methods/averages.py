"""Averages of the weights of a run, offered as its checkpoint: of its steps (``ema``, ``swa``), of
its best evaluations (``soup``), of its start and its end (``wise``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.core.settings import setting
from holdfast.core.wording import percent_phrase
from holdfast.methods.registry import METHODS, Method, Parts

if TYPE_CHECKING:
    import torch

    from holdfast.core.records import Floats, Snapshot
    from holdfast.training.run import Run


COPIES = 2
Tensors = Mapping[str, "torch.Tensor"]


def update_mean(
    mean: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """``mean`` moved by ``share`` of the way to ``weights``, in place where it exists; a tensor of
    integers (a count of batches) is taken unchanged."""
    import torch

    new_mean: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, tensor in weights.items():
            before = mean.get(name)
            if before is None or share == 1 or not tensor.is_floating_point():
                new_mean[name] = tensor.detach().clone()
            else:
                new_mean[name] = before.to(tensor.device).lerp_(tensor.detach(), share)
    return new_mean


class MeanState(TypedDict):
    """The state of a mean in a checkpoint."""

    mean: Mapping[str, torch.Tensor]
    count: int
    then: Mapping[str, torch.Tensor]
    then_count: int
    then_step: int


class RunningMean:
    """A running mean of the weights of a run: ``ema`` forgets older steps, ``swa`` weighs every
    step of the last part equally.

        m_0 = 0,  m_t = m_{t−1} + s_t · (w_t − m_{t−1})

    with w_t the weights after the t-th step that counts and s_1 = 1; a method is its s_t.
    Everything that training changes is averaged. The running statistics of batch norms are measured
    again when the mean is tried (``core.events.Trial``), since their mean does not fit the mean's
    own outputs. Training continues from the unaveraged weights: the run is bit-identical to the one
    without the method.

    The mean is offered as it was at the evaluation of the best checkpoint, since the run improved
    up to there. So it holds two copies of the trainable weights: the current mean, and that one.
    Compared with siblings: ``soup`` averages a few evaluations and tests each, ``wise`` the start
    and the end.

    The listener. ``share(t)`` is s_t, t from 1; steps up to ``start``, a share of the planned ones,
    do not count; ``describe`` describes the mean of a number of steps.
    """

    place: ClassVar[Place] = "change"

    def __init__(
        self, name: str, share: Callable[[int], float], start: float, describe: Callable[[int], str]
    ) -> None:
        self.name = name
        self._share, self._start, self._made_of = share, start, describe
        self.mean: dict[str, torch.Tensor] = {}
        self.count = 0
        self._best_mean: dict[str, torch.Tensor] = {}
        self._best_count = self._best_step = 0

    def step_done(self, run: Run) -> None:
        if not self.count and run.step <= self._start * run.plan.steps:
            return
        self.count += 1
        self.mean = update_mean(self.mean, run.changing_tensors(), self._share(self.count))

    def snapshot_taken(self, run: Run) -> None:
        # A run that has just gone back is not at the evaluation that it kept.
        if self.count and run.best.step == run.step:
            self._best_mean = {name: tensor.clone() for name, tensor in self.mean.items()}
            self._best_count, self._best_step = self.count, run.step

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        if not self.count:
            first = int(self._start * run.plan.steps) + 1
            return f"the run ended at step {run.step}, before the first step that counts, {first}"
        if not self._best_count:
            # The best checkpoint is older than the mean's first step.
            return Offer(self.mean, run.last_snapshot.step, self._made_of(self.count))
        return Offer(self._best_mean, self._best_step, self._made_of(self._best_count))

    def state_dict(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "count": self.count,
            "then": self._best_mean,
            "then_count": self._best_count,
            "then_step": self._best_step,
        }

    def load_state_dict(self, state: MeanState) -> None:
        self.mean, self.count = dict(state["mean"]), state["count"]
        self._best_mean, self._best_count = dict(state["then"]), state["then_count"]
        self._best_step = state["then_step"]


def ema_share(decay: float, count: int) -> float:
    """How far the average moves to the weights of the ``count``-th step, counted from 1."""
    return float((1 - decay) / (1 - decay**count))


@dataclass(frozen=True, slots=True)
class Ema:
    """An exponential moving average of the weights, offered as checkpoint (1412.6980, section 7).

        m_t = β · m_{t−1} + (1 − β) · w_t,  m_0 = 0;  the average is m_t ÷ (1 − β^t)

    which, written as a running mean, moves by s_t = (1 − β) ÷ (1 − β^t) at each step: the first
    steps have equal weights, as the bias correction requires, without the initial zero. It covers
    about 1 ÷ (1 − β) steps. A short fine-tuning has some hundred steps, so the usual 0.999 of long
    trainings would average in the start.

    ``decay`` is β; ``warmup`` the share of the planned steps, in [0, 0.9], before the first that
    counts."""

    decay: float = setting(0.98, above=0, most=0.99999)
    warmup: float = setting(0.1, most=0.9)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"an exponential average of {steps} steps, decay {self.decay:g}"

        return (RunningMean("ema", lambda t: ema_share(self.decay, t), self.warmup, made_of),)


METHODS.add("ema", Method(Ema, lambda settings: Parts(listeners=settings.listeners, copies=COPIES)))


def mean_share(count: int) -> float:
    """How far the plain mean moves to the ``count``-th of its members, counted from 1."""
    return 1 / count


@dataclass(frozen=True, slots=True)
class Swa:
    """The plain mean of the weights over the last part of a run, offered as checkpoint
    (1803.05407).

        m = 1/n · Σ w_t  over the last n steps

    The paper averages once per epoch at a high constant rate; a mean over every step costs one
    addition and is less noisy. Under a rate that falls to zero the last steps hardly move, so most
    of the mean is that of the steps before: with ``train.schedule=constant`` it gains most.

    ``start`` is the share of the planned steps, in [0, 0.99], after which steps count."""

    start: float = setting(0.5, most=0.99)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"the mean of {steps} steps from {percent_phrase(self.start)} of the plan on"

        return (RunningMean("swa", mean_share, self.start, made_of),)


METHODS.add("swa", Method(Swa, lambda settings: Parts(listeners=settings.listeners, copies=COPIES)))


@dataclass(frozen=True, slots=True)
class SoupMethod:
    """A soup of the run's own best checkpoints, offered as checkpoint (2203.05482, recipe 1).

    The evaluations with the lowest validation loss, the best first. Each is added if the plain mean
    of all members, including it, has no higher validation loss than without it:

        S ← {w_(1)};  for i = 2 … k:  S ← S ∪ {w_(i)}  if  L(mean(S ∪ {w_(i)})) ≤ L(mean(S))

    The paper averages different runs; the checkpoints of one run are in one loss valley even more.
    Compared with siblings: ``swa`` averages every step of the last part without a test, ``wise``
    goes back towards the start.

    ``states`` is k, the number of best evaluations that are held and tried: a copy of the trainable
    weights each, one of which every run holds anyway.
    """

    states: int = setting(5, least=2, most=50)


class SoupState(TypedDict):
    """The state of a soup in a checkpoint: loss, step and weights of each held evaluation."""

    held: Sequence[tuple[float, int, Tensors]]


class CheckpointSoup:
    """Holds the weights of the best evaluations, ``most`` of them, including that of step 0."""

    name: ClassVar[str] = "soup"
    place: ClassVar[Place] = "change"

    def __init__(self, most: int) -> None:
        self._max_states = most
        self._best_states: list[tuple[float, int, Tensors]] = []

    def snapshot_taken(self, run: Run) -> None:
        # Where the run has just gone back, this is the evaluation that it went back to.
        snapshot = run.history[-1]
        is_held = any(step == snapshot.step for _, step, _ in self._best_states)
        if math.isfinite(snapshot.refined_loss) and not is_held:
            self._best_states.append((float(snapshot.refined_loss), snapshot.step, run.previous))
            self._best_states = sorted(self._best_states, key=lambda one: one[:2])[
                : self._max_states
            ]

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        if len(self._best_states) < 2:
            return "a soup needs two evaluations with a validation loss"
        from holdfast.models.soup import greedy_soup, mean_state

        def mean_of(places: Sequence[int]) -> Tensors:
            # A state from before a layer was unfrozen has not its tensors, which had not changed.
            states = ({**run.initial_tensors, **self._best_states[at][2]} for at in places)
            return mean_state(
                {name: state[name] for name in run.changing_tensors()} for state in states
            )

        losses = [loss for loss, _, _ in self._best_states]
        members, _ = greedy_soup(losses, lambda places: trial(mean_of(places)).refined_loss)
        steps = [self._best_states[place][1] for place in members]
        if len(members) == 1:
            return f"no mean with another of the {len(losses)} best checkpoints beats the best"
        step_names = ", ".join(str(step) for step in sorted(steps))
        made_of = (
            f"the mean of the checkpoints of steps {step_names}, of the {len(losses)} best ones"
        )
        return Offer(mean_of(members), max(steps), made_of)

    def state_dict(self) -> dict[str, Any]:
        return {"held": [[loss, step, dict(tensors)] for loss, step, tensors in self._best_states]}

    def load_state_dict(self, state: SoupState) -> None:
        self._best_states = [(loss, step, tensors) for loss, step, tensors in state["held"]]


METHODS.add(
    "soup",
    Method(
        SoupMethod,
        lambda settings: Parts(
            listeners=lambda: (CheckpointSoup(settings.states),), copies=max(0, settings.states - 1)
        ),
    ),
)


LEAN_CHOICES = ("lowest", "start")


def interpolate(start: Tensors, end: Tensors, share: float) -> dict[str, torch.Tensor]:
    """``share`` of the way from ``start`` to ``end``; for integers those of ``end``."""
    import torch

    return {
        name: torch.lerp(start[name].to(last.device), last, share)
        if last.is_floating_point()
        else last
        for name, last in end.items()
    }


@dataclass(frozen=True, slots=True)
class Wise:
    """Interpolation between the start and the end of a run, with every point tried (WiSE-FT,
    2109.01903).

        w(a) = (1 − a) · w_start + a · w_end,  a = 0, 1/n, … , 1

    ``w_start`` are the weights before the first step, with the head that was fitted to them where
    the run began as a linear probe; ``w_end`` those of the best checkpoint. Fine-tuning gains on
    rows like the training rows and loses what the pretrained model knew about others. On the line
    between, the paper regains 4 to 6 points on the others at little or no loss on the former. Every
    point is measured on the validation rows, and the whole curve is recorded: it is the trade-off
    of one run.

    Validation rows are like the training rows, so they show the gain, and cannot show what is
    preserved of the rest. A general-text set (``probes.forgetting``) measures that: the curve then
    has its loss at every point. ``lean`` selects the point: ``lowest`` offers the one with the
    lowest validation loss; ``start`` the one nearest to the start that is not significantly worse
    than the best. ``within`` is the validation loss in nats that may be given up for what the model
    knew before: it selects the best point on the general-text set within that, or without such a
    set the one nearest to the start. Under an adapter the line is that of its factors, which also
    goes from the start to the end. Compared with siblings: ``ema``, ``swa`` and ``soup`` average
    the path, not its ends; against forgetting during training see ``l2_sp``, ``kl_start`` and
    ``replay``.

    ``points`` is n, the number of parts of the line: n − 1 points are tried between its ends (2:
    only the middle). ``lean`` selects one of them; ``within`` nats of validation loss, if above 0,
    replaces it.
    """

    points: int = setting(10, least=2, most=100)
    lean: str = setting("lowest", choices=LEAN_CHOICES)
    within: float = setting(0.0, most=10)


class LineSearch:
    """The listener; it has no state, since a run keeps its start and its end anyway."""

    name: ClassVar[str] = "wise"
    place: ClassVar[Place] = "change"

    def __init__(self, points: int, lean: str, within: float = 0.0) -> None:
        self._points, self._lean, self._within = points, lean, within

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        # A run whose best checkpoint is the start still has an end.
        end, step = (run.best.tensors, run.best.step)
        if not step:
            end, step = run.previous, run.last_snapshot.step
        shares = [at / self._points for at in range(self._points + 1)]
        evaluations = [trial(interpolate(run.initial_tensors, end, share)) for share in shares]
        losses = np.array([evaluation.refined_loss for evaluation in evaluations])
        curve = [
            _point(share, evaluation) for share, evaluation in zip(shares, evaluations, strict=True)
        ]
        if not np.isfinite(losses).all():
            return "the validation loss of a point between the start and the end is not finite"
        if self._within > 0:
            place = self._place_within_limit(losses, evaluations)
        else:
            place = self._lean_place(
                losses, [trial.would_keep(evaluation) for evaluation in evaluations[1:-1]]
            )
        losses_shown = ", ".join(
            f"{s:.2g}: {loss:.4g}" for s, loss in zip(shares, losses, strict=True)
        )
        if place is None:
            best_end = "the end" if losses[-1] <= losses[0] else "the start"
            return (
                f"of the line from the start to the end (loss by share: {losses_shown}) "
                f"{best_end} is best"
            )
        description = (
            f"{shares[place]:.2g} of the way from the start to step {step} (loss by share: "
        )
        tensors = interpolate(run.initial_tensors, end, shares[place])
        return Offer(tensors, step, f"{description}{losses_shown})", curve, self._within)

    def _place_within_limit(self, losses: Floats, evaluations: Sequence[Any]) -> int | None:
        """The index, between the ends, of the best point on the general-text set, or without one of
        the point nearest to the start, among those within the limit above the end."""
        inner = range(1, len(losses) - 1)
        allowed = [place for place in inner if losses[place] <= losses[-1] + self._within]
        if not allowed or evaluations[0].general_loss is None:
            return next(iter(allowed), None)
        return min(allowed, key=lambda place: float(evaluations[place].general_loss))

    def _lean_place(self, losses: Floats, would_keep: Sequence[bool]) -> int | None:
        """The index of the selected point; ``would_keep`` says for the points between the ends
        whether the run would keep them."""
        if self._lean == "start":
            return next((place for place, one in enumerate(would_keep, 1) if one), None)
        best = int(losses.argmin())
        return best if 0 < best < len(losses) - 1 else None


def _point(share: float, evaluation: Snapshot) -> dict[str, float | None]:
    correct = evaluation.valid_correct
    rate = float(correct.mean()) if correct is not None and len(correct) else None
    point = {"share": share, "valid_loss": float(evaluation.refined_loss), "valid_right": rate}
    return (
        point
        if evaluation.general_loss is None
        else {**point, "general_loss": evaluation.general_loss}
    )


METHODS.add(
    "wise",
    Method(
        Wise,
        lambda settings: Parts(
            listeners=lambda: (LineSearch(settings.points, settings.lean, settings.within),)
        ),
    ),
)
