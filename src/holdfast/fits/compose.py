"""From what was prepared to a job for the loop: the parts are chosen here and nowhere else.

The model against the data: how much learns for each row, and what follows from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import Kind, PreparedData, Sides, TrainingPlan, classes_of
from holdfast.contract.samples import WrittenSamples
from holdfast.control.stop_rules import StoppingRule
from holdfast.core.decisions import recorded
from holdfast.core.errors import Defect, RecipeError
from holdfast.core.machine import processes
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.updates import OfRows
from holdfast.data.scratch import goes_with, scratch_file
from holdfast.data.table import TrainSplit, ValidSplit
from holdfast.fits.additions import FitAdditions
from holdfast.fits.attention import choose_attention
from holdfast.fits.augmentation import enriched
from holdfast.fits.checkpoint_rule import choice, rule_of
from holdfast.fits.duration import seconds_after
from holdfast.fits.frozen import keep_prefix
from holdfast.fits.layers import AUTO, choose_layers
from holdfast.fits.place import FitPlace
from holdfast.fits.policies import controller, stopping_rule
from holdfast.fits.run_facts import make_monitor
from holdfast.methods.heads.balance import check_target
from holdfast.methods.optimizers import build_optimizer
from holdfast.methods.schedules.schedules import build_schedule
from holdfast.metrics import Metric
from holdfast.models.base import Loaded, Network
from holdfast.models.compute.checkpointing import checkpoint_activations
from holdfast.models.compute.onednn import use_onednn
from holdfast.models.fresh import fresh, own_weights, tensors_of
from holdfast.models.layers import count_parameters, freeze, parameter_groups
from holdfast.plan.adapters import adapter_settings
from holdfast.plan.chunks import choose_chunks
from holdfast.plan.defaults import (
    FINETUNE,
    method_parts,
    phases_of,
    resolve,
    unused,
    unusual,
    useless,
    usual_rates,
)
from holdfast.plan.memory import check_fit, refuse_clearly_too_large
from holdfast.prepare.general import general_sides
from holdfast.prepare.names import check_names
from holdfast.prepare.sharding import spread
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.recipe.resolution import resolved as resolve_all
from holdfast.tasks.classes.encoding import EncodedTexts
from holdfast.tasks.classes.row_weights import group_weights, source_weights
from holdfast.tasks.classes.side_selection import fitted_columns
from holdfast.tasks.generation.samples import told, watches, writer
from holdfast.training.listeners.examples import ExampleHistory
from holdfast.training.machine.machine import use_threads
from holdfast.training.plan import Phase, Plan, check_phase, evaluation_points
from holdfast.training.prefix.cache import PrefixCache
from holdfast.training.run import Job
from holdfast.training.task import Examples, ExtendableExamples, GrowingExamples, Task, labels_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from holdfast.core.events import Listener


def make_ready(
    prepared: PreparedData,
    train: Ints,
    valid: Ints,
    settings: Mapping[str, object] | Sequence[str] = (),
    kept_in: Path | None = None,
    *,
    cross_fitted: bool = False,
    planned_for: int | None = None,
) -> TrainingPlan:
    """A fit up to its first step: a network of its own, the table of defaults, the plan.

    ``kept_in`` is the folder where the outputs of frozen layers are kept. A fit that is
    ``cross_fitted`` learns from the rows that judge it, which other fits answer. ``planned_for`` is
    how many training rows the plan is for, where it is that of another fit.
    """
    _check_positions(len(prepared), train, train[:0] if cross_fitted else valid)
    recipe, kind = prepared.with_settings(settings), prepared.kind
    # What was prepared since may have set other threads, and sums depend on how many add them up.
    use_threads(prepared.machine.threads)
    # Every kind's ``Loaded`` is a dataclass, which a protocol cannot say.
    shared: Any = prepared.loaded
    loaded: Loaded = replace(shared, network=fresh(prepared.loaded.network))
    loaded, sides, weighed = _sides(prepared, loaded, train, valid, recipe)
    probe, general = general_sides(prepared, recipe, loaded)
    sides = replace(sides, general=probe, general_rows=general)
    total, _ = count_parameters(loaded.network)
    classes = classes_of(prepared)
    resolved, chosen = _resolved(recipe, loaded, total, len(train), classes)
    resolved, by_evidence = _layers_chosen(resolved, kind, loaded, sides)
    changed = (*by_evidence, *_changed(loaded.network, resolved))
    with recorded() as of_methods:
        method_parts(resolved).prepares(loaded)
    check_target(resolved.methods, prepared.rows.classes)
    # What will be refused of the columns is refused before anything is trained.
    fitted_columns(resolved.data.features, sides.train_rows.table)
    names, rows = prepared.rows.classes, planned_for or len(train)
    plan, points = _planned(resolved, loaded, (total, rows, classes), sides, names)
    forms = enriched(plan, kind, loaded, sides, resolved)
    plan = _with_general(forms.plan, resolved, sides)
    shards = processes() if resolved.train.shard == "full" else 1
    refuse_clearly_too_large(loaded.network, plan.phases, shards=shards)
    _check_half(resolved, plan)
    attention = choose_attention(loaded.network, sides.learnt, resolved.train.pack)
    metric = _metric(resolved, kind, len(prepared.rows.classes))
    watch = kind.watch(loaded, sides, resolved, plan.probe_rows) if watches(resolved) else None
    size, oversized = model_size(loaded.network, sides.train)
    resolved, of_loss = choose_chunks(resolved, loaded, sides.learnt, plan.phases)
    task = kind.make_task(loaded, sides.train_rows.table, resolved, metric)
    plan = _with_teacher(plan, prepared, resolved, train, sides, (loaded, task))
    precision = resolved.train.precision
    need, memory, tight = check_fit(
        loaded.network, task, sides.learnt, plan.phases, precision, shards=shards
    )
    kept = keep_prefix(
        resolved.train.cache_frozen,
        loaded.network,
        task,
        sides.learnt,
        sides.valid,
        plan,
        precision,
        kept_in,
        enriched=forms.on,
    )
    sizes = (total, len(train), classes)
    rule = recipe.train.keep or rule_of(resolved, plan.phases, sizes, loaded.defaults)
    return TrainingPlan(
        prepared=prepared,
        recipe=resolve_all(
            resolved,
            train={"cache_frozen": kept.setting, "keep": rule},
            enrich=dict(forms.settings),
        ),
        loaded=loaded,
        task=task,
        sides=sides,
        need=need,
        plan=plan,
        metric=metric,
        watch=watch,
        prefix=kept.prefix,
        usual_rates=usual_rates(resolved, total, loaded.defaults),
        decisions=(
            *loaded.decisions,
            *prepared.machine.decisions,
            *prepared.decisions,
            *(prepared.general.decisions if prepared.general else ()),
            *chosen,
            *changed,
            *(one for one in of_methods if isinstance(one, Decision)),
            *weighed,
            *forms.decisions,
            *kept.decisions,
            *attention,
            *of_loss,
            size,
            memory,
            points,
            *_added_rows(prepared, resolved),
            *_told(resolved, watch, sides.train, plan),
        ),
        findings=(
            # The rows' own were told when they were divided.
            *prepared.noticed,
            *(prepared.general.findings if prepared.general else ()),
            *unusual(resolved, total, loaded.defaults),
            *unused(resolved, plan.phases),
            *(one for one in of_methods if isinstance(one, Finding)),
            *useless(resolved, plan.phases),
            *oversized,
            *tight,
            *forms.findings,
            *kind.notices(sides.train, loaded),
        ),
    )


def _check_half(recipe: ResolvedRecipe, plan: Plan) -> None:
    """Raise ``RecipeError`` where scaled gradients would be read as if they were not."""
    ways = {phase.stepper.name for phase in plan.phases if phase.stepper.passes > 1}
    if recipe.train.precision == "float16" and ways:
        raise RecipeError(
            "train.precision",
            f"is float16, whose gradients are scaled, and {', '.join(sorted(ways))} moves by them",
            "float16",
            "Set train.precision=float32, or leave the method out.",
        )


def _check_positions(rows: int, train: Ints, valid: Ints) -> None:
    """Refuse a division that no splitter gives: a row that judges what was learnt from it would
    look like a good model, and nothing later would show it."""
    for name, side in (("training", train), ("validation", valid)):
        outside = side[(side < 0) | (side >= rows)]
        if len(outside):
            rule = f"was given {name} rows that are not among the {rows:,} prepared ones"
            raise Defect("a fit", rule, int(outside[0]))
    shared = np.intersect1d(train, valid)
    if len(shared):
        rule = "was given a row both to learn from and to be judged by"
        raise Defect("a fit", rule, int(shared[0]))


def _sides(
    prepared: PreparedData, loaded: Loaded, train: Ints, valid: Ints, recipe: Recipe
) -> tuple[Any, Sides, tuple[Decision, ...]]:
    """The rows of both sides, and what was loaded with the unit and limits of the first; of the
    added rows those of the origins that ``train.added`` names. Rows weigh by their source."""
    kind, examples = prepared.kind, prepared.examples
    learnt, judging = (prepared.rows.take(side) for side in (train, valid))
    of_train, of_valid = (examples.take(side) for side in (train, valid))
    loaded = kind.settle(loaded, learnt, of_train)
    inside = kind.side(of_train, loaded, learnt)
    weights, told = source_weights(learnt, recipe.data.weights, recipe.data.temperature)
    groups, of_groups = group_weights(learnt, recipe.data.reweigh, bool(recipe.enrich))
    if groups is not None:
        weights, told = groups if weights is None else weights * groups, (*told, *of_groups)
    if weights is not None:
        assert isinstance(inside, EncodedTexts)
        inside = replace(inside, weights=weights)
    added, with_added = _added(prepared, inside, recipe.train.added, loaded)
    sides = Sides(
        inside,
        kind.side(of_valid, loaded, judging),
        TrainSplit(learnt),
        ValidSplit(judging),
        added,
        with_added,
    )
    return loaded, sides, told


def _added(
    prepared: PreparedData, train: Examples, origins: Sequence[str] | None, loaded: Loaded
) -> tuple[Examples | None, Examples | None]:
    """The added rows that this fit learns from, with their weights; and they behind ``train``."""
    lot, examples = prepared.added, prepared.added_examples
    chosen = lot.of(origins) if lot is not None else np.zeros(0, dtype=np.int64)
    if lot is None or examples is None or not len(chosen):
        return None, None
    assert isinstance(train, GrowingExamples)
    more: Any = prepared.kind.side(examples.take(chosen), loaded, lot.table)
    both = train.extended(more, np.asarray(lot.weights)[chosen])
    if not isinstance(both, ExtendableExamples):
        return more, both
    # With the weights that they have there.
    return both.take(np.arange(len(train), len(both))), both


def _resolved(
    recipe: Recipe, loaded: Loaded, parameters: int, rows: int, classes: int
) -> tuple[ResolvedRecipe, tuple[Decision, ...]]:
    """The recipe with nothing left open, and why."""
    settings = {"max_length": loaded.max_length, **kind_settings(loaded)}
    if recipe.model.freeze is not None:
        # A fit may freeze otherwise than the loader would.
        settings.pop("freeze", None)
    recipe, chosen = resolve(recipe, parameters, rows, loaded.defaults, classes)
    resolved = resolve_all(recipe, model=settings)
    check_names(resolved)
    return resolved, chosen


def _layers_chosen(
    recipe: ResolvedRecipe, kind: Kind[Loaded, Examples], loaded: Loaded, sides: Sides
) -> tuple[ResolvedRecipe, tuple[Decision, ...]]:
    """The recipe with the layers that training rows say, where it leaves them to these."""
    if recipe.model.freeze != AUTO:
        return recipe, ()
    task = kind.make_task(loaded, sides.train_rows.table, recipe, None)
    words = loaded.defaults is None or "encoder" in loaded.defaults
    usual = "words" if words else "none"
    frozen, told = choose_layers(loaded.network, task, sides.train, recipe.seed, usual)
    return resolve_all(recipe, model={"freeze": frozen}), told


def _changed(network: Network, recipe: ResolvedRecipe) -> tuple[Decision, ...]:
    """Freeze what does not learn, and change how the network computes, not what."""
    frozen = freeze_part(network, recipe.model.freeze)
    if recipe.train.matmul == "onednn":
        use_onednn(network)
    return (*frozen, *checkpoint_activations(network, recipe.train.checkpoint_activations))


def _planned(
    recipe: ResolvedRecipe,
    loaded: Loaded,
    sizes: tuple[int, int, int],
    sides: Sides,
    names: Sequence[str],
) -> tuple[Plan, Decision]:
    """The phases, and where the run looks at itself; the ``names`` of what is told apart. The
    ``sizes`` are parameters, training rows, and how many classes a text has one of."""
    parameters, rows, classes = sizes
    planned = phases_of(recipe, parameters, rows, loaded.defaults, classes)
    phases = tuple(_for_rows(phase, sides.train, names) for phase in planned)
    for phase in phases:
        check_phase(phase)
    beside = len(sides.general) if sides.general is not None else 0
    at, probe, because = evaluation_points(
        phases, rows, len(sides.valid), recipe.train.evaluations, beside
    )
    plan = Plan(phases, at, probe, recipe.seed, recipe.train.max_minutes)
    return plan, Decision("evaluation points", f"{len(at)}", because)


def _with_general(plan: Plan, recipe: ResolvedRecipe, sides: Sides) -> Plan:
    """The plan whose fine-tuning passes general rows beside its own, where a method asks for it."""
    beside = method_parts(recipe).beside
    if beside is None or sides.general_rows is None:
        return plan
    phases = tuple(
        replace(phase, source=beside(phase.source, sides.general_rows))
        if phase.name == FINETUNE
        else phase
        for phase in plan.phases
    )
    return replace(plan, phases=phases)


def _with_teacher(
    plan: Plan,
    prepared: PreparedData,
    recipe: ResolvedRecipe,
    train: Ints,
    sides: Sides,
    of: tuple[Loaded, Task],
) -> Plan:
    """The plan whose fine-tuning learns from teachers, where the recipe names some.

    Raises ``RecipeError`` where nobody asked them what they say of these rows.
    """
    if not recipe.distill.teacher:
        return plan
    if prepared.lessons is None:
        rule = "goes with one run on one division: a fold or a trial would need teachers of its own"
        raise RecipeError("distill.teacher", rule, None, "Leave it out: distill.teacher=null.")
    if not any(phase.name == FINETUNE for phase in plan.phases):
        rule = "leaves no fine-tuning, in which a teacher is learned from"
        name = f"methods.{plan.phases[0].name}"
        raise RecipeError(name, rule, None, "Leave it out, or raise train.epochs.")
    term = prepared.lessons.term(prepared, recipe, train, sides, *of)
    phases = tuple(
        replace(phase, terms=(*phase.terms, term)) if phase.name == FINETUNE else phase
        for phase in plan.phases
    )
    return replace(plan, phases=phases)


def _added_rows(prepared: PreparedData, recipe: ResolvedRecipe) -> tuple[Decision, ...]:
    """What this fit learns from beside the rows of the table."""
    lot = prepared.added
    if lot is None:
        return ()
    chosen = lot.of(recipe.train.added)
    if not len(chosen):
        return (Decision("added rows", "none", "train.added leaves all of them out"),)
    counts: dict[str, int] = Counter(lot.origins[i] for i in chosen)
    shown = ", ".join(f"{count:,} of origin {name}" for name, count in counts.items())
    because = (
        f"they weigh {float(np.asarray(lot.weights)[chosen].sum()):,.4g} rows together; updates "
        "and the head learn from them, and nothing is measured on them"
    )
    return (Decision("added rows", shown, because),)


def _for_rows(phase: Phase, rows: Examples, classes: Sequence[str]) -> Phase:
    """The phase with those of its loss terms that depend on the training rows made for them."""
    if not any(isinstance(term, OfRows) for term in phase.terms):
        return phase
    labels = labels_of(rows)
    made = [t.of_rows(labels, classes) if isinstance(t, OfRows) else t for t in phase.terms]
    return replace(phase, terms=tuple(made))


def _told(
    recipe: Recipe, watch: WrittenSamples | None, train: Examples, plan: Plan
) -> tuple[Decision, ...]:
    work = sum(phase.rows_passed for phase in plan.phases)
    return told(recipe, watch, train, len(plan.evaluate_at), work)


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


def kind_settings(loaded: Loaded) -> dict[str, Any]:
    """What the loader chose that the recipe must keep."""
    return {**loaded.settings, **adapter_settings(loaded.network)}


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


def _advisor(ready: TrainingPlan) -> StoppingRule | None:
    return None if ready.recipe.control.policy == "off" else stopping_rule(ready)


def _metric(recipe: ResolvedRecipe, kind: Kind[Loaded, Examples], classes: int) -> Metric | None:
    name = recipe.train.metric
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


CHECK = "model_size"
# Fine-tuned whole, BERT-large (335 million) ends badly by chance on the sets of GLUE below some
# 2,500 rows, and steadily only with many passes and small rates (2006.04884, 2006.05987): that is
# where this line lies for it. A small model has no such trouble whatever its rows (MiniLM, 10.8
# million learning: benchmarks/small_data.py at 100 rows), so it is never called oversized.
MOST_A_ROW = 150_000
SMALL = 40_000_000


def model_size(network: Network, examples: Examples) -> tuple[Decision, tuple[Finding, ...]]:
    """Learning parameters for each training row, and a warning where that is far too many.

    More than 150,000 a row in a model of which more than 40 million learn is oversized: an adapter,
    freezing or a smaller model is the remedy. No row gives no ratio and no warning.
    """
    rows = len(examples)
    _, learns = count_parameters(network)
    tokens = int(examples.lengths.sum())
    a_row = learns / rows if rows else 0.0
    size = (
        f"{learns:,} parameters learn from {rows:,} rows: {a_row:,.0f} a row, "
        f"{learns / max(1, tokens):,.0f} a token of them"
    )
    oversized = learns > SMALL and a_row > MOST_A_ROW
    why = _why(network, learns, oversized)
    decision = Decision(CHECK, "oversized" if oversized else "fits", f"{size}; {why}")
    return decision, (_finding(size, a_row, rows, learns),) if oversized else ()


def _why(network: Network, learns: int, oversized: bool) -> str:
    if oversized:
        return f"above {MOST_A_ROW:,} a row, some runs fail by chance"
    if network.adapter is not None:
        return "the adapter keeps the trainable parameters few"
    if learns <= SMALL:
        return f"up to {SMALL // 10**6} million, no benchmark had too few rows"
    return f"up to {MOST_A_ROW:,} a row, full fine-tuning was stable in benchmarks"


def _finding(size: str, a_row: float, rows: int, learns: int) -> Finding:
    fits = max(SMALL, MOST_A_ROW * rows)
    return Finding(
        CHECK,
        "warn",
        min(1.0, a_row / MOST_A_ROW / 10),
        rows,
        (),
        f"{size}; above {MOST_A_ROW:,} a row a run of so large a model may end badly by chance",
        "Use --set model.adapter.kind=lora (under 1 % learns), freeze the first layers "
        f"(--set model.freeze=0.75), or take a model of at most {fits / 1e6:,.0f} million "
        "parameters.",
    )
