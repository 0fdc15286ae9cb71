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
from holdfast.control.stop_rules import EndsAt
from holdfast.core.decisions import decisions_to, notify
from holdfast.core.errors import Defect
from holdfast.core.records import Decision, Floats, Ints
from holdfast.data.scratch import goes_with, scratch_file
from holdfast.fits.additions import FitAdditions
from holdfast.fits.compose import make_training_plan
from holdfast.fits.duration import seconds_after_training
from holdfast.fits.policies import deciders, kept_state, start_probe
from holdfast.fits.run_facts import make_monitor
from holdfast.methods.balance import (
    TARGET,
    USUAL,
    Rates,
    asked_target,
    between,
    choose_strength,
    shares_of,
    stated,
)
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.optimizers import build_optimizer, build_schedule
from holdfast.models.base import Network
from holdfast.models.fresh import own_weights, tensors_of
from holdfast.models.layers import parameter_groups
from holdfast.plan.defaults import method_parts
from holdfast.prepare.sharding import gathered, spread
from holdfast.tasks.classes.classifier import classifier, kept_temperature
from holdfast.tasks.classes.side_selection import with_side
from holdfast.tasks.generation.samples import writer
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.listeners.examples import ExampleHistory
from holdfast.training.loop import fit as train
from holdfast.training.machine.machine import make_accelerator
from holdfast.training.observe import FoldEvaluation, FoldLooks
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
    ``Defect`` for positions that are no division: a mask, none at all, of rows that are not there,
    or on both sides.
    Which rows must not be parted (``prepared.units``) is the caller's to respect.
    """
    start = time.perf_counter()
    kept_in = into.kept_in if into else None
    train_rows, valid_rows = (
        _whole("training", train_positions),
        _whole("validation", valid_positions),
    )
    ready = make_training_plan(prepared, train_rows, valid_rows, settings, kept_in)
    return fit_ready(ready, start, into=into, listeners=listeners)


def fit_ready(
    ready: TrainingPlan,
    start: float,
    *,
    into: FitFolder | None = None,
    listeners: Sequence[Listener] = (),
    folds: Callable[[TrainingPlan, Accelerator, FitPlace], FoldEvaluation | FoldLooks]
    | None = None,
) -> FittedModel:
    """A fit from its first step on; it began at ``start`` of the clock. ``folds`` answers the rows
    that a cross-fitted one learns from, once its folder is begun. A fit without a folder is a
    trial: what is decided in it is kept with it, and nobody is notified."""
    with contextlib.nullcontext() if into else decisions_to(None):
        notify(*ready.decisions, *ready.findings)
        accelerator = make_accelerator(ready.recipe.train.precision)
        place = into.begin(ready, accelerator) if into else FitPlace()
        out_of_fold = folds(ready, accelerator, place) if folds else None
        job, of_kind = make_job(ready, accelerator, place, listeners)
        job = replace(job, out_of_fold=out_of_fold)
        if isinstance(out_of_fold, FoldLooks):
            ends = EndsAt(out_of_fold.ends_at, out_of_fold.because)
            job = replace(job, choose=last, advisor=ends)
        until_the_loop = time.perf_counter() - start
        ready, job, trained = gathered(ready, job, train(job, place.resume))
        for tried in trained.offers:
            notify(tried.decision)
        kept = kept_state(ready, of_kind, trained)
        if isinstance(out_of_fold, FoldLooks):
            kept = replace(kept, because=out_of_fold.because)
        job.journal.decide(trained.last_step, kept)
        seconds = until_the_loop + trained.train_s
        fitted = with_side(
            with_rates(FittedModel(ready, job, of_kind, trained, kept, seconds, place.begun))
        )
        for made in late_decisions(fitted):
            job.journal.decide(trained.last_step, made)
        notify(*(fitted.side.findings if fitted.side else ()))
        return fitted


def late_decisions(fitted: FittedModel) -> tuple[Decision, ...]:
    """What was decided of a fit's answers after its state was chosen."""
    probes = [
        Decision("linear probe (baseline)", _used_as(one, fitted.ready), one.because)
        for one in fitted.listeners
        if isinstance(one, HeadRefit) and one.because
    ]
    late = (fitted.rates, fitted.side)
    return (*probes, *(one.decision for one in late if one is not None))


def _used_as(probe: HeadRefit, ready: TrainingPlan) -> str:
    if not probe.first:
        return "baseline"
    if ready.added:
        return f"baseline; the run starts from {start_probe(ready)}"
    return "baseline, and the last layer at step 0"


def averages(fitted: FittedModel) -> tuple[Decision, ...]:
    """What was decided of the averages of weights that the run tried; its journal has them."""
    return tuple(made.decision for made in fitted.trained.offers)


def _whole(name: str, given: Ints | Sequence[int]) -> Ints:
    """Positions as whole numbers: a mask would be read as the rows 0 and 1, and what stands after a
    point cut off."""
    found = np.asarray(given)
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu":
        raise Defect(
            "a fit",
            f"was given {name} rows that are no list of whole numbers, the first row being 0",
            "no row" if not found.size else f"{found.dtype.name} of shape {found.shape}",
            "Of a mask give numpy.flatnonzero(mask)." if found.dtype.kind == "b" else "",
        )
    return found.astype(np.int64)


def with_rates(fitted: FittedModel) -> FittedModel:
    """The fit, its last layer moved to the population that was asked for, where one was.

    The shift is that of calibrated logits: the bias takes it times the temperature by which the
    saved layer is divided.
    """
    target = asked_target(fitted.recipe.methods)
    if target is None:
        return fitted
    ready, temperature = fitted.ready, kept_temperature(fitted)
    classes = ready.prepared.rows.classes
    rows = shares_of(labels_of(ready.train), len(classes))
    found = _rates(fitted, target, classes, rows, temperature)
    if found.moved:
        import torch

        bias = classifier(fitted.network).head.bias
        with torch.no_grad():
            bias.add_(torch.as_tensor(temperature * found.shift, dtype=bias.dtype).to(bias.device))
    return replace(fitted, rates=found)


def _rates(
    fitted: FittedModel, target: object, classes: tuple[str, ...], rows: Floats, temperature: float
) -> Rates:
    if isinstance(target, dict):
        return Rates(
            classes, rows, stated(target, classes, TARGET), "the population that you state"
        )
    if target == "rows":
        return Rates(classes, rows, rows, "probabilities are those at the rates of the rows")
    if target == "even":
        return Rates(classes, rows, between(rows, 1.0), "answers are for classes alike frequent")
    if target == "half":
        because = "answers are for rates half of the way to classes alike, for macro-F1"
        return Rates(classes, rows, between(rows, USUAL), because)
    logits = fitted.kept_look.valid_logits
    assert logits is not None
    chosen = choose_strength(
        logits / temperature, labels_of(fitted.ready.valid), rows, seed=fitted.recipe.seed
    )
    return Rates(classes, rows, chosen.target, chosen.because)


@dataclass(frozen=True, slots=True)
class FitPlace:
    """Where a fit is written while it runs: nowhere, unless a run's folder is given.

    ``decisions`` are what the journal begins with; with ``resume`` the newest state in ``store`` is
    continued. ``listeners`` join the loop's own (alerts, trackers). ``begun`` is what the folder
    keeps of the run's beginning. ``test_rows`` are to be scored at the end.
    """

    journal: Journal = field(default_factory=lambda: Journal(None))
    store: CheckpointStore = field(default_factory=lambda: CheckpointStore(None))
    kept_in: Path | None = None
    resume: bool = False
    decisions: Sequence[Decision] = ()
    listeners: Sequence[Any] = ()
    begun: RunStart | None = None
    test_rows: int | None = None


class FitFolder(Protocol):
    """What a fit asks of the folder that it is written into, a run's (``runs.start.RunFolder``)
    or none."""

    @property
    def kept_in(self) -> Path:
        """What goes when the run is finished lies here."""

    def begin(self, ready: TrainingPlan, accelerator: Accelerator) -> FitPlace:
        """Write down what the run begins with. Raises ``RunError`` where a run that is continued
        began with other rows or settings."""


def make_job(
    ready: TrainingPlan,
    accelerator: Accelerator,
    place: FitPlace | None = None,
    listeners: Sequence[Listener] = (),
) -> tuple[Job, tuple[Any, ...]]:
    """The loop's job, on a network that may learn now; and the listeners that its kind of task
    brought."""
    place = place or FitPlace()
    of_kind, network = ready.kind.listeners(ready), ready.loaded.network
    additions = FitAdditions(ready)
    choose, advisor = deciders(ready, of_kind, additions)
    if ready.recipe.train.shard == "full":
        spread(network, accelerator, ready.recipe.train.precision)
    else:
        network.to(accelerator.device)
        own_weights(network, ready.prepared.loaded.network)
    job = Job(
        network=network,
        task=ready.task,
        train=ready.train,
        valid=ready.valid,
        plan=ready.plan,
        accelerator=accelerator,
        groups=_groups,
        optimizer=build_optimizer,
        schedule=build_schedule,
        choose=choose,
        monitor=make_monitor(ready, of_kind),
        advisor=advisor,
        write=writer(ready.watch, accelerator) if ready.watch else None,
        listeners=(*of_kind, *_listeners(ready, accelerator), *place.listeners, *listeners),
        decisions=place.decisions,
        journal=place.journal,
        store=place.store,
        cache=_cache(ready, place.kept_in),
        pretrained=tensors_of(ready.prepared.loaded.network),
        added=ready.sides.added,
        with_added=ready.sides.with_added,
        additions=additions,
        general=ready.sides.general,
        general_rows=ready.sides.general_rows,
        others_s=_others(ready, place.test_rows, network, accelerator.device),
    )
    return job, of_kind


def _listeners(ready: TrainingPlan, accelerator: Accelerator) -> Iterator[Any]:
    """Those that methods bring, anew, and the data map of the training rows; a number's loss is no
    probability, so it has none."""
    parts = method_parts(ready.recipe)
    yield from parts.listeners()
    yield from parts.listeners_for(ready.loaded)
    if ready.recipe.data.label_kind != "number":
        yield ExampleHistory(ready.train.rows, accelerator.num_processes)


def _others(
    ready: TrainingPlan, test_rows: int | None, network: Network, device: torch.device
) -> Callable[[float], float] | None:
    """The seconds of a run beside its steps and passes; ``None`` of a fit that ends with them."""
    # Of a network that is spread over processes all would have to write together.
    if test_rows is None or ready.recipe.train.shard == "full":
        return None

    def seconds(a_row: float) -> float:
        parts = seconds_after_training(ready, test_rows, network, device, a_row)
        texts = (len(ready.plan.evaluate_at) - 1) * parts.pop("evaluation")
        return texts + sum(parts.values())

    return seconds


def _cache(ready: TrainingPlan, folder: Path | None) -> PrefixCache | None:
    """Where the outputs of frozen layers are kept: beside the checkpoints, which go at the end."""
    if ready.prefix is None:
        return None
    if folder is not None:
        return PrefixCache(ready.prefix, folder)
    place = scratch_file("prefix", "")
    cache = PrefixCache(ready.prefix, place)
    goes_with(cache, place)
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
