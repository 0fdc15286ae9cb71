"""Taking a snapshot: the same rows, the same code, each time; of the weights that a run has, and of
weights that it never had, offered at its end for the state to keep: averages of those it had.

A listener makes these (``core.events.Offers``); here they are put into the network, measured like
any other look, and kept if the run's own rule keeps them as the newest of its looks. What is not
kept was tried all the same, and is written down with the reason.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from holdfast.core.events import Offers, in_order
from holdfast.core.records import Decision, Ints, Snapshot, mean_loss
from holdfast.models.network_copy import same_memory
from holdfast.training.engine import pack, unpack
from holdfast.training.machine.sharding import is_sharded, summed
from holdfast.training.plan import probe_positions
from holdfast.training.prefix_cache import entered
from holdfast.training.restore import SavedWeights
from holdfast.training.run import Run, learning_norms
from holdfast.training.task import (
    Measured,
    WrittenMeasurements,
    device_batch,
    measured_fields,
    of_whole_rows,
)

if TYPE_CHECKING:
    from torch import nn

    from holdfast.models.base import Network
    from holdfast.training.task import Examples


NOTHING = WrittenMeasurements({"train": {}, "valid": {}}, {})
NOT_MEASURED = Measured(np.zeros(0), {}, float("nan"), 1.0)


def take_snapshot(run: Run) -> Snapshot:
    """Measure the train probe and the validation rows, and how far the weights have moved."""
    now = run.learning_tensors()
    if not run.guard.snapshots:
        # Copies of the weights are the largest thing beside the model, so one serves both.
        run.start = run.previous = now = same_memory(now, run.job.pretrained)
    snapshot = look_at(run, now)
    run.previous, run.gradient_norms = now, []
    return snapshot


def look_at(run: Run, now: Mapping[str, torch.Tensor], train: bool = True) -> Snapshot:
    """What the present weights, of which ``now`` is a copy, give; without ``train`` on the
    validation rows alone. Nothing of the run is changed."""
    probe = measure(run, run.job.train, run.probe) if train else NOT_MEASURED
    valid = judged(run)
    run.observer.forget()
    general = _general(run)
    written = run.job.write(run.network) if run.job.write else NOTHING
    probe = replace(probe, metrics={**probe.metrics, **written.metrics["train"]})
    valid = replace(valid, metrics={**valid.metrics, **written.metrics["valid"]})
    weights = run.learning_parameters()

    def total(values: Sequence[float]) -> Sequence[float]:
        """Sums over this process's parts of the weights as those over the weights."""
        return summed(run.job.accelerator, values) if is_sharded(run.network) else values

    moved, distance = (
        moved_share(weights, now, before, total) for before in (run.previous, run.start)
    )
    norms = run.gradient_norms
    return Snapshot(
        step=run.step,
        epoch=round(run.epoch, 6),
        examples_seen=run.examples_seen,
        phase=run.phase.name if run.step else "start",
        **measured_fields(probe, valid),
        learning_rate=run.learning_rate,
        gradient_norm=float(np.mean(norms)) if norms else None,
        relative_update=moved if run.step else None,
        distance=distance,
        seconds=run.seconds,
        general_loss=None if general is None else mean_loss(general.losses, general.tokens),
        general_losses=None if general is None else general.losses,
        outputs=written.shares or None,
        # Where a run takes more steps than it was to take, what earlier looks saw stays as it was.
        planned_steps=run.plan.steps if run.adjustments.more_steps else None,
        branch=run.guard.branch,
        general_tokens=None if general is None else general.tokens,
    )


def judged(run: Run) -> Measured:
    """The validation rows: through the present model, or as the folds' networks answered them."""
    valid, folds = run.job.valid, run.job.out_of_fold
    if folds is None:
        return measure(run, valid, np.arange(len(valid)))
    return folds.measured(run.step, run.job.task, valid)


def _general(run: Run) -> Measured | None:
    """The general probe, where there is one; its rows whole, however many examples they are."""
    examples = run.job.general
    if examples is None:
        return None
    seen = measure(run, examples, np.arange(len(examples)))
    if seen.tokens is None:
        return seen
    losses, tokens = of_whole_rows(seen.losses, seen.tokens, np.asarray(examples.rows))
    return replace(seen, losses=losses, tokens=tokens)


def measure(run: Run, examples: Examples, positions: Ints) -> Measured:
    """These rows through the present model in evaluation mode, to numbers."""
    losses, kept = run.observer.measure(run.network, examples, positions)
    return run.job.task.measure(losses, kept, examples, positions)


def moved_share(
    names: Iterable[str],
    now: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
    total: Callable[[Sequence[float]], Sequence[float]] = lambda values: values,
) -> float:
    """‖now − before‖ ÷ ‖before‖ over the tensors of these names; 0 when there are none. ``total``
    adds squares up over processes that hold a part each."""
    names = list(names)
    difference = sum(float((now[n] - before[n]).norm()) ** 2 for n in names)
    size = sum(float(before[n].norm()) ** 2 for n in names)
    difference, size = total([difference, size])
    return float(np.sqrt(difference / size)) if size else 0.0


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
    tempered = look.valid_logits is not None and np.isfinite(look.temperature)
    by = "the rule that chooses among the looks (train.keep)"
    because = (
        f"{made.made_of}; its validation loss{' at its best temperature' if tempered else ''} is "
        f"{look.refined_loss:.4g}, the kept state's was {before:.4g}; "
    )
    if allowed:
        because += f"within the {made.within:g} nats that methods.wise.within gives for it"
    else:
        because += f"{'by' if kept else 'not by'} {by}"
    what = _what(one)
    told = Decision(what, f"{one.name}: {words}", because, prominent=what == AVERAGE)
    _note(run, Considered(one.name, look, kept, told), made.curve)


def _what(one: object) -> str:
    """What a listener offers: an average, unless it says otherwise."""
    what: str = getattr(one, "what", AVERAGE)
    return what


def _note(run: Run, made: Considered, curve: Sequence[Mapping[str, float | None]]) -> None:
    run.offers.append(made)
    run.journal.note_decisions(run.step, made.decision, **({"curve": list(curve)} if curve else {}))


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
