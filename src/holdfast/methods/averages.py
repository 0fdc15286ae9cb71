"""Averages of the weights of a run, offered for the state to keep: of its steps (``ema``,
``swa``), of its best looks (``soup``), of its start and its end (``wise``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from holdfast.core.events import Offer, OfferTrial, Place
from holdfast.methods.registry import METHODS, Method, Parts, setting

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
    whole numbers (a count of batches) is taken as it is."""
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
    """What a checkpoint keeps of a mean."""

    mean: Mapping[str, torch.Tensor]
    count: int
    then: Mapping[str, torch.Tensor]
    then_count: int
    then_step: int


class RunningMean:
    """A mean over the weights of a run, kept while it trains: ``ema`` forgets older steps, ``swa``
    weighs every step of the tail alike.

        m_0 = 0,  m_t = m_{t−1} + s_t · (w_t − m_{t−1})

    with w_t the weights after the t-th step that counts and s_1 = 1; a method is its s_t.
    Everything that training changes is averaged; the running statistics of batch norms are measured
    anew when the mean is tried (``core.events.Trial``), since no mean of them is that of the mean's
    own outputs. Training itself goes on from the weights as they are: the run is, to the bit, the
    one without.

    The mean is offered as it was at the look whose state is kept, since that is how far the run got
    before it stopped to gain. So it holds two copies of what learns: the mean, and the mean of
    then. Siblings: ``soup`` averages a few looks and tests each, ``wise`` the start and the end.

    The listener. ``share(t)`` is s_t, t from 1; steps up to ``start``, a share of the planned ones,
    do not count; ``made_of`` says of the number of steps what their mean is.
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
        # A run that has just gone back is not at the look that it kept.
        if self.count and run.best.step == run.step:
            self._best_mean = {name: tensor.clone() for name, tensor in self.mean.items()}
            self._best_count, self._best_step = self.count, run.step

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        if not self.count:
            first = int(self._start * run.plan.steps) + 1
            return f"the run ended at step {run.step}, before the first that counts, {first}"
        if not self._best_count:
            # The state that is kept is older than the mean's first step.
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
    """An exponential average of the weights, offered for the state to keep (1412.6980, section 7).

        m_t = β · m_{t−1} + (1 − β) · w_t,  m_0 = 0;  the average is m_t ÷ (1 − β^t)

    which, written as a running mean, moves by s_t = (1 − β) ÷ (1 − β^t) at each step: the first
    steps weigh alike, as the correction has it, and no zero is in it. It remembers about
    1 ÷ (1 − β) steps. A short run of fine-tuning has some hundred, so the usual 0.999 of long
    trainings would average in the start.

    ``decay`` is β; ``warmup`` the share of the planned steps, in [0, 0.9], that come before the
    first that counts."""

    decay: float = setting(0.98, above=0, most=0.99999)
    warmup: float = setting(0.1, most=0.9)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"an exponential average of {steps} steps, decay {self.decay:g}"

        return (RunningMean("ema", lambda t: ema_share(self.decay, t), self.warmup, made_of),)


METHODS.add("ema", Method(Ema, lambda asked: Parts(listeners=asked.listeners, copies=COPIES)))


def mean_share(count: int) -> float:
    """How far the plain mean moves to the ``count``-th of its members, counted from 1."""
    return 1 / count


@dataclass(frozen=True, slots=True)
class Swa:
    """The plain mean of the weights over the tail of a run, offered for the state to keep
    (1803.05407).

        m = 1/n · Σ w_t  over the last n steps

    The paper averages once an epoch at a high rate that does not fall; a mean over every step costs
    one addition and is less noisy. Under a rate that falls to zero the last steps hardly move, so
    most of the mean is that of the early tail: with ``train.schedule=constant`` it gains most.

    ``start`` is the share of the planned steps, in [0, 0.99], after which steps count."""

    start: float = setting(0.5, most=0.99)

    def listeners(self) -> tuple[RunningMean]:
        def made_of(steps: int) -> str:
            return f"the mean of {steps} steps from {self.start:.0%} of the plan on"

        return (RunningMean("swa", mean_share, self.start, made_of),)


METHODS.add("swa", Method(Swa, lambda asked: Parts(listeners=asked.listeners, copies=COPIES)))


def plain_mean(states: Sequence[Tensors]) -> dict[str, torch.Tensor]:
    """The mean of states with the same names; of whole numbers the first state's."""
    import torch

    return {
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if first.is_floating_point()
        else first
        for name, first in states[0].items()
    }


def greedy_soup(states: Sequence[Tensors], loss_of: Callable[[Tensors], float]) -> list[int]:
    """Which of the ``states``, ordered with the best first, the greedy soup is made of."""
    members, best = [0], loss_of(states[0])
    for place in range(1, len(states)):
        loss = loss_of(plain_mean([states[at] for at in (*members, place)]))
        if loss <= best:
            members, best = [*members, place], loss
    return members


@dataclass(frozen=True, slots=True)
class SoupMethod:
    """A soup of the run's own best states, offered for the state to keep (2203.05482, recipe 1).

    The looks of lowest validation loss, the best first. Each is added where the plain mean of all
    that were added, with it, has no higher validation loss than without:

        S ← {w_(1)};  for i = 2 … k:  S ← S ∪ {w_(i)}  if  L(mean(S ∪ {w_(i)})) ≤ L(mean(S))

    The paper cooks states of different runs; states of one run lie in one valley all the more.
    Siblings: ``swa`` averages every step of the tail and asks nothing, ``wise`` goes back towards
    the start.

    ``states`` is k, how many of the best looks are held and tried: a copy of what learns each, and
    one of them every run holds anyway.
    """

    states: int = setting(5, least=2, most=50, whole=True)


class SoupState(TypedDict):
    """What a checkpoint keeps of a soup: the loss, step and weights of each look that is held."""

    held: Sequence[tuple[float, int, Tensors]]


class CheckpointSoup:
    """Holds the weights of the best looks. ``most`` of them; the state at the start is one."""

    name: ClassVar[str] = "soup"
    place: ClassVar[Place] = "change"

    def __init__(self, most: int) -> None:
        self._max_states = most
        self._best_states: list[tuple[float, int, Tensors]] = []

    def snapshot_taken(self, run: Run) -> None:
        # Where the run has just gone back, this is the look that it went back to.
        snapshot = run.history[-1]
        is_held = any(step == snapshot.step for _, step, _ in self._best_states)
        if math.isfinite(snapshot.refined_loss) and not is_held:
            self._best_states.append((float(snapshot.refined_loss), snapshot.step, run.previous))
            self._best_states = sorted(self._best_states, key=lambda one: one[:2])[
                : self._max_states
            ]

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        if len(self._best_states) < 2:
            return "a soup needs two looks with a validation loss"
        states = [tensors for _, _, tensors in self._best_states]
        members = greedy_soup(states, lambda tensors: trial(tensors).refined_loss)
        steps = [self._best_states[place][1] for place in members]
        if len(members) == 1:
            return f"no mean with another of the {len(states)} best looks is better than the best"
        step_names = ", ".join(str(step) for step in sorted(steps))
        made_of = f"the mean of the states of steps {step_names}, of the {len(states)} best looks"
        return Offer(plain_mean([states[place] for place in members]), max(steps), made_of)

    def state_dict(self) -> dict[str, Any]:
        return {"held": [[loss, step, dict(tensors)] for loss, step, tensors in self._best_states]}

    def load_state_dict(self, state: SoupState) -> None:
        self._best_states = [(loss, step, tensors) for loss, step, tensors in state["held"]]


METHODS.add(
    "soup",
    Method(
        SoupMethod,
        lambda asked: Parts(
            listeners=lambda: (CheckpointSoup(asked.states),), copies=max(0, asked.states - 1)
        ),
    ),
)


LEAN_CHOICES = ("lowest", "start")


def interpolate(start: Tensors, end: Tensors, share: float) -> dict[str, torch.Tensor]:
    """``share`` of the way from ``start`` to ``end``; of whole numbers those of ``end``."""
    import torch

    return {
        name: torch.lerp(start[name].to(last.device), last, share)
        if last.is_floating_point()
        else last
        for name, last in end.items()
    }


@dataclass(frozen=True, slots=True)
class Wise:
    """Between the start and the end of a run, the whole line of weights tried (WiSE-FT,
    2109.01903).

        w(a) = (1 − a) · w_start + a · w_end,  a = 0, 1/n, … , 1

    ``w_start`` are the weights before the first step, with the head that was fitted to them where
    the run began as a linear probe, ``w_end`` those of the state that is kept. Fine-tuning gains on
    rows like the training rows and loses what the pretrained model knew of others; on the line
    between, the paper finds 4 to 6 points of the second at little or no loss of the first. Every
    point is measured on the validation rows, and the whole curve is written down: it is the
    trade-off of one run.

    Validation rows are of the rows' own kind, so they tell the gain, and cannot tell what is kept
    of the rest, which a general probe (``probes.forgetting``) measures: the curve then has its loss
    at every point. ``lean`` says what to do about that: ``lowest`` offers the point of lowest
    validation loss; ``start`` the one nearest to the start that validation does not tell from the
    best. ``within`` says how many nats of validation loss may be given up for what the model knew
    before: the point that is best on the general probe within that, or without a probe the one
    nearest to the start. Under an adapter the line is that of its factors, which is one from the
    start to the end too. Siblings: ``ema``, ``swa`` and ``soup`` average the way, not its ends;
    against forgetting while it trains see ``l2_sp``, ``kl_start`` and ``replay``.

    ``points`` is n, the parts that the line is cut into: n − 1 points are tried between its ends
    (2: the half of the way alone). ``lean`` chooses one of them; ``within`` nats of validation
    loss, where above 0, does in its place.
    """

    points: int = setting(10, least=2, most=100, whole=True)
    lean: str = setting("lowest", words=LEAN_CHOICES)
    within: float = setting(0.0, most=10)


class LineSearch:
    """The listener; it has no state, since a run keeps its start and its end anyway."""

    name: ClassVar[str] = "wise"
    place: ClassVar[Place] = "change"

    def __init__(self, points: int, lean: str, within: float = 0.0) -> None:
        self._points, self._lean, self._within = points, lean, within

    def offer(self, run: Run, trial: OfferTrial) -> Offer | str:
        # A run that keeps its start still went somewhere.
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
            return "the validation loss of a point between the start and the end is no number"
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
        """The place between the ends that is best on the general probe, or without one nearest to
        the start, of those within the limit above the end."""
        inner = range(1, len(losses) - 1)
        allowed = [place for place in inner if losses[place] <= losses[-1] + self._within]
        if not allowed or evaluations[0].general_loss is None:
            return next(iter(allowed), None)
        return min(allowed, key=lambda place: float(evaluations[place].general_loss))

    def _lean_place(self, losses: Floats, would_keep: Sequence[bool]) -> int | None:
        """The place on the line; ``would_keep`` says of the points between its ends whether the run
        would keep them."""
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
        lambda asked: Parts(
            listeners=lambda: (LineSearch(asked.points, asked.lean, asked.within),)
        ),
    ),
)
