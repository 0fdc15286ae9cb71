"""A trainer in several processes: the guard works in the main one, and the others follow.

    main      measure ─ judge ─ decide ─ tell ──────────────────────── restore
    others   (measure)                 ─ hear ─ copy, change, stop ─── restore

Measured rows, verdicts and files are those of the main process, so they are what one process gives.
The others hear of each evaluation exactly once, whether it succeeded or not, so that none waits in
vain. Only where the weights are sharded do they measure too: a forward pass then needs all
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdfast.plugins.trainers.foreign import ForeignRun
from holdfast.plugins.trainers.watch import TrainerRun
from holdfast.plugins.trainers.weights import WeightCopies, without_side_effects

Message = Mapping[str, Any]
T = TypeVar("T")
# Set of an error that every process has heard of.
KNOWN_TO_ALL = "known_to_all"


class OtherProcessError(RuntimeError):
    """The guard failed in another process."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The ``count`` processes that train together, and the number of this one; whether the weights
    are ``sharded`` over them. Every method is called by all of them, or hangs."""

    count: int = 1
    rank: int = 0
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def lead(self, work: Callable[[], Message] = dict) -> Message:
        """What the main process made of ``work``, in every process.

        An error is raised in the main process as it is, and in the others as ``OtherProcessError``.
        """
        if self.count == 1:
            return work()
        if not self.is_main:
            message = _shared(None)
            if message is None:
                raise OtherProcessError("the guard failed in the main process")
            return message
        try:
            message = work()
        except BaseException:
            _shared(None)
            raise
        _shared(message)
        return message

    def together(self, work: Callable[[], T]) -> T:
        """The outcome of work that every process does by itself. An error of one is raised there as
        it is, and in the others as ``OtherProcessError``."""
        if self.count == 1:
            return work()
        from torch.distributed import all_gather_object

        failed: list[bool] = [False] * self.count
        try:
            outcome = work()
        except BaseException as error:
            all_gather_object(failed, True)
            setattr(error, KNOWN_TO_ALL, True)
            raise
        all_gather_object(failed, False)
        if any(failed):
            raise OtherProcessError(f"the guard failed in process {failed.index(True)}")
        return outcome


def _shared(message: Message | None) -> Message | None:
    from torch.distributed import broadcast_object_list

    objects = [message]
    broadcast_object_list(objects, src=0)
    return objects[0]


@dataclass(slots=True)
class Follower:
    """The guard in another process than the main one; it ``measures`` where a measurement needs all
    processes: with sharded weights, or a loss that gathers figures from them."""

    foreign_run: ForeignRun
    seed: int
    measures: bool
    best: Mapping[str, Any] = field(default_factory=dict)
    step: int = -1

    def evaluate(self, processes: Processes, step: int) -> Message:
        """Take part in an evaluation. A second one at the same step measures nothing, as in the
        main process."""
        error: Exception | None = None
        if self.measures and step > self.step:
            try:
                with without_side_effects(self.foreign_run.model, self.seed):
                    self.foreign_run.measure()
            except Exception as failure:
                # It failed in the main process too, which tells so.
                error = failure
        self.step = max(step, self.step)
        message = processes.lead()
        if error is not None:
            raise error
        if message["kept"]:
            self.best = WeightCopies(self.foreign_run.model).copy()
        for action in message["actions"]:
            self.foreign_run.changes[type(action)](action)
        if message["failed"]:
            raise OtherProcessError("the guard failed in the main process")
        return message

    def restore(self) -> None:
        WeightCopies(self.foreign_run.model).load(self.best)


def lead_evaluation(
    processes: Processes, watch: TrainerRun, step: int, evaluate: Callable[[], None]
) -> Message:
    """Evaluate in the main process, and tell the others whether the weights are ``kept`` for the
    end of the run, which ``actions`` the trainer took, whether to ``stop``, and whether it
    ``failed``: what it did until then holds in every process."""
    engine = watch.engine
    before, is_new = len(engine.actions), watch.step < step or not engine.snapshots
    error: Exception | None = None

    def work() -> Message:
        nonlocal error
        try:
            evaluate()
        except Exception as failure:
            error = failure
        actions = [one for _, one in engine.actions[before:] if type(one) in watch.appliers]
        return {
            "kept": is_new and engine.best.step == step and bool(engine.best.tensors),
            "actions": actions,
            "stop": engine.stop_because is not None,
            "failed": error is not None,
        }

    message = processes.lead(work)
    if error is not None:
        raise error
    return message
