"""A method over its training episodes: updates, looks at fixed episodes, the best state kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from holdfast.core.records import Floats
from holdfast.plugins.episodes.methods import FeatureReader, StartMethod, Step, score, seeded
from holdfast.plugins.episodes.tasks import Episode, Shape, TaskPool
from holdfast.training.checkpoint import CheckpointStore

WARMUP = 0.1
CLIP = 1.0
DECAY = 0.01


@dataclass(frozen=True, slots=True)
class EpisodeEvaluation:
    """What a look saw: accuracy [episodes] and mean loss of fixed training and validation
    episodes, the mean loss of the updates since the last look, and the rows learned from."""

    step: int
    train_accuracy: float
    train_loss: float
    accuracy: Floats
    valid_loss: float
    update_loss: float | None
    rows: int
    seconds: float

    @property
    def valid_accuracy(self) -> float:
        return float(self.accuracy.mean())


@dataclass(frozen=True, slots=True)
class EpisodePlan:
    """How a method is run: ``updates`` at ``rate`` (a tenth of them rising, then falling to 0),
    with ``looks`` beside the first; ``probe`` are training, ``judge`` validation episodes."""

    pool: TaskPool
    shape: Shape
    updates: int
    rate: float
    looks: int
    probe: Sequence[Episode]
    judge: Sequence[Episode]
    seed: int

    def share(self, index: int) -> float:
        """The part of the rate that update ``index`` has, in (0, 1]."""
        rising = max(1, round(WARMUP * self.updates))
        if index < rising:
            return (index + 1) / rising
        return (self.updates - index) / max(1, self.updates - rising + 1)

    @property
    def looked(self) -> tuple[int, ...]:
        """The updates after which a look is taken, 0 among them."""
        marks = np.linspace(0, self.updates, self.looks + 1).round().astype(int)
        return tuple(dict.fromkeys(marks.tolist()))


@dataclass(slots=True)
class MethodResult:
    """A method at its end: the looks, the step of the best one by validation accuracy (the earliest
    of equals) and its weights, ``state``."""

    looks: list[EpisodeEvaluation] = field(default_factory=list)
    best: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> EpisodeEvaluation:
        return next(look for look in self.looks if look.step == self.best)

    def plain(self) -> dict[str, Any]:
        """The same in tensors, numbers and texts, as a checkpoint holds it."""
        looks = [{**asdict(look), "accuracy": look.accuracy.tolist()} for look in self.looks]
        return {"looks": looks, "best": self.best, "state": self.state}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> MethodResult:
        """What ``plain`` gave."""
        looks = [one | {"accuracy": np.array(one["accuracy"])} for one in plain["looks"]]
        made = [EpisodeEvaluation(**one) for one in looks]
        return cls(made, plain["best"], dict(plain["state"]))


def learn(
    method: StartMethod,
    reader: FeatureReader,
    course: EpisodePlan,
    keeper: CheckpointStore,
    hear: Callable[[EpisodeEvaluation], None] = lambda _: None,
) -> MethodResult:
    """Run a method's course, or what is left of it, and put the network into its best state.

    The network begins as it is. Whatever is drawn is drawn by the update's number, so that a course
    that was killed and goes on from what ``keeper`` has ends as one that was not.
    """
    network, head = reader.network, method.head
    optimizer = torch.optim.AdamW(_groups(method, reader, course.rate), weight_decay=DECAY)
    optimizer.register_step_pre_hook(_clipped)
    parts = {"network": network, "optimizer": optimizer, "head": head}
    learned, at, sums, clock = MethodResult(), 0, 0.0, time.perf_counter()
    found = keeper.load()
    if found is not None:
        learned, at, sums = MethodResult.of(found["learned"]), found["step"], found["sums"]
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(found[name])
    base = learned.looks[-1].seconds if learned.looks else 0.0
    done = {look.step for look in learned.looks}

    def save() -> None:
        states = {k: None if part is None else part.state_dict() for k, part in parts.items()}
        keeper.save(at, {"learned": learned.plain(), "step": at, "sums": sums, **states})

    while True:
        if at in course.looked and at not in done:
            spent = base + time.perf_counter() - clock
            updates = at - (learned.looks[-1].step if learned.looks else 0)
            look = _look(method, reader, course, at, sums / updates if updates else None, spent)
            learned.looks.append(look)
            sums = 0.0
            hear(look)
            if at == 0 or look.valid_accuracy > learned.kept.valid_accuracy:
                learned.best = at
                learned.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        if at >= course.updates:
            break
        share = course.share(at)
        for group in optimizer.param_groups:
            group["lr"] = share * group["planned"]
        optimizer.zero_grad()
        with seeded(course.seed, method.name, at):
            sums += method.update(Step(reader, course.pool, course.shape, course.seed, at))
            optimizer.step()
        at += 1
        if keeper.is_due and at not in course.looked:
            save()
    if found is None or found["step"] < at:
        save()
    network.load_state_dict(learned.state)
    return learned


def _clipped(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(weights, CLIP)


def _groups(method: StartMethod, reader: FeatureReader, rate: float) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": reader.learns, "planned": rate, "lr": rate}]
    if method.head is not None:
        quick = max(rate, getattr(method, "HEAD_RATE", rate))
        groups.append({"params": list(method.head.parameters()), "planned": quick, "lr": quick})
    return groups


def _look(
    method: StartMethod,
    reader: FeatureReader,
    course: EpisodePlan,
    at: int,
    update_loss: float | None,
    seconds: float,
) -> EpisodeEvaluation:
    probe, judge = score(method, reader, course.probe), score(method, reader, course.judge)
    return EpisodeEvaluation(
        step=at,
        train_accuracy=float(probe.accuracy.mean()),
        train_loss=float(probe.loss.mean()),
        accuracy=judge.accuracy,
        valid_loss=float(judge.loss.mean()),
        update_loss=update_loss,
        rows=at * course.shape.ways * course.shape.rows,
        seconds=seconds,
    )
