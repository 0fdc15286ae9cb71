"""From a plan to a job for the loop, and where the fit is written while it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from holdfast.contract.fit import RunStart, TrainingPlan
from holdfast.control.stop_rules import StoppingRule
from holdfast.core.records import Decision
from holdfast.data.scratch import goes_with, scratch_file
from holdfast.fits.additions import FitAdditions
from holdfast.fits.checkpoint_rule import choice
from holdfast.fits.duration import seconds_after
from holdfast.fits.policies import controller, stopping_rule
from holdfast.fits.run_facts import make_monitor
from holdfast.methods.optimizers import build_optimizer
from holdfast.methods.schedules.schedules import build_schedule
from holdfast.models.base import Network
from holdfast.models.fresh import own_weights, tensors_of
from holdfast.models.layers import parameter_groups
from holdfast.plan.defaults import method_parts
from holdfast.prepare.sharding import spread
from holdfast.tasks.generation.samples import writer
from holdfast.training.checkpoint import CheckpointStore
from holdfast.training.journal import Journal
from holdfast.training.listeners.examples import ExampleHistory
from holdfast.training.plan import Phase
from holdfast.training.prefix_cache import PrefixCache
from holdfast.training.run import Job

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.core.events import Listener


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
    additions, choose = FitAdditions(ready), choice(ready, of_kind)
    acting = controller(ready, choose, additions)
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
        choose=acting.choose if acting else choose,
        monitor=make_monitor(ready, of_kind),
        advisor=acting or _advisor(ready),
        write=writer(ready.watch, accelerator) if ready.watch else None,
        listeners=(
            *of_kind,
            *_of_methods(ready),
            *_histories(ready, accelerator),
            *place.listeners,
            *listeners,
        ),
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


def _others(
    ready: TrainingPlan, test_rows: int | None, network: Network, device: Any
) -> Callable[[float], float] | None:
    """The seconds of a run beside its steps and passes; ``None`` of a fit that ends with them."""
    # Of a network that is spread over processes all would have to write together.
    if test_rows is None or ready.recipe.train.shard == "full":
        return None

    def seconds(a_row: float) -> float:
        parts = seconds_after(ready, test_rows, network, device, a_row)
        texts = (len(ready.plan.evaluate_at) - 1) * parts.pop("evaluation")
        return texts + sum(parts.values())

    return seconds


def _of_methods(ready: TrainingPlan) -> tuple[Any, ...]:
    """The listeners that methods bring, anew."""
    parts = method_parts(ready.recipe)
    return (*parts.listeners(), *parts.listeners_for(ready.loaded))


def _histories(ready: TrainingPlan, accelerator: Accelerator) -> tuple[ExampleHistory, ...]:
    """The data map of the training rows; a number's loss is no probability, so it has none."""
    if ready.recipe.data.label_kind == "number":
        return ()
    return (ExampleHistory(ready.train.rows, accelerator.num_processes),)


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


def _advisor(ready: TrainingPlan) -> StoppingRule | None:
    return None if ready.recipe.control.policy == "off" else stopping_rule(ready)
