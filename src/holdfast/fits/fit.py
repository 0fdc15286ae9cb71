"""One fit: rows by position and settings in, a trained model as a value out; by a job for the loop,
which is written to a folder while it runs, or to none.

For which rates of the classes a fit's answers are: the last step of ``methods.balance``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData, RunStart, TrainingPlan
from holdfast.control.choice import last
from holdfast.control.stop_rules import StopAtStep
from holdfast.core.decisions import decisions_to, notify
from holdfast.core.errors import Defect
from holdfast.core.records import Decision, Floats, Ints
from holdfast.data.scratch import remove_with, scratch_file
from holdfast.fits.additions import FitAdditions
from holdfast.fits.compose import make_training_plan
from holdfast.fits.duration import seconds_after_training
from holdfast.fits.policies import checkpoint_decision, deciders, start_probe
from holdfast.fits.run_facts import make_monitor
from holdfast.methods.balance import (
    TARGET,
    USUAL,
    Rates,
    choose_strength,
    class_shares,
    stated_rates,
    target_setting,
    tempered_rates,
)
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.optimizers import build_optimizer, build_schedule
from holdfast.models.base import Network
from holdfast.models.layers import parameter_groups
from holdfast.models.network_copy import detach_trainable, tensors_of
from holdfast.plan.defaults import method_parts
from holdfast.prepare.sharding import gather_model, shard_network
from holdfast.tasks.classes.classifier import classifier, kept_temperature
from holdfast.tasks.classes.extra_features_selection import with_side
from holdfast.tasks.generation.samples import writer
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.listeners.examples import ExampleHistory
from holdfast.training.loop import fit as train
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.observe import FoldEvaluation, FoldMeasurements
from holdfast.training.plan import Phase
from holdfast.training.prefix_cache import PrefixCache
from holdfast.training.run import Job
from holdfast.training.task import labels_of

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from holdfast.core.events import Listener


def fit(
    prepared: PreparedData,
    train_positions: Ints | Sequence[int],
    valid_positions: Ints | Sequence[int],
    settings: Mapping[str, object] | Sequence[str] = (),
    *,
    into: FitFolder | None = None,
    listeners: Sequence[Listener] = (),
) -> FittedModel:
    """Train on the rows at ``train_positions`` of what is prepared, judged by those at
    ``valid_positions``, and keep the best state.

    A fit is a value: it begins with the weights that were loaded, reads no file, loads no model and
    encodes no row, and what it gives is, bit for bit, what a process of its own gives that prepares
    the same. No fit sees another. ``settings`` are its own (``{"train.epochs": 5}``); what they and
    the recipe leave open is worked out from these training rows.

    ``into`` is the run's folder where it is written as it goes, so that it can be resumed; without
    it nothing is. ``listeners`` join the loop's own.

    Raises ``RecipeError`` for settings that cannot be followed, ``MachineError`` where memory does
    not suffice, ``TrainingError`` where a loss is no number, ``Interrupted`` where the user stops,
    ``Defect`` for positions that are no split: a mask, none at all, of rows that are not there,
    or in both splits.
    Which rows must not be parted (``prepared.units``) is the caller's to respect.
    """
    start = time.perf_counter()
    checkpoints = into.checkpoints if into else None
    train_rows, valid_rows = (
        _checked_positions("training", train_positions),
        _checked_positions("validation", valid_positions),
    )
    training_plan = make_training_plan(prepared, train_rows, valid_rows, settings, checkpoints)
    return run_fit(training_plan, start, into=into, listeners=listeners)


def run_fit(
    training_plan: TrainingPlan,
    start: float,
    *,
    into: FitFolder | None = None,
    listeners: Sequence[Listener] = (),
    folds: Callable[[TrainingPlan, Accelerator, FitPlace], FoldEvaluation | FoldMeasurements]
    | None = None,
) -> FittedModel:
    """A fit from its first step on; it began at ``start`` of the clock. ``folds`` answers the rows
    that a cross-fitted one learns from, once its folder is begun. A fit without a folder is a
    trial: what is decided in it is kept with it, and nobody is notified."""
    with contextlib.nullcontext() if into else decisions_to(None):
        notify(*training_plan.decisions, *training_plan.findings)
        accelerator = make_accelerator(training_plan.recipe.train.precision)
        place = into.begin(training_plan, accelerator) if into else FitPlace()
        out_of_fold = folds(training_plan, accelerator, place) if folds else None
        job, task_listeners = make_job(training_plan, accelerator, place, listeners)
        job = replace(job, out_of_fold=out_of_fold)
        if isinstance(out_of_fold, FoldMeasurements):
            end_rule = StopAtStep(out_of_fold.ends_at, out_of_fold.because)
            job = replace(job, choose=last, advisor=end_rule)
        setup_seconds = time.perf_counter() - start
        training_plan, job, trained = gather_model(training_plan, job, train(job, place.resume))
        for offer in trained.offers:
            notify(offer.decision)
        decision = checkpoint_decision(training_plan, task_listeners, trained)
        if isinstance(out_of_fold, FoldMeasurements):
            decision = replace(decision, because=out_of_fold.because)
        job.journal.decide(trained.last_step, decision)
        seconds = setup_seconds + trained.train_s
        fitted = with_side(
            with_target_rates(
                FittedModel(
                    training_plan, job, task_listeners, trained, decision, seconds, place.run_start
                )
            )
        )
        for late_decision in late_decisions(fitted):
            job.journal.decide(trained.last_step, late_decision)
        notify(*(fitted.extra_features.findings if fitted.extra_features else ()))
        return fitted


def late_decisions(fitted: FittedModel) -> tuple[Decision, ...]:
    """What was decided of a fit's answers after its state was chosen."""
    probes = [
        Decision("linear probe (baseline)", _probe_use(one, fitted.training_plan), one.because)
        for one in fitted.listeners
        if isinstance(one, HeadRefit) and one.because
    ]
    later = (fitted.rates, fitted.extra_features)
    return (*probes, *(one.decision for one in later if one is not None))


def _probe_use(probe: HeadRefit, training_plan: TrainingPlan) -> str:
    if not probe.first:
        return "baseline"
    if training_plan.added:
        return f"baseline; the run starts from {start_probe(training_plan)}"
    return "baseline, and the last layer at step 0"


def average_decisions(fitted: FittedModel) -> tuple[Decision, ...]:
    """What was decided of the averages of weights that the run tried; its journal has them."""
    return tuple(offer.decision for offer in fitted.trained.offers)


def _checked_positions(name: str, given: Ints | Sequence[int]) -> Ints:
    """Positions as whole numbers: a mask would be read as the rows 0 and 1, and what stands after a
    point cut off."""
    positions = np.asarray(given)
    if positions.ndim != 1 or not len(positions) or positions.dtype.kind not in "iu":
        raise Defect(
            "a fit",
            f"was given {name} rows that are no list of whole numbers, the first row being 0",
            "no row"
            if not positions.size
            else f"{positions.dtype.name} of shape {positions.shape}",
            "Of a mask give numpy.flatnonzero(mask)." if positions.dtype.kind == "b" else "",
        )
    return positions.astype(np.int64)


def with_target_rates(fitted: FittedModel) -> FittedModel:
    """The fit, its last layer moved to the population that was requested, where one was.

    The shift is that of calibrated logits: the bias takes it times the temperature by which the
    saved layer is divided.
    """
    target = target_setting(fitted.recipe.methods)
    if target is None:
        return fitted
    training_plan, temperature = fitted.training_plan, kept_temperature(fitted)
    classes = training_plan.prepared.rows.classes
    row_shares = class_shares(labels_of(training_plan.train), len(classes))
    rates = _target_rates(fitted, target, classes, row_shares, temperature)
    if rates.is_moved:
        import torch

        bias = classifier(fitted.network).head.bias
        with torch.no_grad():
            bias.add_(torch.as_tensor(temperature * rates.shift, dtype=bias.dtype).to(bias.device))
    return replace(fitted, rates=rates)


def _target_rates(
    fitted: FittedModel,
    target: object,
    classes: tuple[str, ...],
    row_shares: Floats,
    temperature: float,
) -> Rates:
    if isinstance(target, dict):
        return Rates(
            classes,
            row_shares,
            stated_rates(target, classes, TARGET),
            "the population that you state",
        )
    if target == "rows":
        return Rates(
            classes, row_shares, row_shares, "probabilities are those at the rates of the rows"
        )
    if target == "even":
        return Rates(
            classes,
            row_shares,
            tempered_rates(row_shares, 1.0),
            "answers are for classes alike frequent",
        )
    if target == "half":
        because = "answers are for rates half of the way to classes alike, for macro-F1"
        return Rates(classes, row_shares, tempered_rates(row_shares, USUAL), because)
    logits = fitted.best_evaluation.valid_logits
    assert logits is not None
    strength = choose_strength(
        logits / temperature,
        labels_of(fitted.training_plan.valid),
        row_shares,
        seed=fitted.recipe.seed,
    )
    return Rates(classes, row_shares, strength.target, strength.because)


@dataclass(frozen=True, slots=True)
class FitPlace:
    """Where a fit is written while it runs: nowhere, unless a run's folder is given.

    ``decisions`` are what the journal begins with; with ``resume`` the newest state in ``store`` is
    continued. ``listeners`` join the loop's own (alerts, trackers). ``run_start`` is what the
    folder keeps of the run's beginning. ``test_rows`` are to be scored at the end.
    """

    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    checkpoints: Path | None = None
    resume: bool = False
    decisions: Sequence[Decision] = ()
    listeners: Sequence[Any] = ()
    run_start: RunStart | None = None
    test_rows: int | None = None


class FitFolder(Protocol):
    """What a fit asks of the folder that it is written into, a run's (``runs.start.RunFolder``)
    or none."""

    @property
    def checkpoints(self) -> Path:
        """What goes when the run is finished lies here."""

    def begin(self, training_plan: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Write down what the run begins with. Raises ``RunError`` where a run that is continued
        began with other rows or settings."""


def make_job(
    training_plan: TrainingPlan,
    accelerator: Accelerator,
    place: FitPlace | None = None,
    listeners: Sequence[Listener] = (),
) -> tuple[Job, tuple[Any, ...]]:
    """The loop's job, on a network that may learn now; and the listeners that its kind of task
    brought."""
    place = place or FitPlace()
    network = training_plan.loaded.network
    task_listeners = training_plan.definition.listeners(training_plan)
    additions = FitAdditions(training_plan)
    choose, advisor = deciders(training_plan, task_listeners, additions)
    _place_network(training_plan, accelerator)
    job = Job(
        network=network,
        task=training_plan.task,
        train=training_plan.train,
        valid=training_plan.valid,
        plan=training_plan.plan,
        accelerator=accelerator,
        groups=_groups,
        optimizer=build_optimizer,
        schedule=build_schedule,
        choose=choose,
        monitor=make_monitor(training_plan, task_listeners),
        advisor=advisor,
        write_texts=writer(training_plan.watch, accelerator) if training_plan.watch else None,
        listeners=(
            *task_listeners,
            *_listeners(training_plan, accelerator),
            *place.listeners,
            *listeners,
        ),
        decisions=place.decisions,
        journal=place.journal,
        store=place.store,
        cache=_prefix_cache(training_plan, place.checkpoints),
        pretrained=tensors_of(training_plan.prepared.loaded.network),
        added_examples=training_plan.splits.added,
        train_with_added=training_plan.splits.with_added,
        additions=additions,
        general_examples=training_plan.splits.general,
        general_replay=training_plan.splits.general_rows,
        overhead_s=_other_seconds(training_plan, place.test_rows, network, accelerator.device),
    )
    return job, task_listeners


def _place_network(training_plan: TrainingPlan, accelerator: Accelerator) -> None:
    """Bring the fit's network to where it learns, spread over the processes or whole; what learns
    shares no memory with the network that was prepared."""
    network = training_plan.loaded.network
    if training_plan.recipe.train.shard == "full":
        shard_network(network, accelerator, training_plan.recipe.train.precision)
    else:
        network.to(accelerator.device)
        detach_trainable(network, training_plan.prepared.loaded.network)


def _listeners(training_plan: TrainingPlan, accelerator: Accelerator) -> Iterator[Any]:
    """Those that methods bring, new for each fit, and the data map of the training rows; a number's
    loss is no probability, so it has none."""
    parts = method_parts(training_plan.recipe)
    yield from parts.listeners()
    yield from parts.listeners_for(training_plan.loaded)
    if training_plan.recipe.data.label_kind != "number":
        yield ExampleHistory(training_plan.train.rows, accelerator.num_processes)


def _other_seconds(
    training_plan: TrainingPlan, test_rows: int | None, network: Network, device: torch.device
) -> Callable[[float], float] | None:
    """The seconds of a run in addition to its steps and passes; ``None`` of a fit that ends with
    them."""
    # Of a network that is spread over processes all would have to write together.
    if test_rows is None or training_plan.recipe.train.shard == "full":
        return None

    def seconds(a_row: float) -> float:
        parts = seconds_after_training(training_plan, test_rows, network, device, a_row)
        texts = (len(training_plan.plan.evaluate_at) - 1) * parts.pop("evaluation")
        return texts + sum(parts.values())

    return seconds


def _prefix_cache(training_plan: TrainingPlan, folder: Path | None) -> PrefixCache | None:
    """Where the outputs of frozen layers are kept: next to the checkpoints, which go at the end."""
    if training_plan.prefix is None:
        return None
    if folder is not None:
        return PrefixCache(training_plan.prefix, folder)
    scratch = scratch_file("prefix", "")
    cache = PrefixCache(training_plan.prefix, scratch)
    remove_with(cache, scratch)
    return cache


def _groups(network: Network, phase: Phase) -> list[dict[str, Any]]:
    groups = parameter_groups(
        network,
        phase.learning_rate,
        weight_decay=phase.weight_decay,
        layer_decay=phase.layer_decay,
        head_learning_rate=phase.head_learning_rate,
    )
    if phase.head == "train":
        return groups
    return [group for group in groups if not group["name"].startswith("head")]
