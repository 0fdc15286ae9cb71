"""From what was prepared to a job for the loop: the parts are chosen here and nowhere else.

The model against the data: how much learns for each row, and what follows from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.contract.fit import (
    EncodedSplits,
    PreparedData,
    TaskDefinition,
    TrainingPlan,
    class_count,
)
from holdfast.core.decisions import decisions_and_findings, notify, record_decisions
from holdfast.core.errors import Defect, RecipeError
from holdfast.core.machine import process_count
from holdfast.core.records import Decision, Finding, Ints
from holdfast.data.table import TrainSplit, ValidSplit
from holdfast.fits.augmentation import EnrichedPlan, enrich_plan
from holdfast.fits.frozen import AUTO, choose_layers, freeze_part
from holdfast.fits.policies import keep_rule
from holdfast.fits.prefix_caching import choose_prefix_cache
from holdfast.methods.balance import check_target
from holdfast.metrics import Metric
from holdfast.models.base import LoadedModel, Network
from holdfast.models.compute.processor import checkpoint_activations, use_onednn
from holdfast.models.generators.causal import CausalNetwork
from holdfast.models.layers import count_parameters
from holdfast.models.network_copy import copy_network
from holdfast.plan.adapters import adapter_settings
from holdfast.plan.chunks import choose_chunk_loss
from holdfast.plan.defaults import (
    FINETUNE,
    method_parts,
    plan_phases,
    resolve_settings,
    unused_settings,
    unusual_settings,
    useless_methods,
    usual_rates,
)
from holdfast.plan.memory import check_fit, refuse_clearly_too_large
from holdfast.prepare.general import general_examples
from holdfast.prepare.rows import check_names
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.recipe.resolution import resolve_recipe as resolve_all
from holdfast.tasks.classes.encoding import EncodedTexts
from holdfast.tasks.classes.extra_features_selection import fitted_columns
from holdfast.tasks.classes.row_weights import group_weights, source_weights
from holdfast.tasks.generation.samples import sample_decisions, watches
from holdfast.training.machine.machine import use_threads
from holdfast.training.plan import Phase, Plan, check_phase, evaluation_points
from holdfast.training.task import Examples, ExtendableExamples, GrowingExamples, TrainingTask


def make_training_plan(
    prepared: PreparedData,
    train: Ints,
    valid: Ints,
    settings: Mapping[str, object] | Sequence[str] = (),
    cache_folder: Path | None = None,
    *,
    cross_fitted: bool = False,
    planned_for: int | None = None,
) -> TrainingPlan:
    """A fit up to its first step: a network of its own, the table of defaults, the plan.

    ``cache_folder`` is the folder where the outputs of frozen layers are kept. A fit that is
    ``cross_fitted`` learns from the rows that judge it, which other fits answer. ``planned_for`` is
    how many training rows the plan is for, where it is that of another fit.
    """
    _check_positions(len(prepared), train, train[:0] if cross_fitted else valid)
    recipe = prepared.with_settings(settings)
    with record_decisions() as weight_notes:
        parts = _make_parts(prepared, train, valid, recipe)
    loaded, splits, sizes = parts.loaded, parts.splits, parts.sizes
    with record_decisions() as settings_notes:
        resolved = _resolve_recipe(parts, recipe)
    with record_decisions() as plan_notes:
        plan = _make_plan(parts, resolved, planned_for or len(train))
    with record_decisions() as form_notes:
        forms = enrich_plan(plan, prepared.definition, loaded, splits, resolved)
    with record_decisions() as machine_notes:
        training_plan = _training_plan(parts, resolved, forms, cache_folder)
    resolved, plan = training_plan.recipe, training_plan.plan
    row_notes = decisions_and_findings(form_notes)
    decisions, findings = decisions_and_findings(
        (
            *loaded.decisions,
            *prepared.notes,
            *unusual_settings(resolved, sizes[0], loaded.defaults),
            *unused_settings(resolved, plan.phases),
            *settings_notes,
            *useless_methods(resolved, plan.phases),
            *weight_notes,
            *row_notes[0],
            *machine_notes,
            *plan_notes,
            *sample_decisions(
                resolved, training_plan.watch, splits.train, len(plan.evaluate_at), plan.rows_passed
            ),
            *row_notes[1],
            *prepared.definition.check_examples(splits.train, loaded),
        )
    )
    rule = recipe.train.keep or keep_rule(resolved, plan.phases, sizes, loaded.defaults)
    resolved = resolve_all(resolved, train={"keep": rule}, enrich=dict(forms.settings))
    rates = usual_rates(resolved, sizes[0], loaded.defaults)
    return replace(
        training_plan, recipe=resolved, usual_rates=rates, decisions=decisions, findings=findings
    )


@dataclass(frozen=True, slots=True)
class _FitParts:
    """What a fit is put together from: what is prepared, its ``train`` positions, what it has of
    its own. ``sizes`` are parameters, training rows, and how many classes a text has one of."""

    prepared: PreparedData
    train: Ints
    loaded: LoadedModel
    splits: EncodedSplits
    sizes: tuple[int, int, int]


def _training_plan(
    parts: _FitParts, recipe: ResolvedRecipe, forms: EnrichedPlan, cache_folder: Path | None
) -> TrainingPlan:
    """What the network computes and writes, whether that has room here, and what of it is kept."""
    prepared, loaded, splits = parts.prepared, parts.loaded, parts.splits
    definition, network, learnt = prepared.definition, loaded.network, splits.training_examples
    plan = _with_general_rows(forms.plan, splits, recipe)
    # Asked before anything is passed through the network.
    refuse_clearly_too_large(network, plan.phases, shards=_shards(recipe))
    _check_half(recipe, plan)
    with record_decisions() as pass_notes:
        choose_attention(network, learnt, recipe.train.pack)
        metric = _find_metric(recipe, definition, len(prepared.rows.classes))
        watch = (
            definition.choose_samples(loaded, splits, recipe, plan.probe_rows)
            if watches(recipe)
            else None
        )
        recipe, loss_notes = choose_chunk_loss(recipe, loaded, learnt, plan.phases)
        notify(*loss_notes)
        task = definition.make_task(loaded, splits.train_rows.table, recipe, metric)
        plan = _with_teacher(plan, parts, recipe, task)
        model_size(network, splits.train)
        need, memory, tight = check_fit(
            network, task, learnt, plan.phases, recipe.train.precision, shards=_shards(recipe)
        )
        notify(memory, *tight)
    training_plan = TrainingPlan(
        prepared=prepared,
        recipe=recipe,
        loaded=loaded,
        task=task,
        splits=splits,
        memory=need,
        plan=plan,
        metric=metric,
        watch=watch,
        decisions=(),
        findings=(),
    )
    setting, prefix = choose_prefix_cache(training_plan, cache_folder, enriched=forms.on)
    notify(*pass_notes)
    with_cache = resolve_all(recipe, train={"cache_frozen": setting})
    return replace(training_plan, recipe=with_cache, prefix=prefix)


def _shards(recipe: ResolvedRecipe) -> int:
    return process_count() if recipe.train.shard == "full" else 1


def _check_half(recipe: ResolvedRecipe, plan: Plan) -> None:
    """Raise ``RecipeError`` where scaled gradients would be read as if they were not."""
    steppers = {phase.stepper.name for phase in plan.phases if phase.stepper.passes > 1}
    if recipe.train.precision == "float16" and steppers:
        raise RecipeError(
            "train.precision",
            f"is float16, whose gradients are scaled, and {', '.join(sorted(steppers))} "
            "moves by them",
            "float16",
            "Set train.precision=float32, or leave the method out.",
        )


def _check_positions(rows: int, train: Ints, valid: Ints) -> None:
    """Refuse a split that no splitter gives: a row that judges what was learnt from it would
    look like a good model, and nothing later would show it."""
    for name, positions in (("training", train), ("validation", valid)):
        outside = positions[(positions < 0) | (positions >= rows)]
        if len(outside):
            rule = f"was given {name} rows that are not among the {rows:,} prepared ones"
            raise Defect("a fit", rule, int(outside[0]))
    shared = np.intersect1d(train, valid)
    if len(shared):
        rule = "was given a row both to learn from and to be judged by"
        raise Defect("a fit", rule, int(shared[0]))


def _make_parts(prepared: PreparedData, train: Ints, valid: Ints, recipe: Recipe) -> _FitParts:
    """A network of its own with the unit and limits of the training rows, and the rows of
    both splits; of the added rows those of the origins that ``train.added`` names. Rows weigh by
    their source."""
    # What was prepared since may have set other threads, and sums depend on how many add them up.
    use_threads(prepared.machine.threads)
    definition, examples = prepared.definition, prepared.examples
    # Every kind's ``LoadedModel`` is a dataclass, which a protocol cannot say.
    shared: Any = prepared.loaded
    loaded: LoadedModel = replace(shared, network=copy_network(prepared.loaded.network))
    train_rows, valid_rows = (prepared.rows.take(positions) for positions in (train, valid))
    train_examples, valid_examples = (examples.take(positions) for positions in (train, valid))
    loaded = definition.fit_loaded(loaded, train_rows, train_examples)
    training = definition.transform_examples(train_examples, loaded, train_rows)
    weights, source_notes = source_weights(train_rows, recipe.data.weights, recipe.data.temperature)
    groups, group_notes = group_weights(train_rows, recipe.data.reweigh, bool(recipe.enrich))
    notify(*source_notes)
    if groups is not None:
        weights = groups if weights is None else weights * groups
        notify(*group_notes)
    if weights is not None:
        assert isinstance(training, EncodedTexts)
        training = replace(training, weights=weights)
    added, with_added = _added_examples(prepared, training, recipe.train.added, loaded)
    validation = definition.transform_examples(valid_examples, loaded, valid_rows)
    probe, general = general_examples(prepared, recipe, loaded)
    splits = EncodedSplits(
        training,
        validation,
        TrainSplit(train_rows),
        ValidSplit(valid_rows),
        added,
        with_added,
        probe,
        general,
    )
    sizes = (count_parameters(loaded.network)[0], len(train), class_count(prepared))
    return _FitParts(prepared, train, loaded, splits, sizes)


def _added_examples(
    prepared: PreparedData, train: Examples, origins: Sequence[str] | None, loaded: LoadedModel
) -> tuple[Examples | None, Examples | None]:
    """The added rows that this fit learns from, with their weights; and they behind ``train``."""
    added, examples = prepared.added, prepared.added_examples
    selected = added.positions_of(origins) if added is not None else np.zeros(0, dtype=np.int64)
    if added is None or examples is None or not len(selected):
        return None, None
    assert isinstance(train, GrowingExamples)
    added_examples: Any = prepared.definition.transform_examples(
        examples.take(selected), loaded, added.table
    )
    extended = train.extended(added_examples, np.asarray(added.weights)[selected])
    if not isinstance(extended, ExtendableExamples):
        return added_examples, extended
    # With the weights that they have there.
    return extended.take(np.arange(len(train), len(extended))), extended


def _resolve_recipe(parts: _FitParts, recipe: Recipe) -> ResolvedRecipe:
    """The recipe with nothing left open: by the table of defaults, then which layers learn. What
    does not is frozen, and how the network computes is changed, not what."""
    prepared, loaded, (parameters, rows, classes) = parts.prepared, parts.loaded, parts.sizes
    settings = {
        "max_length": loaded.max_length,
        # What the loader chose that the recipe must keep.
        **loaded.settings,
        **adapter_settings(loaded.network),
    }
    if recipe.model.freeze is not None:
        # A fit may freeze otherwise than the loader would.
        settings.pop("freeze", None)
    recipe, decisions = resolve_settings(recipe, parameters, rows, loaded.defaults, classes)
    resolved = resolve_all(recipe, model=settings)
    check_names(resolved)
    notify(*decisions)
    splits, network = parts.splits, loaded.network
    table = splits.train_rows.table
    if resolved.model.freeze == AUTO:
        task = prepared.definition.make_task(loaded, table, resolved, None)
        has_word_embeddings = loaded.defaults is None or "encoder" in loaded.defaults
        usual = "words" if has_word_embeddings else "none"
        frozen = choose_layers(network, task, splits.train, resolved.seed, usual)
        resolved = resolve_all(resolved, model={"freeze": frozen})
    freeze_part(network, resolved.model.freeze)
    if resolved.train.matmul == "onednn":
        use_onednn(network)
    notify(*checkpoint_activations(network, resolved.train.checkpoint_activations))
    method_parts(resolved).prepares(loaded)
    check_target(resolved.methods, prepared.rows.classes)
    # What will be refused of the columns is refused before anything is trained.
    fitted_columns(resolved.data.features, table)
    return resolved


def _make_plan(parts: _FitParts, recipe: ResolvedRecipe, rows: int) -> Plan:
    """The phases of a fit on so many training ``rows``, and where the run is evaluated."""
    prepared, loaded, splits = parts.prepared, parts.loaded, parts.splits
    parameters, _, classes = parts.sizes
    planned = plan_phases(recipe, parameters, rows, loaded.defaults, classes)
    phases = tuple(phase.for_rows(splits.train, prepared.rows.classes) for phase in planned)
    for phase in phases:
        check_phase(phase)
    general_count = len(splits.general) if splits.general is not None else 0
    steps, probe, because = evaluation_points(
        phases, rows, len(splits.valid), recipe.train.evaluations, general_count
    )
    notify(Decision("evaluation points", f"{len(steps)}", because))
    _notify_of_added_rows(prepared, recipe)
    return Plan(phases, steps, probe, recipe.seed, recipe.train.max_minutes)


def _map_finetuning(plan: Plan, change: Callable[[Phase], Phase]) -> Plan:
    """The plan with its fine-tuning changed."""
    phases = (change(one) if one.name == FINETUNE else one for one in plan.phases)
    return replace(plan, phases=tuple(phases))


def _with_general_rows(plan: Plan, splits: EncodedSplits, recipe: ResolvedRecipe) -> Plan:
    """The plan whose fine-tuning passes general rows too, where a method holds on to them so."""
    add_general, general_rows = method_parts(recipe).add_general_rows, splits.general_rows
    if add_general is None or general_rows is None:
        return plan
    return _map_finetuning(
        plan, lambda one: replace(one, source=add_general(one.source, general_rows))
    )


def _with_teacher(plan: Plan, parts: _FitParts, recipe: ResolvedRecipe, task: TrainingTask) -> Plan:
    """The plan whose fine-tuning learns from teachers, where the recipe names some.

    Raises ``RecipeError`` where their predictions of these rows were not prepared.
    """
    if not recipe.distill.teacher:
        return plan
    prepared = parts.prepared
    if prepared.lessons is None:
        rule = "goes with one run on one division: a fold or a trial would need teachers of its own"
        raise RecipeError("distill.teacher", rule, None, "Leave it out: distill.teacher=null.")
    if not any(phase.name == FINETUNE for phase in plan.phases):
        rule = "leaves no fine-tuning, in which a teacher is learned from"
        name = f"methods.{plan.phases[0].name}"
        raise RecipeError(name, rule, None, "Leave it out, or raise train.epochs.")
    term = prepared.lessons.term(prepared, recipe, parts.train, parts.splits, parts.loaded, task)
    return _map_finetuning(plan, lambda one: replace(one, terms=(*one.terms, term)))


def _notify_of_added_rows(prepared: PreparedData, recipe: ResolvedRecipe) -> None:
    """What this fit learns from in addition to the rows of the table."""
    added = prepared.added
    if added is None:
        return
    selected = added.positions_of(recipe.train.added)
    if not len(selected):
        notify(Decision("added rows", "none", "train.added leaves all of them out"))
        return
    counts: dict[str, int] = Counter(added.origins[i] for i in selected)
    shown = ", ".join(f"{count:,} of origin {name}" for name, count in counts.items())
    because = (
        f"they weigh {float(np.asarray(added.weights)[selected].sum()):,.4g} rows together; "
        "updates "
        "and the head learn from them, and nothing is measured on them"
    )
    notify(Decision("added rows", shown, because))


SHORT_TOKENS = 256


def choose_attention(network: Any, train: Examples, packed: bool) -> None:
    """On a processor the fused attention has a slow backward pass for short rows, and none at all
    where a bias of its scores learns: it then takes a slower way to what plain attention does. A
    decoder that needs no mask keeps it: it is as fast, and keeps no scores in memory."""
    import torch

    # As T5's relative positions do.
    learns = any(
        parameter.requires_grad and "relative_attention_bias" in name
        for name, parameter in network.named_parameters()
    )
    unmasked = isinstance(network, CausalNetwork) and not packed
    short = int(train.lengths.max()) <= SHORT_TOKENS and not unmasked
    if torch.cuda.is_available() or not (learns or short):
        return
    if not getattr(network.backbone, "_supports_sdpa", True):
        return
    try:
        network.backbone.set_attn_implementation("eager")
    except (ValueError, AttributeError):
        return
    where = "where relative positions learn" if learns else "for short rows"
    because = f"plain attention trains faster than the fused one on a processor {where}"
    notify(Decision("attention", "eager", because))


def _find_metric(
    recipe: ResolvedRecipe, definition: TaskDefinition[LoadedModel, Examples], classes: int
) -> Metric | None:
    name = recipe.train.metric
    if name in ("refined_loss", "loss"):
        return None
    metric = definition.find_metric(name)
    if metric.two_classes and classes != 2:
        raise RecipeError(
            "train.metric",
            f"is defined for two classes, and there are {classes}",
            name,
            "Choose another, e.g. f1_macro, or leave it out.",
        )
    return metric


CHECK = "model_size"
# Fine-tuned whole, BERT-large (335 million) ends badly by chance on the sets of GLUE below some
# 2,500 rows, and steadily only with many passes and small rates (2006.04884, 2006.05987): that is
# where this line lies for it. A small model has no such trouble whatever its rows (MiniLM, 10.8
# million learning: benchmarks/small_data.py at 100 rows), so it is never called oversized.
MAX_PARAMETERS_PER_ROW = 150_000
SMALL_MODEL = 40_000_000


def model_size(network: Network, examples: Examples) -> None:
    """Learning parameters for each training row, and a warning where that is far too many.

    More than 150,000 a row in a model of which more than 40 million learn is oversized: an adapter,
    freezing or a smaller model is the remedy. No row gives no ratio and no warning.
    """
    rows = len(examples)
    _, trainable = count_parameters(network)
    tokens = int(examples.lengths.sum())
    per_row = trainable / rows if rows else 0.0
    size = (
        f"{trainable:,} parameters learn from {rows:,} rows: {per_row:,.0f} a row, "
        f"{trainable / max(1, tokens):,.0f} a token of them"
    )
    oversized = trainable > SMALL_MODEL and per_row > MAX_PARAMETERS_PER_ROW
    reason = _size_reason(network, trainable, oversized)
    notify(Decision(CHECK, "oversized" if oversized else "fits", f"{size}; {reason}"))
    if not oversized:
        return
    max_parameters = max(SMALL_MODEL, MAX_PARAMETERS_PER_ROW * rows)
    notify(
        Finding(
            CHECK,
            "warn",
            min(1.0, per_row / MAX_PARAMETERS_PER_ROW / 10),
            rows,
            (),
            f"{size}; above {MAX_PARAMETERS_PER_ROW:,} a row a run of so large a model may "
            "end badly by chance",
            "Use --set model.adapter.kind=lora (under 1 % learns), freeze the first layers "
            "(--set model.freeze=0.75), or take a model of at most "
            f"{max_parameters / 1e6:,.0f} million "
            "parameters.",
        )
    )


def _size_reason(network: Network, learns: int, oversized: bool) -> str:
    if oversized:
        return f"above {MAX_PARAMETERS_PER_ROW:,} a row, some runs fail by chance"
    if network.adapter is not None:
        return "the adapter keeps the trainable parameters few"
    if learns <= SMALL_MODEL:
        return f"up to {SMALL_MODEL // 10**6} million, no benchmark had too few rows"
    return f"up to {MAX_PARAMETERS_PER_ROW:,} a row, full fine-tuning was stable in benchmarks"
