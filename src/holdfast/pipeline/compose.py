"""From a resolved recipe to a job for the loop: the parts are chosen here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from holdfast.control.stopping import Costs, StoppingRule, planned_learning
from holdfast.core.door import door
from holdfast.core.errors import MachineError, RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.data.scratch import scratch_file
from holdfast.data.table import Splits
from holdfast.methods.optimizers import build_optimizer
from holdfast.methods.schedules import build_schedule
from holdfast.models.activations import checkpoint_activations
from holdfast.models.base import Loaded, Network
from holdfast.models.layers import count_parameters, freeze, parameter_groups
from holdfast.models.onednn import use_onednn
from holdfast.models.quantize import compute_in
from holdfast.pipeline.adapters import adapter_settings, settle_quantize, with_adapter
from holdfast.pipeline.alerts import Alerts
from holdfast.pipeline.attention import choose_attention
from holdfast.pipeline.defaults import (
    filled,
    method_parts,
    phases_of,
    resolve,
    unused,
    unusual,
    usual_rates,
)
from holdfast.pipeline.fits import check_fit, refuse_clearly_too_large
from holdfast.pipeline.folder import CHECKPOINTS
from holdfast.pipeline.frozen import keep_prefix
from holdfast.pipeline.keep import choice, criterion, planned_rates
from holdfast.pipeline.kinds import kind_of
from holdfast.pipeline.kinds.written_samples import WrittenSamples, told, writer
from holdfast.pipeline.names import check_names
from holdfast.pipeline.ready import Kind, Ready
from holdfast.pipeline.run_facts import make_monitor
from holdfast.pipeline.size import model_size
from holdfast.pipeline.task import with_task
from holdfast.recipe import Recipe
from holdfast.tasks.metrics import Metric
from holdfast.training.checkpoint import LEAST_SECONDS, CheckpointStore
from holdfast.training.examples import ExampleHistory
from holdfast.training.journal import Journal
from holdfast.training.machine import MachineChoice, choose_machine, several_on_processor
from holdfast.training.plan import Phase, Plan, check_phase, evaluation_points
from holdfast.training.prefix_cache import PrefixCache
from holdfast.training.run import Job

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_ready(recipe: Recipe, splits: Splits, run: Path | None = None) -> Ready:
    """Load the model, let the machine and the table of defaults decide, encode, and plan."""
    recipe, _ = with_task(recipe)
    kind, machine = kind_of(recipe.task), _machine(recipe)
    recipe = settle_quantize(recipe)
    loaded = with_adapter(kind.load(recipe, splits.train.table), recipe)
    compute_in(loaded.network, machine.precision)
    loaded_at = time.perf_counter()
    total, _ = count_parameters(loaded.network)
    recipe, chosen = _resolved(recipe, loaded, machine, total, len(splits.train))
    changed = _prepared(loaded.network, recipe, machine)
    train, valid = (kind.encode(s.table, loaded, recipe) for s in (splits.train, splits.valid))
    plan, points = _planned(recipe, loaded, total, train, valid)
    refuse_clearly_too_large(loaded.network, plan.phases)
    attention = choose_attention(loaded.network, train, recipe.train.pack)
    metric = _metric(recipe, kind, len(splits.train.table.classes))
    watch = kind.watch(loaded, splits, train, valid, recipe, plan.probe_rows)
    size, oversized = model_size(loaded.network, train)
    task = kind.make_task(loaded, splits.train.table, recipe, metric)
    need, memory, tight = check_fit(loaded.network, task, train, plan.phases, machine.precision)
    kept = keep_prefix(
        recipe.train.cache_frozen,
        loaded.network,
        task,
        train,
        valid,
        plan,
        machine.precision,
        _cache_folder(run),
    )
    recipe = recipe.changed(train={"cache_frozen": kept.setting})
    line = loaded.defaults
    return Ready(
        kind=kind,
        recipe=recipe,
        loaded=loaded,
        task=task,
        train=train,
        valid=valid,
        need=need,
        plan=plan,
        metric=metric,
        loaded_at=loaded_at,
        watch=watch,
        prefix=kept.prefix,
        usual_rates=usual_rates(recipe, total, line),
        decisions=(
            *loaded.decisions,
            *machine.decisions,
            *chosen,
            *changed,
            *kept.decisions,
            *attention,
            size,
            memory,
            points,
            *_told(recipe, watch, train, plan),
        ),
        findings=(
            *unusual(recipe, total, line),
            *unused(recipe, plan.phases),
            *oversized,
            *tight,
            *kind.notices(train, loaded),
        ),
    )


def _machine(recipe: Recipe) -> MachineChoice:
    wanted, pictures = recipe.train, recipe.task == "image-classification"
    return choose_machine(wanted.threads, wanted.precision, wanted.matmul, one_size=pictures)


def _resolved(
    recipe: Recipe, loaded: Loaded, machine: MachineChoice, parameters: int, rows: int
) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with nothing left open, and why."""
    recipe, chosen = resolve(recipe, parameters, rows, loaded.defaults)
    decided = {"threads": machine.threads, "precision": machine.precision, "matmul": machine.matmul}
    model = {"max_length": loaded.max_length, **kind_settings(loaded)}
    recipe = recipe.changed(train=decided, model=model)
    check_names(recipe)
    return recipe, chosen


def _prepared(network: Network, recipe: Recipe, machine: MachineChoice) -> tuple[Decision, ...]:
    """Freeze what does not learn, and change how the network computes, not what."""
    frozen = freeze_part(network, recipe.model.freeze)
    if machine.matmul == "onednn":
        use_onednn(network)
    return (*frozen, *checkpoint_activations(network, recipe.train.checkpoint_activations))


def _planned(
    recipe: Recipe, loaded: Loaded, parameters: int, train: Any, valid: Any
) -> tuple[Plan, Decision]:
    """The phases, and where the run looks at itself."""
    phases = phases_of(recipe, parameters, len(train), loaded.defaults)
    for phase in phases:
        check_phase(phase)
    at, probe, because = evaluation_points(phases, len(train), len(valid), recipe.train.evaluations)
    plan = Plan(phases, at, probe, recipe.seed, recipe.train.max_minutes)
    return plan, Decision("evaluation points", f"{len(at)}", because)


def _told(
    recipe: Recipe, watch: WrittenSamples | None, train: Any, plan: Plan
) -> tuple[Decision, ...]:
    work = sum(phase.steps * phase.rows_per_step for phase in plan.phases)
    return told(recipe, watch, train, len(plan.evaluate_at), work)


def make_job(
    ready: Ready,
    accelerator: Accelerator,
    run: Path | None,
    listeners: Sequence[Any],
    checkpoint_every_s: float = LEAST_SECONDS,
    notify: Callable[[Decision], None] = lambda _: None,
    decisions: Sequence[Decision] = (),
    findings: Sequence[Finding] = (),
    mark: str = "",
    begun: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Job, tuple[Any, ...]]:
    """The loop's job, and the listeners that its kind of task brought; ``decisions`` are what the
    journal begins with, ``findings`` those of the audit and the division, ``mark`` and ``begun``
    what checkpoints carry of the run (see ``pipeline.begun``)."""
    own = ready.kind.listeners(ready)
    writes = accelerator.is_main_process
    ready.loaded.network.to(accelerator.device)
    job = Job(
        network=ready.loaded.network,
        task=ready.task,
        train=ready.train,
        valid=ready.valid,
        plan=ready.plan,
        accelerator=accelerator,
        groups=_groups,
        optimizer=build_optimizer,
        schedule=build_schedule,
        choose=choice(ready, own),
        monitor=make_monitor(ready, own, findings),
        advisor=_advisor(ready),
        write=writer(ready.watch, accelerator) if ready.watch else None,
        listeners=(
            *own,
            *method_parts(ready.recipe).listeners(),
            *_histories(ready, accelerator),
            *_alerts(ready, run if writes else None, notify),
            *listeners,
        ),
        decisions=decisions,
        journal=Journal(run if writes else None),
        store=CheckpointStore(
            run / CHECKPOINTS if run else None, checkpoint_every_s, notify, mark, begun
        ),
        cache=_cache(ready, run),
        notify=notify,
    )
    return job, own


def _histories(ready: Ready, accelerator: Accelerator) -> tuple[ExampleHistory, ...]:
    """The data map of the training rows; a number's loss is no probability, so it has none."""
    if ready.recipe.data.label_kind == "number":
        return ()
    return (ExampleHistory(ready.train.rows, accelerator.num_processes),)


def _alerts(
    ready: Ready, run: Path | None, notify: Callable[[Decision], None]
) -> tuple[Alerts, ...]:
    wanted = ready.recipe.alert
    if run is None or not (wanted.command or wanted.webhook):
        return ()
    return (Alerts(wanted.on, wanted.command, wanted.webhook, run.name, notify),)


def _cache(ready: Ready, run: Path | None) -> PrefixCache | None:
    """Where the outputs of frozen layers are kept: beside the checkpoints, which go at the end."""
    if ready.prefix is None:
        return None
    return PrefixCache(ready.prefix, _cache_folder(run) or scratch_file("prefix", ""))


def _cache_folder(run: Path | None) -> Path | None:
    return run / CHECKPOINTS if run else None


def kind_settings(loaded: Loaded) -> dict[str, Any]:
    """What the loader chose that the recipe must keep."""
    return {**loaded.settings, **adapter_settings(loaded.network)}


def make_accelerator(precision: str) -> Accelerator:
    """Accelerate's view of devices and processes; ``float32`` or ``bfloat16`` autocast.

    Accelerate keeps one state a process and refuses another precision in it; a second run in the
    same process starts that state anew.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    mixed = "bf16" if precision == "bfloat16" else "no"
    known = AcceleratorState._shared_state.get("_mixed_precision", mixed)
    if known != mixed:
        # One precision a process is all that Accelerate allows; the run before this one is over.
        AcceleratorState._reset_state()
    remedy = "Unset those of these variables that hold no value that Accelerate knows."
    with door("ACCELERATE_* and LOCAL_RANK", MachineError, "cannot be followed", remedy):
        return Accelerator(mixed_precision=mixed, cpu=several_on_processor())


def freeze_part(network: Network, what: int | float | str | None) -> tuple[Decision, ...]:
    """Freeze as the recipe says: ``words`` is the word-embedding table, ``none`` nothing."""
    if what not in ("words", "none"):
        decision = freeze(network, what)
        return (decision,) if decision else ()
    freeze(network, None)
    if what == "none":
        return ()
    network.word_embeddings.weight.requires_grad_(False)
    total, trainable = count_parameters(network)
    return (
        Decision(
            "frozen layers",
            "words",
            f"the word-embedding table stays as pretrained: {trainable:,} of {total:,} parameters "
            "learn (model.freeze=none to train all)",
        ),
    )


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


def _advisor(ready: Ready) -> StoppingRule | None:
    wanted = ready.recipe.control
    if wanted.policy == "off":
        return None
    first = ready.plan.phases[0]
    # Such a phase moves the features for the head that follows; it is short, and 18 validation
    # rows of a hundred labelled ones are too few to cut it shorter.
    start = first.steps if first.head == "refit" else 0
    learning = planned_learning(ready.plan.evaluate_at, planned_rates(ready.plan.phases))
    costs = Costs(wanted.worth, wanted.chance)
    return StoppingRule(learning, costs, ready.recipe.train.patience, criterion(ready), start)


def _metric(recipe: Recipe, kind: Kind, classes: int) -> Metric | None:
    name = filled(recipe.train.metric)
    if name in ("refined_loss", "loss"):
        return None
    metric = kind.find_metric(name)
    if metric.two_classes and classes != 2:
        raise RecipeError(
            "train.metric",
            f"is defined for two classes, and there are {classes}",
            name,
            "Choose another, e.g. f1_macro, or leave it out.",
        )
    return metric
