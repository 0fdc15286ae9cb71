"""Compose a job for the training loop from the prepared data. All parts are chosen here.

Also compares the size of the model with the data: the trainable parameters per row.
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
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.data.table import TrainSplit, ValidSplit
from holdfast.fits.augmentation import EnrichedPlan, enrich_plan
from holdfast.fits.frozen import AUTO, choose_layers, freeze_part
from holdfast.fits.label_weights import label_weights, with_policy
from holdfast.fits.policies import keep_rule, plan_for_few_updates, within_measured_recipe
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
from holdfast.plan.control import PASSIVE_POLICIES
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
from holdfast.recipe.parts import TrainPart
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.recipe.resolution import resolve_recipe as resolve_all
from holdfast.tasks.classes.encoding import EncodedTexts
from holdfast.tasks.classes.extra_features_selection import fitted_columns
from holdfast.tasks.classes.row_weights import group_weights, source_weights
from holdfast.tasks.generation.samples import sample_decisions, watches
from holdfast.training.machine.machine import use_threads
from holdfast.training.plan import Phase, Plan, check_phase, evaluation_points
from holdfast.training.task import Examples, GrowingExamples, LabelledExamples, TrainingTask


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
    """Prepare a fit up to its first step: its own network, resolved settings, the plan.

    ``cache_folder`` is the folder for cached outputs of frozen layers. A ``cross_fitted`` fit is
    evaluated on its own training rows, which other fits predict. ``planned_for`` is the number of
    training rows that the plan is made for, where it is that of another fit.
    """
    _check_positions(len(prepared), train, train[:0] if cross_fitted else valid)
    recipe = with_policy(prepared.with_settings(settings), prepared)
    with record_decisions() as weight_notes:
        parts = _make_parts(prepared, train, valid, recipe, cross_fitted)
    loaded, splits, sizes = parts.loaded, parts.splits, parts.sizes
    with record_decisions() as settings_notes:
        resolved = _resolve_recipe(parts, recipe)
    with record_decisions() as plan_notes:
        plan = _make_plan(parts, resolved, planned_for or len(splits.train))
    with record_decisions() as form_notes:
        forms = enrich_plan(plan, prepared.definition, loaded, splits, resolved)
    with record_decisions() as machine_notes:
        acts = not cross_fitted and resolved.control.policy not in PASSIVE_POLICIES
        training_plan = _training_plan(parts, resolved, forms, cache_folder, acts)
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
            *prepared.definition.check_examples(splits.train, loaded, "training"),
            *_of_validation(parts, resolved),
            *prepared.definition.show_example(splits.train, loaded),
        )
    )
    rule = recipe.train.keep or keep_rule(resolved, plan.phases, sizes, loaded.defaults)
    resolved = resolve_all(resolved, train={"keep": rule}, enrich=dict(forms.settings))
    rates = usual_rates(resolved, sizes[0], loaded.defaults)
    return replace(
        training_plan, recipe=resolved, usual_rates=rates, decisions=decisions, findings=findings
    )


def _of_validation(parts: _FitParts, recipe: ResolvedRecipe) -> tuple[Finding, ...]:
    """What is lost of validation rows, where it changes what is scored: in a generative model a
    part of the target."""
    if recipe.task not in GENERATIVE_TASKS:
        return ()
    return parts.prepared.definition.check_examples(parts.splits.valid, parts.loaded, "validation")


@dataclass(frozen=True, slots=True)
class _FitParts:
    """The inputs of a fit: the prepared data, its ``train`` positions, and its own parts. ``sizes``
    are parameters, training rows, and the number of classes (of texts with one class)."""

    prepared: PreparedData
    train: Ints
    loaded: LoadedModel
    splits: EncodedSplits
    sizes: tuple[int, int, int]


def _training_plan(
    parts: _FitParts,
    recipe: ResolvedRecipe,
    forms: EnrichedPlan,
    cache_folder: Path | None,
    acts: bool,
) -> TrainingPlan:
    """Add the loss, generation and caching, and check whether the run fits into memory."""
    prepared, loaded, splits = parts.prepared, parts.loaded, parts.splits
    definition, network, learnt = prepared.definition, loaded.network, splits.training_examples
    plan = _with_general_rows(forms.plan, splits, recipe)
    # Before any forward pass.
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
        measured = within_measured_recipe(recipe, plan.phases, parts.sizes, loaded.defaults)
        model_size(network, splits.train, measured)
        need, memory, tight = check_fit(
            network,
            task,
            learnt,
            plan.phases,
            recipe.train.precision,
            shards=_shards(recipe),
            acts=acts,
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
    """Raise ``RecipeError`` where a method would use scaled gradients as if they were unscaled."""
    steppers = {phase.stepper.name for phase in plan.phases if phase.stepper.passes > 1}
    if recipe.train.precision == "float16" and steppers:
        raise RecipeError(
            "train.precision",
            f"is float16, which scales gradients, but {', '.join(sorted(steppers))} "
            "uses unscaled ones",
            "float16",
            "Set train.precision=float32, or remove the method.",
        )


def _check_positions(rows: int, train: Ints, valid: Ints) -> None:
    """Refuse a split that no splitter makes. A model evaluated on a row that it learned from would
    look good, and nothing later would show the error."""
    for name, positions in (("training", train), ("validation", valid)):
        outside = positions[(positions < 0) | (positions >= rows)]
        if len(outside):
            rule = f"was given {name} rows that are not among the {rows:,} prepared ones"
            raise Defect("a fit", rule, int(outside[0]))
    shared = np.intersect1d(train, valid)
    if len(shared):
        rule = "was given a row both for training and for validation"
        raise Defect("a fit", rule, int(shared[0]))


def _make_parts(
    prepared: PreparedData, train: Ints, valid: Ints, recipe: Recipe, cross_fitted: bool
) -> _FitParts:
    """A network for this fit with the unit and limits of the training rows, and the rows of both
    splits; of the added rows, those with origins that ``train.added`` names. Rows are weighted by
    their source and group, and by the probability that their label is right (``with_label_weights``
    for a ``cross_fitted`` fit)."""
    # Later preparation may have changed the number of threads, which changes floating-point sums.
    use_threads(prepared.machine.threads)
    definition, examples = prepared.definition, prepared.examples
    # The ``LoadedModel`` of every task is a dataclass, which a protocol cannot express.
    shared: Any = prepared.loaded
    loaded: LoadedModel = replace(shared, network=copy_network(prepared.loaded.network))
    train_rows, valid_rows = (prepared.rows.take(positions) for positions in (train, valid))
    train_examples, valid_examples = (examples.take(positions) for positions in (train, valid))
    loaded = definition.fit_loaded(loaded, train_rows, train_examples)
    training = definition.transform_examples(train_examples, loaded, train_rows)
    by_source, notes = source_weights(train_rows, recipe.data.weights, recipe.data.temperature)
    by_group, group_notes = group_weights(train_rows, recipe.data.reweigh)
    notify(*notes, *group_notes)
    by_label = None if cross_fitted else label_weights(prepared, train, recipe)
    for weights in (by_source, by_group, by_label):
        training = _weighted(training, weights)
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
        prepared.units[train],
        prepared.units[valid],
    )
    sizes = (count_parameters(loaded.network)[0], len(train), class_count(prepared))
    return _FitParts(prepared, train, loaded, splits, sizes)


def _weighted(examples: Examples, weights: Floats | None) -> Examples:
    """The examples with their weights multiplied by these [n]."""
    if weights is None:
        return examples
    assert isinstance(examples, EncodedTexts)
    own = 1.0 if examples.weights is None else examples.weights
    return replace(examples, weights=own * weights)


def with_label_weights(
    training_plan: TrainingPlan, rows: Ints, predicted: Floats | None = None
) -> TrainingPlan:
    """The plan of a cross-fitted fit on ``rows`` with each of them weighted by the probability that
    its label is right. ``predicted``: out-of-fold logits [n, c], if there are any."""
    with record_decisions(also_notify=True) as notes:
        weights = label_weights(training_plan.prepared, rows, training_plan.recipe, predicted)
    training_plan = replace(training_plan, late_notes=tuple(notes))
    if weights is None:
        return training_plan
    splits = training_plan.splits
    train, both = _weighted(splits.train, weights), splits.with_added
    if both is not None:
        of_added = np.ones(len(both) - len(train))
        both = _weighted(both, np.concatenate([weights, of_added]))
    return replace(training_plan, splits=replace(splits, train=train, with_added=both))


def _added_examples(
    prepared: PreparedData, train: Examples, origins: Sequence[str] | None, loaded: LoadedModel
) -> tuple[Examples | None, Examples | None]:
    """The added rows that this fit learns from, with their weights; and ``train`` followed by
    them."""
    added, examples = prepared.added, prepared.added_examples
    selected = added.positions_of(origins) if added is not None else np.zeros(0, dtype=np.int64)
    if added is None or examples is None or not len(selected):
        return None, None
    assert isinstance(train, GrowingExamples)
    added_examples: Any = prepared.definition.transform_examples(
        examples.take(selected), loaded, added.table
    )
    extended = train.extended(added_examples, np.asarray(added.weights)[selected])
    if not isinstance(extended, LabelledExamples):
        return added_examples, extended
    # With their weights in the joined rows.
    return extended.take(np.arange(len(train), len(extended))), extended


def _resolve_recipe(parts: _FitParts, recipe: Recipe) -> ResolvedRecipe:
    """The recipe with every setting resolved: from the defaults, then the layers to train. Freezes
    the other layers, and sets how the network computes without changing its results."""
    prepared, loaded, (parameters, rows, classes) = parts.prepared, parts.loaded, parts.sizes
    settings = {
        "max_length": loaded.max_length,
        # Settings that the loader chose and the recipe must record.
        **loaded.settings,
        **adapter_settings(loaded.network),
    }
    if recipe.model.freeze is not None:
        # A fit may freeze other layers than the loader would.
        settings.pop("freeze", None)
    sizes = (parameters, rows, loaded.defaults, classes)
    recipe, of_rate = plan_for_few_updates(recipe, *sizes)
    recipe, decisions = resolve_settings(recipe, *sizes)
    resolved = resolve_all(recipe, model=settings)
    check_names(resolved)
    notify(*decisions, *of_rate)
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
    check_target(resolved.methods, prepared.rows.classes, network)
    # Invalid columns are refused before training.
    fitted_columns(resolved.data.features, table)
    return resolved


def _make_plan(parts: _FitParts, recipe: ResolvedRecipe, rows: int) -> Plan:
    """The phases of a fit on this many training ``rows``, and the steps of its evaluations."""
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
    requested = recipe.train.evaluations
    fewer = len(steps) <= requested and requested != TrainPart().evaluations
    notify(Decision("evaluation points", f"{len(steps)}", because, prominent=fewer))
    _notify_of_added_rows(prepared, recipe)
    return Plan(phases, steps, probe, recipe.seed, recipe.train.max_minutes)


def _map_finetuning(plan: Plan, change: Callable[[Phase], Phase]) -> Plan:
    """The plan with a changed fine-tuning phase."""
    phases = (change(one) if one.name == FINETUNE else one for one in plan.phases)
    return replace(plan, phases=tuple(phases))


def _with_general_rows(plan: Plan, splits: EncodedSplits, recipe: ResolvedRecipe) -> Plan:
    """The plan whose fine-tuning also passes general rows, where a method needs them."""
    add_general, general_rows = method_parts(recipe).add_general_rows, splits.general_rows
    if add_general is None or general_rows is None:
        return plan
    return _map_finetuning(
        plan, lambda one: replace(one, source=add_general(one.source, general_rows))
    )


def _with_teacher(plan: Plan, parts: _FitParts, recipe: ResolvedRecipe, task: TrainingTask) -> Plan:
    """The plan whose fine-tuning learns from teachers, where the recipe names some.

    Raises ``RecipeError`` where their predictions for these rows were not prepared.
    """
    if not recipe.distill.teacher:
        return plan
    prepared = parts.prepared
    if prepared.lessons is None:
        rule = "only works for one run on one split: a fold or a trial would need its own teachers"
        raise RecipeError("distill.teacher", rule, None, "Leave it out: distill.teacher=null.")
    if not any(phase.name == FINETUNE for phase in plan.phases):
        rule = "leaves no fine-tuning phase, which distillation needs"
        name = f"methods.{plan.phases[0].name}"
        raise RecipeError(name, rule, None, "Remove it, or raise train.epochs.")
    term = prepared.lessons.term(prepared, recipe, parts.train, parts.splits, parts.loaded, task)
    return _map_finetuning(plan, lambda one: replace(one, terms=(*one.terms, term)))


def _notify_of_added_rows(prepared: PreparedData, recipe: ResolvedRecipe) -> None:
    """Log the rows that this fit learns from in addition to those of the table."""
    added = prepared.added
    if added is None:
        return
    selected = added.positions_of(recipe.train.added)
    if not len(selected):
        notify(Decision("added rows", "none", "train.added excludes all of them"))
        return
    counts: dict[str, int] = Counter(added.origins[i] for i in selected)
    shown = ", ".join(f"{count:,} of origin {name}" for name, count in counts.items())
    because = (
        f"their weights add up to {float(np.asarray(added.weights)[selected].sum()):,.4g} rows; "
        "updates "
        "and the head learn from them, and nothing is evaluated on them"
    )
    notify(Decision("added rows", shown, because))


SHORT_TOKENS = 256


def choose_attention(network: Any, train: Examples, packed: bool) -> None:
    """Choose plain attention where it trains faster on a CPU.

    Fused attention has a slow backward pass for short rows. Where a bias of its scores is trained,
    it has none and falls back to a slower form of plain attention. A decoder without a mask keeps
    fused attention: it is as fast, and stores no scores."""
    import torch

    # T5's relative positions are such a bias.
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
    where = "where relative positions are trained" if learns else "for short rows"
    because = f"plain attention trains faster than fused attention on a CPU {where}"
    notify(Decision("attention", "eager", because))


def _find_metric(
    recipe: ResolvedRecipe, definition: TaskDefinition[LoadedModel, Examples], classes: int
) -> Metric | None:
    name = recipe.train.metric
    if name in ("refined_loss", "loss"):
        return None
    metric = definition.find_metric(name)
    if metric.two_classes and classes != 2:
        rule = f"is defined for two classes, but there are {classes}"
        remedy = "Choose another metric, for example f1_macro, or remove the setting."
        raise RecipeError("train.metric", rule, name, remedy)
    return metric


CHECK = "model_size"
# Full fine-tuning of BERT-large (335 million parameters) sometimes fails on GLUE tasks with fewer
# than about 2,500 rows, and is stable only with many epochs and small learning rates (2006.04884,
# 2006.05987): the limit corresponds to that. Small models do not have this problem with any number
# of rows (MiniLM, 10.8 million trained: benchmarks/quality.py at 100 rows), so they are never
# reported as oversized.
MAX_PARAMETERS_PER_ROW = 150_000
SMALL_MODEL = 40_000_000


def model_size(network: Network, examples: Examples, measured: bool) -> None:
    """Log the trainable parameters per training row, and warn where there are far too many.

    More than 150,000 per row, in a model with more than 40 million trainable parameters, is
    oversized, unless its plan was ``measured`` in benchmarks; the remedy is an adapter, freezing or
    a smaller model. Without rows there is no ratio and no warning.
    """
    rows = len(examples)
    _, trainable = count_parameters(network)
    tokens = int(examples.lengths.sum())
    per_row = trainable / rows if rows else 0.0
    size = (
        f"{trainable:,} trainable parameters and {rows:,} training rows: {per_row:,.0f} per row, "
        f"{trainable / max(1, tokens):,.0f} per token"
    )
    too_many = trainable > SMALL_MODEL and per_row > MAX_PARAMETERS_PER_ROW
    oversized = too_many and not measured
    reason = _size_reason(network, trainable, too_many, measured)
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
            f"{size}; above {MAX_PARAMETERS_PER_ROW:,} per row, fine-tuning so large a model may "
            "fail by chance",
            "Use --set model.adapter.kind=lora (under 1 % is trained), freeze the first layers "
            "(--set model.freeze=0.75), or use a model with at most "
            f"{max_parameters / 1e6:,.0f} million "
            "parameters.",
        )
    )


def _size_reason(network: Network, learns: int, too_many: bool, measured: bool) -> str:
    if too_many and measured:
        return "no run of such a model with this plan failed in benchmarks"
    if too_many:
        return f"above {MAX_PARAMETERS_PER_ROW:,} per row, some runs fail by chance"
    if network.adapter is not None:
        return "the adapter keeps the trainable parameters few"
    if learns <= SMALL_MODEL:
        return f"no benchmark had too few rows for up to {SMALL_MODEL // 10**6} million parameters"
    return f"up to {MAX_PARAMETERS_PER_ROW:,} per row, full fine-tuning was stable in benchmarks"
