"""Our loop's run as the guard sees it: how it is measured, what can be changed, and how the state
that its training depends on is saved and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import Defect
from holdfast.core.records import Snapshot
from holdfast.models.network_copy import same_memory
from holdfast.training.act import all_trainable, appliers, apply_adjustments, start_phase
from holdfast.training.engine import Appliers, GuardEngine, Rules
from holdfast.training.journal import restore_journal
from holdfast.training.machine.sharding import is_sharded, local_part, local_state, spread_state
from holdfast.training.restore import (
    NO_ADJUSTMENTS,
    RestorePoint,
    SavedWeights,
    random_state,
    set_random_state,
)
from holdfast.training.run import Job, Run
from holdfast.training.snapshot import OfferResult, take_snapshot

if TYPE_CHECKING:
    import torch

# The position of the training: a rollback restores these.
POSITION_FIELDS = (
    "step",
    "phase_index",
    "step_in_phase",
    "examples_seen",
    "running_loss",
    "learning_rate",
    "gradient_norms",
)
# Facts that no rollback undoes.
PERMANENT_FIELDS = ("finished", "halvings", "examples_undone")


def begin_run(job: Job) -> Run:
    """A run of this job before its first step, with its guard."""
    run = Run(job)
    rules = Rules(job.monitor, job.choose, job.advisor)
    run.guard = GuardEngine(GuardedRun(run), rules, job.journal)
    return run


class GuardedRun:
    """The ``training.engine.GuardedTrainer`` of a run of the loop."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def step(self) -> int:
        return self._run.step

    @property
    def appliers(self) -> Appliers:
        return appliers(self._run)

    def observe(self) -> Snapshot:
        run = self._run
        run.emit("snapshot_due")
        snapshot = take_snapshot(run)
        if run.schedule is not None:
            # Before any action, so that a restore point of this evaluation includes it.
            run.schedule.observe(snapshot.valid_loss)
        return snapshot

    def save_weights(self) -> SavedWeights:
        # ``take_snapshot`` has just copied these: a second copy would be the largest object in
        # memory after the model.
        return SavedWeights(self._run.step, self._run.previous)

    def restore_point(self) -> RestorePoint:
        return make_restore_point(self._run, self.save_weights())

    def restore_from(self, point: RestorePoint) -> None:
        run, seen_before = self._run, self._run.examples_seen
        restore_run(run, point)
        run.examples_undone += seen_before - run.examples_seen


def checkpoint_state(run: Run) -> dict[str, Any]:
    """Everything a resume needs, in types that the weights-only loader reads."""
    weights = SavedWeights(
        run.step, {n: local_part(t.detach()) for n, t in run.changing_tensors().items()}
    )
    return {
        "step": run.step,
        **{name: getattr(run, name) for name in PERMANENT_FIELDS},
        "seconds": run.seconds,
        "loss_scale": run.loss_scale.state_dict(),
        "frozen": _frozen_checksum(run),
        "start": run.initial_tensors,
        "now": make_restore_point(run, weights).to_state(),
        "guard": run.guard.state_dict(),
        "offers": [made.to_state() for made in run.offers],
    }


def resume_from(run: Run, state: Mapping[str, Any]) -> None:
    """Continue from a state of ``checkpoint_state``."""
    for name in PERMANENT_FIELDS:
        setattr(run, name, state[name])
    point = RestorePoint.from_state(state["now"])
    run.thaw(point.adjustments.thawed)
    if abs(state["frozen"] - _frozen_checksum(run)) > 1e-6 * max(1.0, abs(state["frozen"])):
        raise Defect("the frozen weights", "differ from those of the checkpoint")
    run.continue_clock(state["seconds"])
    run.loss_scale.load_state_dict(state.get("loss_scale", {}))
    run.initial_tensors = same_memory(state["start"], run.job.pretrained)
    run.guard.load_state_dict(state["guard"])
    restore_run(run, point)
    run.guard.best = point.best
    run.offers = [OfferResult.from_state(made) for made in state.get("offers", ())]
    if run.job.advisor is not None and point.advisor is not None:
        run.job.advisor.load_state_dict(point.advisor)
    run.guard.update_verdict()
    decisions = run.job.store.decisions
    restore_journal(run.journal, state["guard"]["journal"], run.step, decisions)


def make_restore_point(run: Run, weights: SavedWeights) -> RestorePoint:
    """A restore point of this moment, with these weights; after the last step without the
    optimizer, since no step follows."""
    optimizer = None if run.finished else run.optimizer
    advisor = run.job.advisor
    return RestorePoint(
        weights=weights,
        previous=run.previous,
        best=run.guard.best,
        position={name: getattr(run, name) for name in POSITION_FIELDS},
        adjustments=run.adjustments,
        optimizer=_optimizer_state(optimizer) if optimizer is not None else None,
        schedule=run.schedule.state_dict() if optimizer is not None else None,
        random=random_state(),
        advisor=advisor.state_dict() if advisor is not None else None,
        listeners={name: keeper.state_dict() for name, keeper in run.stateful_listeners().items()},
    )


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()
    first = next(iter(optimizer.param_groups[0]["params"]), None)
    return local_state(state) if hasattr(first, "to_local") else state


def restore_run(run: Run, point: RestorePoint) -> None:
    """Restore a moment; the run may write into what it is given. The guard restores its own part
    (the best checkpoint, the advisor)."""
    run.optimizer = run.schedule = None
    for name, value in point.position.items():
        setattr(run, name, value)
    # Listeners that are removed may still change weights.
    apply_adjustments(run, point.adjustments)
    run.load_tensors(point.weights.tensors)
    run.previous = point.previous
    if point.optimizer is not None:
        start_phase(run)
        assert run.optimizer is not None
        run.optimizer.load_state_dict(point.optimizer)
        if is_sharded(run.network):
            spread_state(run.optimizer)
        run.schedule.load_state_dict(point.schedule)
    for name, keeper in run.stateful_listeners().items():
        if name in point.listeners:  # an alert may be set while a run is not finished
            keeper.load_state_dict(point.listeners[name])
    set_random_state(point.random)


def end_run(run: Run) -> None:
    """Load the best checkpoint, under the settings of the job; free memory and disk, which scoring
    needs."""
    run.load_tensors(run.best.tensors)
    run.guard.restore_points = {}
    run.release_memory()
    if run.adjustments != NO_ADJUSTMENTS:
        # The plan stays, since the number of steps taken is a fact. So do the layers that were
        # trained in it.
        adjustments = run.adjustments
        apply_adjustments(
            run,
            replace(NO_ADJUSTMENTS, more_steps=adjustments.more_steps, thawed=adjustments.thawed),
        )


def _frozen_checksum(run: Run) -> float:
    """A checksum of what no phase changes; parameters that an action froze temporarily are not part
    of it."""
    with all_trainable(run):
        return run.frozen_sum
