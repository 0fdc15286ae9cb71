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

from holdfast.core.events import Offers, order_listeners
from holdfast.core.records import Decision, Ints, Snapshot, mean_loss
from holdfast.models.network_copy import same_memory
from holdfast.training.engine import pack_snapshot, unpack_snapshot
from holdfast.training.machine.sharding import is_sharded, sum_over_processes
from holdfast.training.plan import probe_positions
from holdfast.training.prefix_cache import cached_prefix
from holdfast.training.restore import SavedWeights
from holdfast.training.run import Run, learning_norms
from holdfast.training.task import (
    GenerationMeasurements,
    Measurements,
    device_batch,
    losses_by_row,
    snapshot_fields,
)

if TYPE_CHECKING:
    from torch import nn

    from holdfast.models.base import Network
    from holdfast.training.task import Examples


NO_GENERATION = GenerationMeasurements({"train": {}, "valid": {}}, {})
NOT_MEASURED = Measurements(np.zeros(0), {}, float("nan"), 1.0)


def take_snapshot(run: Run) -> Snapshot:
    """Measure the train probe and the validation rows, and how far the weights have moved."""
    now = run.copy_tensors()
    if not run.guard.snapshots:
        # Copies of the weights are the largest thing beside the model, so one serves both.
        run.initial_tensors = run.previous = now = same_memory(now, run.job.pretrained)
    snapshot = measure_snapshot(run, now)
    run.previous, run.gradient_norms = now, []
    return snapshot


def measure_snapshot(
    run: Run, tensors: Mapping[str, torch.Tensor], with_probe: bool = True
) -> Snapshot:
    """What the present weights, of which ``tensors`` is a copy, give; without ``with_probe`` on the
    validation rows alone. Nothing of the run is changed."""
    probe = measure(run, run.job.train, run.probe) if with_probe else NOT_MEASURED
    valid = measure_validation(run)
    run.observer.forget_features()
    general = _measure_general(run)
    written = run.job.write_texts(run.network) if run.job.write_texts else NO_GENERATION
    probe = replace(probe, metrics={**probe.metrics, **written.metrics["train"]})
    valid = replace(valid, metrics={**valid.metrics, **written.metrics["valid"]})
    weights = run.trainable_parameters()

    def total(values: Sequence[float]) -> Sequence[float]:
        """Sums over this process's parts of the weights as those over the weights."""
        return (
            sum_over_processes(run.job.accelerator, values) if is_sharded(run.network) else values
        )

    relative_update, distance = (
        relative_change(weights, tensors, before, total)
        for before in (run.previous, run.initial_tensors)
    )
    norms = run.gradient_norms
    return Snapshot(
        step=run.step,
        epoch=round(run.epoch, 6),
        examples_seen=run.examples_seen,
        phase=run.phase.name if run.step else "start",
        **snapshot_fields(probe, valid),
        learning_rate=run.learning_rate,
        gradient_norm=float(np.mean(norms)) if norms else None,
        relative_update=relative_update if run.step else None,
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


def measure_validation(run: Run) -> Measurements:
    """The validation rows: through the present model, or as the folds' networks answered them."""
    valid, folds = run.job.valid, run.job.out_of_fold
    if folds is None:
        return measure(run, valid, np.arange(len(valid)))
    return folds.measurements_at(run.step, run.job.task, valid)


def _measure_general(run: Run) -> Measurements | None:
    """The general probe, where there is one; its rows whole, however many examples they are."""
    examples = run.job.general_examples
    if examples is None:
        return None
    measured = measure(run, examples, np.arange(len(examples)))
    if measured.tokens is None:
        return measured
    losses, tokens = losses_by_row(measured.losses, measured.tokens, np.asarray(examples.rows))
    return replace(measured, losses=losses, tokens=tokens)


def measure(run: Run, examples: Examples, positions: Ints) -> Measurements:
    """These rows through the present model in evaluation mode, to numbers."""
    losses, outputs = run.observer.measure(run.network, examples, positions)
    return run.job.task.measure(losses, outputs, examples, positions)


def relative_change(
    names: Iterable[str],
    after: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
    total: Callable[[Sequence[float]], Sequence[float]] = lambda values: values,
) -> float:
    """‖now − before‖ ÷ ‖before‖ over the tensors of these names; 0 when there are none. ``total``
    adds squares up over processes that hold a part each."""
    names = list(names)
    difference = sum(float((after[n] - before[n]).norm()) ** 2 for n in names)
    size = sum(float(before[n].norm()) ** 2 for n in names)
    difference, size = total([difference, size])
    return float(np.sqrt(difference / size)) if size else 0.0


# Training rows that the running statistics of batch norms are measured on.
STATISTICS_ROWS = 1024
AVERAGE = "average of weights"


@dataclass(frozen=True, slots=True)
class OfferResult:
    """An offer as it was judged: the listener's ``name``, ``evaluation`` at the weights (``None``
    where it made none), whether it was ``accepted``, and the decision in words."""

    name: str
    evaluation: Snapshot | None
    accepted: bool
    decision: Decision

    def to_state(self) -> dict[str, Any]:
        """In types that the weights-only loader reads."""
        decision = self.decision
        return {
            "name": self.name,
            "look": pack_snapshot(self.evaluation) if self.evaluation is not None else None,
            "kept": self.accepted,
            "decision": [decision.what, decision.chosen, decision.because, decision.prominent],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> OfferResult:
        evaluation = unpack_snapshot(state["look"]) if state["look"] is not None else None
        return cls(state["name"], evaluation, state["kept"], Decision(*state["decision"]))


def evaluate_offers(run: Run) -> None:
    """Let each listener that can offer weights, by name, and keep what the run's rule keeps."""
    offering_listeners = [one for one in order_listeners(run.listeners) if isinstance(one, Offers)]
    if not offering_listeners or not run.step:
        return
    start = time.perf_counter()
    for one in offering_listeners:
        _evaluate_offer(run, one)
    run.guard.evaluate_s += time.perf_counter() - start


def _evaluate_offer(run: Run, listener: Any) -> None:
    trial = RunTrial(run)
    offer = listener.offer(run, trial)
    if isinstance(offer, str):
        decision = Decision(_offer_kind(listener), f"{listener.name}: none", offer)
        _record_offer(run, OfferResult(listener.name, None, False, decision), ())
        return
    trial.load(offer.tensors)
    tensors = run.copy_tensors()
    evaluation = measure_snapshot(run, tensors)
    loss_before = _best_loss_so_far(run)
    within_tolerance = offer.within > 0 and evaluation.refined_loss <= loss_before + offer.within
    accepted = within_tolerance or trial.would_keep(evaluation)
    if accepted:
        run.guard.best = SavedWeights(offer.step, tensors)
    outcome = "kept" if accepted else "not kept"
    calibrated = evaluation.valid_logits is not None and np.isfinite(evaluation.temperature)
    by = "the rule that chooses among the looks (train.keep)"
    because = (
        f"{offer.composition}; its validation "
        f"loss{' at its best temperature' if calibrated else ''} is "
        f"{evaluation.refined_loss:.4g}, the kept state's was {loss_before:.4g}; "
    )
    if within_tolerance:
        because += f"within the {offer.within:g} nats that methods.wise.within gives for it"
    else:
        because += f"{'by' if accepted else 'not by'} {by}"
    kind = _offer_kind(listener)
    decision = Decision(kind, f"{listener.name}: {outcome}", because, prominent=kind == AVERAGE)
    _record_offer(run, OfferResult(listener.name, evaluation, accepted, decision), offer.curve)


def _offer_kind(listener: object) -> str:
    """What a listener offers: an average, unless it says otherwise."""
    kind: str = getattr(listener, "what", AVERAGE)
    return kind


def _record_offer(
    run: Run, result: OfferResult, curve: Sequence[Mapping[str, float | None]]
) -> None:
    run.offers.append(result)
    run.journal.note_decisions(
        run.step, result.decision, **({"curve": list(curve)} if curve else {})
    )


def _best_loss_so_far(run: Run) -> float:
    average = selected_average(run)
    if average is not None:
        return average.refined_loss
    return next(s.refined_loss for s in run.history if s.step == run.best.step)


def selected_average(run: Run) -> Snapshot | None:
    """The look at the average that the run keeps; ``None`` where it keeps a state it was in."""
    return next((made.evaluation for made in reversed(run.offers) if made.accepted), None)


class RunTrial:
    """``core.events.Trial`` of a run of the loop, after its last step."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, tensors: Mapping[str, torch.Tensor]) -> Snapshot:
        self.load(tensors)
        return measure_snapshot(self._run, self._run.copy_tensors(), with_probe=False)

    def would_keep(self, snapshot: Snapshot) -> bool:
        run = self._run
        offered = (made.evaluation for made in run.offers if made.evaluation is not None)
        evaluations = (*run.history, *offered, snapshot)
        return run.job.choose(evaluations) == len(evaluations) - 1

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
            with cached_prefix(job.cache, job.train, rows, batch):
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
