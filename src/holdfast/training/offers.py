"""Weights that a run never had, offered at its end for the state to keep: averages of those it had.

A listener makes them (``core.events.Offers``); here they are put into the network, measured like
any other look, and kept if the run's own rule keeps them as the newest of its looks. What is not
kept was tried all the same, and is written down with the reason.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.events import Offers, in_order
from holdfast.core.records import Decision, Snapshot
from holdfast.training.engine import pack, unpack
from holdfast.training.observe import look_at
from holdfast.training.plan import probe_positions
from holdfast.training.prefix_cache import entered
from holdfast.training.restore import SavedWeights
from holdfast.training.run import Run, learning_norms
from holdfast.training.task import device_batch

if TYPE_CHECKING:
    from torch import nn

    from holdfast.models.base import Network

# Training rows that the running statistics of batch norms are measured on.
STATISTICS_ROWS = 1024
AVERAGE = "average of weights"


@dataclass(frozen=True, slots=True)
class Considered:
    """An offer as it was judged: the listener's ``name``, ``look`` at the weights (``None`` where
    it made none), whether it was ``kept``, and the decision in words."""

    name: str
    look: Snapshot | None
    kept: bool
    decision: Decision

    def to_state(self) -> dict[str, Any]:
        """In types that the weights-only loader reads."""
        told = self.decision
        return {
            "name": self.name,
            "look": pack(self.look) if self.look is not None else None,
            "kept": self.kept,
            "decision": [told.what, told.chosen, told.because, told.prominent],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Considered:
        look = unpack(state["look"]) if state["look"] is not None else None
        return cls(state["name"], look, state["kept"], Decision(*state["decision"]))


def consider(run: Run) -> None:
    """Let each listener that can offer weights, by name, and keep what the run's rule keeps."""
    offering = [one for one in in_order(run.listeners) if isinstance(one, Offers)]
    if not offering or not run.step:
        return
    start = time.perf_counter()
    for one in offering:
        _consider(run, one)
    run.guard.evaluate_s += time.perf_counter() - start


def _consider(run: Run, one: Any) -> None:
    trial = RunTrial(run)
    made = one.offer(run, trial)
    if isinstance(made, str):
        told = Decision(_what(one), f"{one.name}: none", made)
        _note(run, Considered(one.name, None, False, told), ())
        return
    trial.load(made.tensors)
    now = run.learning_tensors()
    look = look_at(run, now)
    before = _loss_before(run)
    allowed = made.within > 0 and look.refined_loss <= before + made.within
    kept = allowed or trial.is_kept(look)
    if kept:
        run.guard.best = SavedWeights(made.step, now)
    words = "kept" if kept else "not kept"
    because = (
        f"{made.made_of}; its {_loss_name(look)} is {look.refined_loss:.4g}, "
        f"the kept state's was {before:.4g}; "
        f"{_by(made.within, allowed, kept)}"
    )
    what = _what(one)
    told = Decision(what, f"{one.name}: {words}", because, prominent=what == AVERAGE)
    _note(run, Considered(one.name, look, kept, told), made.curve)


def _loss_name(look: Snapshot) -> str:
    tempered = look.valid_logits is not None and np.isfinite(look.temperature)
    return "validation loss at its best temperature" if tempered else "validation loss"


def _what(one: object) -> str:
    """What a listener offers: an average, unless it says otherwise."""
    what: str = getattr(one, "what", AVERAGE)
    return what


def _by(within: float, allowed: bool, kept: bool) -> str:
    if allowed:
        return f"within the {within:g} nats that methods.wise.within gives for it"
    rule = "the rule that chooses among the looks (train.keep)"
    return f"{'by' if kept else 'not by'} {rule}"


def _note(run: Run, made: Considered, curve: Sequence[Mapping[str, float | None]]) -> None:
    told, more = made.decision, {"curve": list(curve)} if curve else {}
    run.offers.append(made)
    run.journal.note(run.step, told.what, told.because, chosen=told.chosen, **more)


def _loss_before(run: Run) -> float:
    kept = kept_average(run)
    if kept is not None:
        return kept.refined_loss
    return next(s.refined_loss for s in run.history if s.step == run.best.step)


def kept_average(run: Run) -> Snapshot | None:
    """The look at the average that the run keeps; ``None`` where it keeps a state it was in."""
    return next((made.look for made in reversed(run.offers) if made.kept), None)


class RunTrial:
    """``core.events.Trial`` of a run of the loop, after its last step."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Snapshot:
        self.load(tensors)
        return look_at(self._run, self._run.learning_tensors(), train=False)

    def is_kept(self, look: Snapshot) -> bool:
        run = self._run
        tried = (made.look for made in run.offers if made.look is not None)
        looks = (*run.history, *tried, look)
        return run.job.choose(looks) == len(looks) - 1

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put weights into the network, with statistics and a refitted head of their own."""
        run = self._run
        run.load_tensors(tensors)
        measure_statistics(run)
        if run.phase.head == "refit":
            run.emit("snapshot_due")


def measure_statistics(run: Run) -> None:
    """The running statistics of the batch norms that learn, anew, as the mean over batches of up
    to 1,024 training rows (1803.05407, section 3.2); nothing without such norms."""
    norms = learning_norms(run.network)
    if not norms:
        return
    job, size = run.job, run.phase.rows_per_step
    positions = probe_positions(job.train.rows, STATISTICS_ROWS, run.plan.seed)
    with _averaging(run.network, norms), torch.no_grad(), job.accelerator.autocast():
        # Parts of like size: a batch norm cannot take the statistics of one row left over.
        for rows in np.array_split(positions, -(-len(positions) // size)):
            batch = device_batch(job.task, job.train, rows, job.accelerator.device)
            with entered(job.cache, job.train, rows, batch):
                job.task.forward(run.network, batch)


@contextlib.contextmanager
def _averaging(
    network: Network, norms: Sequence[nn.modules.batchnorm._BatchNorm]
) -> Iterator[None]:
    """The norms alone in training mode, each taking the plain mean of all batches to come."""
    was_training, momenta = network.training, [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
