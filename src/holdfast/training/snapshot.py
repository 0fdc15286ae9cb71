"""Snapshots: evaluating the same rows with the same code each time; for the current weights of a
run, and for weights offered at its end as a candidate checkpoint, such as averages.

A listener computes the offered weights (``core.events.Offers``). Here they are loaded into the
network, measured like any other evaluation, and kept if the run's own rule keeps them as the newest
evaluation. An offer that is not kept is recorded with the reason.
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
    """Measure the training sample and the validation rows, and how far the weights have moved."""
    now = run.copy_tensors()
    if not run.guard.snapshots:
        # Copies of the weights are the largest object after the model, so one serves both.
        run.initial_tensors = run.previous = now = same_memory(now, run.job.pretrained)
    snapshot = measure_snapshot(run, now)
    run.previous, run.gradient_norms = now, []
    return snapshot


def measure_snapshot(
    run: Run, tensors: Mapping[str, torch.Tensor], with_probe: bool = True
) -> Snapshot:
    """Measure the current weights, of which ``tensors`` is a copy; without ``with_probe`` only on
    the validation rows. The run is not changed."""
    probe = measure(run, run.job.train, run.probe) if with_probe else NOT_MEASURED
    valid = measure_validation(run)
    run.observer.forget_features()
    general = _measure_general(run)
    written = run.job.write_texts(run.network) if run.job.write_texts else NO_GENERATION
    probe = replace(probe, metrics={**probe.metrics, **written.metrics["train"]})
    valid = replace(valid, metrics={**valid.metrics, **written.metrics["valid"]})
    weights = run.trainable_parameters()

    def total(values: Sequence[float]) -> Sequence[float]:
        """Add up sums over this process's shards to sums over all weights."""
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
        # If a run takes more steps than planned, earlier evaluations keep the plan of their time.
        planned_steps=run.plan.steps if run.adjustments.more_steps else None,
        branch=run.guard.branch,
        general_tokens=None if general is None else general.tokens,
    )


def measure_validation(run: Run) -> Measurements:
    """The validation rows, measured with the current model or from the folds' networks."""
    valid, folds = run.job.valid, run.job.out_of_fold
    if folds is None:
        return measure(run, valid, np.arange(len(valid)))
    return folds.measurements_at(run.step, run.job.task, valid)


def _measure_general(run: Run) -> Measurements | None:
    """The general-text set, where there is one, by its rows, however many examples a row has."""
    examples = run.job.general_examples
    if examples is None:
        return None
    measured = measure(run, examples, np.arange(len(examples)))
    if measured.tokens is None:
        return measured
    losses, tokens = losses_by_row(measured.losses, measured.tokens, np.asarray(examples.rows))
    return replace(measured, losses=losses, tokens=tokens)


def measure(run: Run, examples: Examples, positions: Ints) -> Measurements:
    """Measure these rows with the current model in evaluation mode."""
    losses, outputs = run.observer.measure(run.network, examples, positions)
    return run.job.task.measure(losses, outputs, examples, positions)


def relative_change(
    names: Iterable[str],
    after: Mapping[str, torch.Tensor],
    before: Mapping[str, torch.Tensor],
    total: Callable[[Sequence[float]], Sequence[float]] = lambda values: values,
) -> float:
    """‖now − before‖ ÷ ‖before‖ over the tensors of these names; 0 where there are none. ``total``
    adds up squares over processes that hold a shard each."""
    # One tensor of norms: a GPU is waited for once, not once a tensor.
    pairs = [torch.stack([(after[n] - before[n]).norm(), before[n].norm()]) for n in names]
    if not pairs:
        return 0.0
    difference, size = total(torch.stack(pairs).double().square().sum(dim=0).tolist())
    return float(np.sqrt(difference / size)) if size else 0.0


# Training rows from which the running statistics of batch norms are measured.
STATISTICS_ROWS = 1024
AVERAGE = "average of weights"


@dataclass(frozen=True, slots=True)
class OfferResult:
    """The result of an offer: the listener's ``name``, the ``evaluation`` of the weights (``None``
    where none was offered), whether it was ``accepted``, and the decision in words."""

    name: str
    evaluation: Snapshot | None
    accepted: bool
    decision: Decision

    def to_state(self) -> dict[str, Any]:
        """The result in types that the weights-only loader reads."""
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
    """Evaluate the weights that each listener offers, and keep what the run's rule keeps."""
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
    by = "the rule that chooses the checkpoint (train.checkpoint_selection)"
    because = (
        f"{offer.composition}; its {'calibrated ' if calibrated else ''}validation loss is "
        f"{evaluation.refined_loss:.4g}, that of the best checkpoint was {loss_before:.4g}; "
    )
    if within_tolerance:
        because += f"within the {offer.within:g} nats that methods.wise.within allows"
    else:
        because += f"{'accepted' if accepted else 'rejected'} by {by}"
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
    """The evaluation of the average that the run keeps; ``None`` where it keeps no average."""
    return next((made.evaluation for made in reversed(run.offers) if made.accepted), None)


class RunTrial:
    """The ``core.events.Trial`` of a run of the loop, after its last step."""

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
        """Load weights into the network, with their own statistics and refitted head."""
        run = self._run
        run.load_tensors(tensors)
        measure_statistics(run)
        if run.phase.head == "refit":
            run.emit("snapshot_due")


def measure_statistics(run: Run) -> None:
    """Measure the running statistics of the trainable batch norms again, as the mean over batches
    of up to 1,024 training rows (1803.05407, section 3.2); nothing without such norms."""
    norms = learning_norms(run.network)
    if not norms:
        return
    job, size = run.job, run.phase.rows_per_step
    positions = probe_positions(job.train.rows, STATISTICS_ROWS, run.plan.seed)
    with _averaging(run.network, norms), torch.no_grad(), job.accelerator.autocast():
        # Parts of similar size: a batch norm cannot take the statistics of a single row.
        for rows in np.array_split(positions, -(-len(positions) // size)):
            batch = device_batch(job.task, job.train, rows, job.accelerator.device)
            with cached_prefix(job.cache, job.train, rows, batch):
                job.task.forward(run.network, batch)


@contextlib.contextmanager
def _averaging(
    network: Network, norms: Sequence[nn.modules.batchnorm._BatchNorm]
) -> Iterator[None]:
    """Only the norms in training mode, each taking the plain mean of all following batches."""
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
