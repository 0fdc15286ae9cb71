"""Training of a method on episodes: updates, evaluations on fixed episodes, and the best
checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from holdfast.core.records import Floats
from holdfast.plugins.episodes.methods import (
    FeatureReader,
    StartMethod,
    Step,
    score_episodes,
    seeded,
)
from holdfast.plugins.episodes.tasks import Episode, EpisodeShape, TaskPool
from holdfast.training.checkpoint import CheckpointStore

WARMUP = 0.1
CLIP = 1.0
DECAY = 0.01


@dataclass(frozen=True, slots=True)
class EpisodeEvaluation:
    """One evaluation: accuracy [episodes] and mean loss on fixed training and validation episodes,
    the mean loss of the updates since the last evaluation, and the number of rows learned from.
    """

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
    """How a method is trained: ``updates`` at ``learning_rate`` (warm-up over a tenth of them, then
    linear decay to 0).

    ``evaluations`` after the first one use ``train_episodes`` and ``valid_episodes``.
    """

    pool: TaskPool
    shape: EpisodeShape
    updates: int
    learning_rate: float
    evaluations: int
    train_episodes: Sequence[Episode]
    valid_episodes: Sequence[Episode]
    seed: int

    def rate_factor(self, index: int) -> float:
        """The factor of the learning rate at update ``index``, in (0, 1]."""
        rising = max(1, round(WARMUP * self.updates))
        if index < rising:
            return (index + 1) / rising
        return (self.updates - index) / max(1, self.updates - rising + 1)

    @property
    def evaluation_steps(self) -> tuple[int, ...]:
        """The updates after which an evaluation takes place, including 0."""
        marks = np.linspace(0, self.updates, self.evaluations + 1).round().astype(int)
        return tuple(dict.fromkeys(marks.tolist()))


@dataclass(slots=True)
class MethodResult:
    """A trained method: its evaluations, the step of the best one by validation accuracy (the
    earliest of equals) and the weights at that step, ``state``."""

    evaluations: list[EpisodeEvaluation] = field(default_factory=list)
    best_step: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> EpisodeEvaluation:
        return next(look for look in self.evaluations if look.step == self.best_step)

    def to_plain(self) -> dict[str, Any]:
        """The same as tensors, numbers and texts, for a checkpoint."""
        evaluations = [
            {**asdict(evaluation), "accuracy": evaluation.accuracy.tolist()}
            for evaluation in self.evaluations
        ]
        return {"looks": evaluations, "best": self.best_step, "state": self.state}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> MethodResult:
        """The inverse of ``to_plain``."""
        records = [one | {"accuracy": np.array(one["accuracy"])} for one in plain["looks"]]
        evaluations = [EpisodeEvaluation(**one) for one in records]
        return cls(evaluations, plain["best"], dict(plain["state"]))


def learn(
    method: StartMethod,
    reader: FeatureReader,
    plan: EpisodePlan,
    store: CheckpointStore,
    on_evaluation: Callable[[EpisodeEvaluation], None] = lambda _: None,
) -> MethodResult:
    """Train a method, or finish its training, and restore its best state.

    The network starts in its current state. All random draws depend on the update's number, so that
    training resumed from ``store`` after an interruption ends with the same result.
    """
    network, head = reader.network, method.head
    optimizer = _clipping_optimizer(method, reader, plan.learning_rate)
    parts = {"network": network, "optimizer": optimizer, "head": head}
    clock = time.perf_counter()
    saved = store.load()
    training, step, sums = _progress(saved, parts)
    seconds_before = training.evaluations[-1].seconds if training.evaluations else 0.0
    evaluated = {evaluation.step for evaluation in training.evaluations}

    def save() -> None:
        states = {k: None if part is None else part.state_dict() for k, part in parts.items()}
        store.save(step, {"learned": training.to_plain(), "step": step, "sums": sums, **states})

    while True:
        if step in plan.evaluation_steps and step not in evaluated:
            seconds = seconds_before + time.perf_counter() - clock
            updates = step - (training.evaluations[-1].step if training.evaluations else 0)
            evaluation = _evaluate(
                method, reader, plan, step, sums / updates if updates else None, seconds
            )
            training.evaluations.append(evaluation)
            sums = 0.0
            on_evaluation(evaluation)
            if step == 0 or evaluation.valid_accuracy > training.best.valid_accuracy:
                training.best_step = step
                training.state = {k: v.detach().clone() for k, v in network.state_dict().items()}
        if step >= plan.updates:
            break
        share = plan.rate_factor(step)
        for group in optimizer.param_groups:
            group["lr"] = share * group["planned"]
        optimizer.zero_grad()
        with seeded(plan.seed, method.name, step):
            sums += method.update(Step(reader, plan.pool, plan.shape, plan.seed, step))
            optimizer.step()
        step += 1
        if store.is_due and step not in plan.evaluation_steps:
            save()
    if saved is None or saved["step"] < step:
        save()
    network.load_state_dict(training.state)
    return training


def _progress(
    saved: Mapping[str, Any] | None, parts: Mapping[str, Any]
) -> tuple[MethodResult, int, float]:
    """The training state of ``saved``, its step, and the sum of the losses since its last
    evaluation.

    ``parts`` get their states of that time. Without ``saved``, the initial state.
    """
    if saved is None:
        return MethodResult(), 0, 0.0
    training = MethodResult.from_plain(saved["learned"])
    step, sums = saved["step"], saved["sums"]
    for name, part in parts.items():
        if part is not None:
            part.load_state_dict(saved[name])
    return training, step, sums


def _clipping_optimizer(
    method: StartMethod, reader: FeatureReader, rate: float
) -> torch.optim.Optimizer:
    groups = _parameter_groups(method, reader, rate)
    optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
    optimizer.register_step_pre_hook(_clip_gradients)
    return optimizer


def _clip_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(weights, CLIP)


def _parameter_groups(
    method: StartMethod, reader: FeatureReader, rate: float
) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": reader.trainable, "planned": rate, "lr": rate}]
    if method.head is not None:
        head_rate = max(rate, getattr(method, "HEAD_RATE", rate))
        groups.append(
            {"params": list(method.head.parameters()), "planned": head_rate, "lr": head_rate}
        )
    return groups


def _evaluate(
    method: StartMethod,
    reader: FeatureReader,
    plan: EpisodePlan,
    step: int,
    update_loss: float | None,
    seconds: float,
) -> EpisodeEvaluation:
    train_scores, valid_scores = (
        score_episodes(method, reader, plan.train_episodes),
        score_episodes(method, reader, plan.valid_episodes),
    )
    return EpisodeEvaluation(
        step=step,
        train_accuracy=float(train_scores.accuracy.mean()),
        train_loss=float(train_scores.loss.mean()),
        accuracy=valid_scores.accuracy,
        valid_loss=float(valid_scores.loss.mean()),
        update_loss=update_loss,
        rows=step * plan.shape.ways * plan.shape.rows,
        seconds=seconds,
    )
