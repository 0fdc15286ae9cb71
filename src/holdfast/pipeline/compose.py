"""From a resolved recipe to a job for the loop: the parts are chosen here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.control.choice import Choose, lowest, newest_unless_worse
from holdfast.control.patience import Patience
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Snapshot
from holdfast.data.table import Splits
from holdfast.methods.optimizers import OPTIMIZERS, build_optimizer
from holdfast.methods.schedules import SCHEDULES, build_schedule
from holdfast.models.activations import checkpoint_activations
from holdfast.models.causal import CausalNetwork
from holdfast.models.layers import count_parameters, freeze, parameter_groups
from holdfast.models.onednn import use_onednn
from holdfast.monitor.plain import plain_rule
from holdfast.pipeline.adapters import adapter_settings, with_adapter
from holdfast.pipeline.defaults import filled, phases_of, resolve, unusual
from holdfast.pipeline.fits import check_fit
from holdfast.pipeline.kinds import kind_of
from holdfast.pipeline.ready import Kind, Ready
from holdfast.pipeline.size import model_size
from holdfast.recipe import Recipe
from holdfast.tasks.metrics import Metric
from holdfast.train.checkpoint import LEAST_SECONDS, CheckpointStore
from holdfast.train.journal import Journal
from holdfast.train.machine import choose_machine, several_on_processor
from holdfast.train.plan import Phase, Plan, check_phase, evaluation_points
from holdfast.train.run import Job

if TYPE_CHECKING:
    from accelerate import Accelerator

SHORT_TOKENS = 256


def make_ready(recipe: Recipe, splits: Splits) -> Ready:
    """Load the model, let the machine and the table of defaults decide, encode, and plan."""
    kind, wanted = kind_of(recipe.task), recipe.train
    machine = choose_machine(wanted.threads, wanted.precision, wanted.matmul)
    loaded = with_adapter(kind.load(recipe, splits.train.table), recipe)
    loaded_at = time.perf_counter()
    total, _ = count_parameters(loaded.network)
    line = getattr(loaded, "line", None)
    recipe, chosen = resolve(recipe, total, len(splits.train), line)
    recipe = recipe.changed(
        train={
            "threads": machine.threads,
            "precision": machine.precision,
            "matmul": machine.matmul,
        },
        model={"max_length": loaded.max_length, **kind_settings(loaded)},
    )
    frozen = freeze_part(loaded.network, recipe.model.freeze)
    if machine.matmul == "onednn":
        use_onednn(loaded.network)
    saving = checkpoint_activations(loaded.network, recipe.train.checkpoint_activations)
    train, valid = (kind.encode(s.table, loaded, recipe) for s in (splits.train, splits.valid))
    _check_names(recipe)
    phases = phases_of(recipe, total, len(train), line)
    for phase in phases:
        check_phase(phase)
    at, probe, because = evaluation_points(phases, len(train), len(valid), recipe.train.evaluations)
    attention = _choose_attention(loaded.network, train, recipe.train.pack)
    metric = _metric(recipe, kind, len(splits.train.table.classes))
    size, oversized = model_size(loaded.network, train)
    task = kind.make_task(loaded, splits.train.table, recipe, metric)
    need, memory, tight = check_fit(loaded.network, task, train, phases, machine.precision)
    decisions = (
        *loaded.decisions, *machine.decisions, *chosen, *frozen, *saving, *attention, size, memory,
        Decision("evaluation points", f"{len(at)}", because),
    )  # fmt: skip
    return Ready(
        kind=kind, recipe=recipe, loaded=loaded, task=task, train=train, valid=valid, need=need,
        plan=Plan(phases, at, probe, recipe.seed, recipe.train.max_minutes),
        decisions=decisions,
        findings=(*unusual(recipe, total, line), *oversized, *tight, *kind.notices(train, loaded)),
        metric=metric, loaded_at=loaded_at,
    )  # fmt: skip


def _check_names(recipe: Recipe) -> None:
    """Refuse an unknown optimizer or schedule before anything is written."""
    OPTIMIZERS[filled(recipe.train.optimizer)]
    SCHEDULES[filled(recipe.train.schedule)]


def make_job(
    ready: Ready, accelerator: Accelerator, run: Path | None, listeners: Sequence[Any],
    checkpoint_every_s: float = LEAST_SECONDS, tell: Callable[[Decision], None] = lambda _: None,
    decisions: Sequence[Decision] = (),
) -> tuple[Job, tuple[Any, ...]]:  # fmt: skip
    """The loop's job, and the listeners that its kind of task brought; ``decisions`` are what the
    journal begins with."""
    own = ready.kind.listeners(ready)
    writes = accelerator.is_main_process
    ready.loaded.network.to(accelerator.device)
    job = Job(
        network=ready.loaded.network, task=ready.task, train=ready.train, valid=ready.valid,
        plan=ready.plan, accelerator=accelerator, groups=_groups, optimizer=build_optimizer,
        schedule=build_schedule, choose=choice(ready), monitor=plain_rule,
        advisor=_advisor(ready), terms={p.name: ready.kind.terms(p) for p in ready.plan.phases},
        listeners=(*own, *listeners), decisions=decisions,
        journal=Journal(run if writes else None),
        store=CheckpointStore(run / "checkpoints" if run else None, checkpoint_every_s, tell),
    )  # fmt: skip
    return job, own


def kind_settings(loaded: Any) -> dict[str, Any]:
    """What the loader chose that the recipe must keep."""
    pooling = getattr(loaded.network, "pooling", None)
    own = {"pooling": pooling} if pooling else {}
    return {**own, **getattr(loaded, "settings", {}), **adapter_settings(loaded.network)}


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
    return Accelerator(mixed_precision=mixed, cpu=several_on_processor())


def choice(ready: Ready) -> Choose:
    """Which state the run keeps, by ``train.keep``."""
    newest = filled(ready.recipe.train.keep) == "newest_unless_worse"
    return newest_unless_worse if newest else lowest(criterion(ready))


def criterion(ready: Ready) -> Callable[[Snapshot], float]:
    """A snapshot to a number, smaller is better, by ``train.metric``.

    ``refined_loss`` and ``loss`` are as they are; a metric that rises is negated. Where the metric
    ties (accuracy often does on few rows) or is undefined, the refined loss decides.
    """
    name = filled(ready.recipe.train.metric)
    if name == "refined_loss":
        return lambda snapshot: snapshot.refined_loss + 1e-6 * snapshot.valid_loss
    if name == "loss":
        return lambda snapshot: snapshot.valid_loss
    metric = ready.metric
    assert metric is not None
    sign = -1.0 if metric.higher_is_better else 1.0
    return lambda s: sign * s.valid_metrics[metric.name] + 1e-6 * s.refined_loss


def freeze_part(network: Any, what: int | float | str | None) -> tuple[Decision, ...]:
    """Freeze as the recipe says: ``words`` is the word-embedding table, ``none`` nothing."""
    if what not in ("words", "none"):
        decision = freeze(network, what)
        return (decision,) if decision else ()
    freeze(network, None)
    if what == "none":
        return ()
    network.word_embeddings.weight.requires_grad_(False)
    total, trainable = count_parameters(network)
    return (Decision(
        "frozen layers", "words",
        f"the word-embedding table stays as pretrained: {trainable:,} of {total:,} parameters "
        "learn (model.freeze=none to train all)",
    ),)  # fmt: skip


def _groups(network: Any, phase: Phase) -> list[dict[str, Any]]:
    groups = parameter_groups(
        network, phase.learning_rate, weight_decay=phase.weight_decay,
        layer_decay=phase.layer_decay, head_learning_rate=phase.head_learning_rate,
    )  # fmt: skip
    if phase.head == "train":
        return groups
    return [group for group in groups if not group["name"].startswith("head")]


def _advisor(ready: Ready) -> Patience | None:
    if ready.recipe.control.policy == "off":
        return None
    first = ready.plan.phases[0]
    start = first.steps if first.loss == "contrast" and len(ready.plan.phases) > 1 else 0
    return Patience(ready.recipe.train.patience, criterion(ready), start)


def _metric(recipe: Recipe, kind: Kind, classes: int) -> Metric | None:
    name = filled(recipe.train.metric)
    if name in ("refined_loss", "loss"):
        return None
    metric = kind.find_metric(name)
    if metric.two_classes and classes != 2:
        raise RecipeError(
            "train.metric", f"is defined for two classes, and there are {classes}", name,
            "Choose another, e.g. f1_macro, or leave it out.",
        )  # fmt: skip
    return metric


def _choose_attention(network: Any, train: Any, packed: bool) -> tuple[Decision, ...]:
    """On a processor the fused attention has a slow backward pass for short rows, and none at all
    where a bias of its scores learns: it then takes a slower way to what plain attention does. A
    decoder that needs no mask keeps it: it is as fast, and keeps no scores in memory."""
    import torch

    learns, unmasked = _learns_positions(network), isinstance(network, CausalNetwork) and not packed
    short = int(train.lengths.max()) <= SHORT_TOKENS and not unmasked
    if torch.cuda.is_available() or not (learns or short):
        return ()
    if not getattr(network.backbone, "_supports_sdpa", True):
        return ()
    try:
        network.backbone.set_attn_implementation("eager")
    except (ValueError, AttributeError):
        return ()
    where = "where relative positions learn" if learns else "for short rows"
    because = f"plain attention trains faster than the fused one on a processor {where}"
    return (Decision("attention", "eager", because),)


def _learns_positions(network: Any) -> bool:
    """Whether a bias of the attention's scores learns, as T5's relative positions do."""
    return any(
        parameter.requires_grad and "relative_attention_bias" in name
        for name, parameter in network.named_parameters()
    )
