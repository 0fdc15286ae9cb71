"""One fit: from row positions and settings to a trained model, through a job for the training loop,
which writes to a folder while it runs, or not at all.

Also applies ``methods.balance``: moves predictions to the requested class rates.
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
from holdfast.core.decisions import decisions_in, decisions_to, notify
from holdfast.core.errors import Defect
from holdfast.core.records import Decision, Finding, Floats, Ints
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
from holdfast.stats.temperature import logit_spread
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


# Chosen on 20 runs with 100 and 300 labelled rows, on twelve sets (benchmarks/fold_temperature.py).
SCALE_POWER = 0.75


def fit(
    prepared: PreparedData,
    train_positions: Ints | Sequence[int],
    valid_positions: Ints | Sequence[int],
    settings: Mapping[str, object] | Sequence[str] = (),
    *,
    into: FitFolder | None = None,
    listeners: Sequence[Listener] = (),
) -> FittedModel:
    """Train on the rows at ``train_positions`` of the prepared data, evaluate on those at
    ``valid_positions``, and return the best checkpoint.

    A fit has no side effects on other fits: it begins with the loaded weights, and reads no file,
    loads no model and encodes no row. Its result is bitwise that of a separate process that
    prepares the same data. ``settings`` apply to this fit (``{"train.epochs": 5}``); whatever they
    and the recipe leave open is derived from these training rows.

    ``into`` is the run's folder, written during the fit so that it can be resumed; without it
    nothing is written. ``listeners`` are added to the loop's own.

    Raises ``RecipeError`` for settings that cannot be followed, ``MachineError`` where memory does
    not suffice, ``TrainingError`` where a loss is not finite, ``Interrupted`` where the user stops,
    ``Defect`` for positions that are not a split: a mask, an empty list, rows that do not exist,
    or a row in both splits.
    The caller must keep rows of one unit (``prepared.units``) in the same split.
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
    folds: PredictFolds | None = None,
) -> FittedModel:
    """Run a prepared fit, which began at ``start`` of the clock. ``folds`` predicts the rows of a
    cross-fitted fit, once its folder is begun, and gives the plan to go on with. A fit without a
    folder is a trial: its decisions are kept with it and not reported."""
    with contextlib.nullcontext() if into else decisions_to(None):
        notify(*training_plan.decisions, *training_plan.findings)
        accelerator = make_accelerator(training_plan.recipe.train.precision)
        place = into.begin(training_plan, accelerator) if into else FitPlace()
        out_of_fold = None
        if folds:
            training_plan, out_of_fold = folds(training_plan, accelerator, place)
        job, task_listeners = make_job(
            training_plan, accelerator, place, listeners, acts=folds is None
        )
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
        fitted = FittedModel(
            training_plan, job, task_listeners, trained, decision, seconds, place.run_start
        )
        fitted = with_side(with_target_rates(_with_fold_scale(fitted)))
        for late_decision in late_decisions(fitted):
            job.journal.decide(trained.last_step, late_decision)
        notify(*late_findings(fitted))
        return fitted


def late_decisions(fitted: FittedModel) -> tuple[Decision, ...]:
    """Decisions based on out-of-fold predictions, and those on a fit's predictions that were made
    after its checkpoint was selected."""
    probes = [
        Decision("linear probe (baseline)", _probe_use(one, fitted.training_plan), one.because)
        for one in fitted.listeners
        if isinstance(one, HeadRefit) and one.because
    ]
    scales = []
    if fitted.fold_scale != 1:
        because = (
            "the logits of this model are expected to be so many times as far apart on new rows as "
            "those of the folds' models (by their spread on training rows); the temperature is "
            "fitted to the folds' logits times this"
        )
        scales = [Decision("scale of the folds' logits", f"{fitted.fold_scale:.2f}", because)]
    later = (fitted.rates, fitted.extra_features)
    by_folds = decisions_in(fitted.training_plan.late_notes)
    return (*by_folds, *probes, *scales, *(one.decision for one in later if one is not None))


def late_findings(fitted: FittedModel) -> tuple[Finding, ...]:
    """What a finished fit found in its rows: spikes of the training loss, and what is wrong with
    extra features."""
    histories = (one for one in fitted.job.listeners if isinstance(one, ExampleHistory))
    spikes = filter(None, (one.spike_finding() for one in histories))
    features = fitted.extra_features.findings if fitted.extra_features else ()
    return (*spikes, *features)


def _probe_use(probe: HeadRefit, training_plan: TrainingPlan) -> str:
    if not probe.first:
        return "baseline"
    if training_plan.added:
        return f"baseline; the run starts from {start_probe(training_plan)}"
    return "baseline, and the last layer at step 0"


def average_decisions(fitted: FittedModel) -> tuple[Decision, ...]:
    """Decisions on the averages of weights that the run tested; its journal has them too."""
    return tuple(offer.decision for offer in fitted.trained.offers)


def _checked_positions(name: str, given: Ints | Sequence[int]) -> Ints:
    """Positions as integers. Refuses a mask, which would be read as the rows 0 and 1, and decimals,
    which would be truncated."""
    positions = np.asarray(given)
    if positions.ndim != 1 or not len(positions) or positions.dtype.kind not in "iu":
        raise Defect(
            "a fit",
            f"was given {name} rows that are not a list of integers, counted from 0",
            "no row"
            if not positions.size
            else f"{positions.dtype.name} of shape {positions.shape}",
            "For a mask, give numpy.flatnonzero(mask)." if positions.dtype.kind == "b" else "",
        )
    return positions.astype(np.int64)


def _with_fold_scale(fitted: FittedModel) -> FittedModel:
    """With the scale that brings the folds' logits to those that the network is expected to have on
    new rows: it took more updates, on more rows, and its logits are further apart.

    On rows that a network learned its logits are further apart than on new ones, by a factor
    (``inflation``) that the folds' networks show and that is taken to be this network's too. Its
    spread on new rows is then that on its training sample ÷ the factor; that of the folds is known.
    A part of the difference is justified, because the network is also more accurate than they are:
    the ratio is raised to the power 0.75. The factor is measured at the end of the folds' runs. The
    logits of a checkpoint from the first half of the run, where less is learned by heart, are not
    scaled.
    """
    folds, training_plan, trained = fitted.job.out_of_fold, fitted.training_plan, fitted.trained
    if not isinstance(folds, FoldEvaluation) or not np.isfinite(folds.inflation):
        return fitted
    if trained.best_step < trained.last_step / 2:
        return fitted
    logits = fitted.measure(training_plan.train, training_plan.probe)[1]
    own, of_folds = logit_spread(logits), logit_spread(fitted.valid_logits)
    # A network that has learned nothing yet predicts the same for every class.
    is_known = own and of_folds and folds.inflation
    scale = (own / folds.inflation / of_folds) ** SCALE_POWER if is_known else 1.0
    # The last layer may yet be moved.
    return replace(fitted, fold_scale=scale, measurements={})


def with_target_rates(fitted: FittedModel) -> FittedModel:
    """The fit with its last layer adjusted to the requested class rates, where some were requested.

    The shift applies to calibrated logits: the bias takes it multiplied by the temperature by which
    the saved layer is divided.
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
            "the class rates set in the recipe",
        )
    if target == "rows":
        return Rates(
            classes, row_shares, row_shares, "predicted probabilities keep the rates of the rows"
        )
    if target == "even":
        return Rates(
            classes,
            row_shares,
            tempered_rates(row_shares, 1.0),
            "predictions assume equally frequent classes",
        )
    if target == "half":
        because = "predictions assume rates halfway to equally frequent classes, for macro F1"
        return Rates(classes, row_shares, tempered_rates(row_shares, USUAL), because)
    strength = choose_strength(
        fitted.valid_logits / temperature,
        labels_of(fitted.training_plan.valid),
        row_shares,
        seed=fitted.recipe.seed,
    )
    return Rates(classes, row_shares, strength.target, strength.because)


@dataclass(frozen=True, slots=True)
class FitPlace:
    """Where a fit is written while it runs: nowhere, unless a run's folder is given.

    ``decisions`` begin the journal; with ``resume`` the newest checkpoint in ``store`` is
    continued. ``listeners`` are added to the loop's own (alerts, trackers). ``run_start`` is the
    folder's record of the run's beginning. ``test_rows`` are to be scored at the end.
    """

    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    checkpoints: Path | None = None
    resume: bool = False
    decisions: Sequence[Decision] = ()
    listeners: Sequence[Any] = ()
    run_start: RunStart | None = None
    test_rows: int | None = None


class PredictFolds(Protocol):
    """Predicts the rows of a cross-fitted fit by the networks of its folds."""

    def __call__(
        self, training_plan: TrainingPlan, accelerator: Accelerator, place: FitPlace, /
    ) -> tuple[TrainingPlan, FoldEvaluation | FoldMeasurements]: ...


class FitFolder(Protocol):
    """The folder that a fit writes into, as the fit uses it: a run's (``runs.start.RunFolder``)."""

    @property
    def checkpoints(self) -> Path:
        """The folder of files that are removed when the run is finished."""

    def begun_trials(self) -> Sequence[Mapping[str, Any]] | None:
        """The trials of a resumed fit; ``None`` where none began."""

    def begin(self, training_plan: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Record what the run begins with. Raises ``RunError`` where a resumed run began with other
        rows or settings."""


def make_job(
    training_plan: TrainingPlan,
    accelerator: Accelerator,
    place: FitPlace | None = None,
    listeners: Sequence[Listener] = (),
    *,
    acts: bool = True,
) -> tuple[Job, tuple[Any, ...]]:
    """The loop's job, on a trainable network, and the listeners of its task. ``acts``: whether a
    policy may change the run by its evaluations."""
    place = place or FitPlace()
    network = training_plan.loaded.network
    task_listeners = training_plan.definition.listeners(training_plan)
    additions = FitAdditions(training_plan)
    choose, advisor = deciders(training_plan, task_listeners, additions, acts=acts)
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
        monitor=make_monitor(training_plan, task_listeners, advisor),
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
    """Move the fit's network to its device, sharded or not; trained weights share no memory with
    the prepared network."""
    network = training_plan.loaded.network
    if training_plan.recipe.train.shard == "full":
        shard_network(network, accelerator, training_plan.recipe.train.precision)
    else:
        network.to(accelerator.device)
        detach_trainable(network, training_plan.prepared.loaded.network)


def _listeners(training_plan: TrainingPlan, accelerator: Accelerator) -> Iterator[Any]:
    """New listeners of the methods for each fit, and the data map of the training rows; none for
    numbers, whose loss is not a probability."""
    parts = method_parts(training_plan.recipe)
    yield from parts.listeners()
    yield from parts.listeners_for(training_plan.loaded)
    if training_plan.recipe.data.label_kind != "number":
        yield ExampleHistory(training_plan.train.rows, accelerator.num_processes)


def _other_seconds(
    training_plan: TrainingPlan, test_rows: int | None, network: Network, device: torch.device
) -> Callable[[float], float] | None:
    """A function for the seconds of a run in addition to its steps and passes; ``None`` for a fit
    that ends with them."""
    # With a sharded network all processes would have to generate together.
    if test_rows is None or training_plan.recipe.train.shard == "full":
        return None

    def seconds(a_row: float) -> float:
        parts = seconds_after_training(training_plan, test_rows, network, device, a_row)
        texts = (len(training_plan.plan.evaluate_at) - 1) * parts.pop("evaluation")
        return texts + sum(parts.values())

    return seconds


def _prefix_cache(training_plan: TrainingPlan, folder: Path | None) -> PrefixCache | None:
    """The cache for outputs of frozen layers, next to the checkpoints, which are removed at the
    end."""
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
