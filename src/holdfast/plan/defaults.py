"""The default recipe: a table by number of rows and type of model; and a recipe's training phases.

Each line names the benchmark or the reference behind it. A value that the user sets always takes
precedence. A value far outside its usual range leads to a finding, never to a silent change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.augment.registry import check_enrich, input_type, requested_enrichments
from holdfast.contract.fit import PreparedData, class_count
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.core.setting_names import plain_key
from holdfast.core.settings import MOST
from holdfast.core.tasks import CLASSIFICATION_TASKS, GENERATIVE_TASKS
from holdfast.core.wording import count_phrase
from holdfast.methods.conflicts import ConflictQuery
from holdfast.methods.conflicts import useless_settings as useless_pairs
from holdfast.methods.contrast import MANY_CLASSES
from holdfast.methods.optimizers import WARMUPS
from holdfast.methods.registry import (
    Parts,
    RunContext,
    Stage,
    all_methods,
    check_methods,
    complete_settings,
    parts_of,
)
from holdfast.models.layers import BACKBONE, count_parameters
from holdfast.plan.adapters import rate_factor
from holdfast.plan.control import PASSIVE_POLICIES
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe, resolve_recipe
from holdfast.training.plan import EveryRow, OnePass, Phase, steps_for

# An encoder of base size that was trained to encode sentences.
SENTENCE_ENCODER = "base sentence encoder"
SMALL_PARAMETERS = 40_000_000
LARGE_PARAMETERS = 200_000_000


@dataclass(frozen=True, slots=True)
class Default:
    """One line of the table, for up to ``rows`` training rows (``None``: any) of at least
    ``classes`` classes.

    ``model_type`` is by parameters: small below 40 million, base below 200 million, large above; or
    the task's name for its type of model (``vision``, ``resnet``). A run first takes
    ``contrast_steps`` of supervised contrast with a refitted head, at ``contrast_rate`` times the
    learning rate (by default the method's own), then ``epochs`` of fine-tuning from the linear
    probe; either may be zero. With ``folds`` validation rows are learned from too, and every choice
    is made out of fold; ``rows`` are then training and validation rows together. ``source`` is the
    benchmark of this repository that chose the line (``benchmarked``), else the reference that it
    follows. What follows from ``benchmarked`` (the checkpoint, the rate of a shorter run) was
    measured with classifiers only, so lines of other models leave it out.
    """

    model_type: str
    rows: int | None
    contrast_steps: int
    epochs: float
    batch_size: int
    learning_rate: float
    source: str
    benchmarked: bool = False
    classes: int = 0
    folds: int = 0
    contrast_rate: float | None = None


DEFAULTS_TABLE = (
    # Many classes with few rows: batches of many classes, contrasted with their names too (two
    # splits: 1.0 and 2.2 points above fine-tuning with the same names).
    Default(
        "small", 400, 40, 0, 16, 1e-4, "two splits of 385 rows of 77 classes", True, MANY_CLASSES
    ),
    Default(
        "small",
        64,
        25,
        0,
        16,
        1e-4,
        "benchmarks/default_plans.py at 50 rows",
        True,
        folds=2,
        contrast_rate=1.0,
    ),
    Default(
        "small",
        200,
        40,
        0,
        16,
        1e-4,
        "benchmarks/default_plans.py at 100 rows",
        True,
        folds=2,
        contrast_rate=1.0,
    ),
    Default("small", 400, 0, 6, 16, 1e-4, "benchmarks/default_plans.py at 400 rows", True, folds=2),
    Default("small", 800, 0, 6, 16, 1e-4, "benchmarks/plans.py at 400 rows", True),
    Default("small", None, 0, 3, 16, 1e-4, "benchmarks/quality.py at 1,600 rows", True),
    Default("base", 1000, 0, 12, 16, 3e-5, "more epochs on few rows, 2006.04884"),
    Default("base", None, 0, 4, 32, 3e-5, "common values, 1810.04805"),
    # As base, but for few rows: contrast was measured on encoders of sentences only.
    Default(
        SENTENCE_ENCODER,
        200,
        40,
        0,
        16,
        3e-5,
        "benchmarks/plans.py at 100 rows",
        True,
        folds=2,
        contrast_rate=2.0,
    ),
    Default(SENTENCE_ENCODER, 1000, 0, 4, 16, 5e-5, "benchmarks/plans.py at 400 rows", True),
    Default(
        SENTENCE_ENCODER, None, 0, 2, 16, 5e-5, "benchmarks/default_plans.py at 1,600 rows", True
    ),
    Default("large", 1000, 0, 12, 16, 1e-5, "more epochs on few rows, 2006.04884"),
    Default("large", None, 0, 3, 32, 1e-5, "common values, 1810.04805"),
    # Several labels, a number, or tags of words: no contrast, which needs one class per row.
    Default("small encoder", 800, 0, 10, 16, 1e-4, "as for classes, longer"),
    Default("small encoder", None, 0, 4, 16, 1e-4, "as for classes, longer"),
    Default("base encoder", 1000, 0, 12, 16, 3e-5, "more epochs on few rows, 2006.04884"),
    Default("base encoder", None, 0, 4, 32, 3e-5, "common values, not measured"),
    Default("large encoder", 1000, 0, 12, 16, 1e-5, "more epochs on few rows, 2006.04884"),
    Default("large encoder", None, 0, 3, 32, 1e-5, "common values, not measured"),
    Default("static", None, 0, 20, 32, 1e-3, "a table of vectors learns at higher learning rates"),
    Default("vision", 1000, 0, 10, 16, 1e-4, "common values, 2106.10270"),
    Default("vision", None, 0, 5, 32, 5e-5, "common values, 2106.10270"),
    Default("resnet", 1000, 0, 10, 16, 5e-4, "a higher learning rate, 2110.00476"),
    Default("resnet", None, 0, 6, 32, 3e-4, "a higher learning rate, 2110.00476"),
    Default("t5", 1000, 0, 10, 8, 1e-4, "T5 learns at higher learning rates, 1910.10683"),
    Default("t5", None, 0, 4, 16, 1e-4, "T5 learns at higher learning rates, 1910.10683"),
    Default("seq2seq", 1000, 0, 10, 8, 3e-5, "common values, 1910.13461"),
    Default("seq2seq", None, 0, 4, 16, 3e-5, "common values, 1910.13461"),
    Default("small decoder", 1000, 0, 20, 16, 3e-4, "benchmarks/language.py at 100 rows"),
    Default("small decoder", None, 0, 3, 16, 3e-4, "common values, not measured"),
    Default("base decoder", None, 0, 3, 16, 1e-4, "benchmarks/language.py, with LoRA"),
    Default("large decoder", None, 0, 3, 16, 2e-5, "the learning rate of 2307.09288"),
)
LEARNING_RATE_REGIONS = {
    "small": (1e-5, 1e-3),
    "base": (3e-6, 3e-4),
    SENTENCE_ENCODER: (3e-6, 3e-4),
    "large": (1e-6, 1e-4),
    "small encoder": (1e-5, 1e-3),
    "base encoder": (3e-6, 3e-4),
    "large encoder": (1e-6, 1e-4),
    "static": (1e-5, 3e-2),
    "vision": (3e-6, 1e-3),
    "resnet": (1e-5, 1e-2),
    "t5": (1e-5, 2e-3),
    "seq2seq": (3e-6, 1e-3),
    "small decoder": (1e-5, 3e-3),
    "base decoder": (5e-6, 1e-3),
    "large decoder": (1e-6, 2e-4),
}
FINETUNE = "finetune"
# Methods that a plan may use by default; and those that weight its rows.
DEFAULT_METHODS = ("contrast", "probe_first")
ROW_METHODS = ("label_weights",)
# The population that predictions are for where the recipe chooses the checkpoint by a metric that
# counts every class alike: see ``methods/balance.py`` and benchmarks/balance.py.
METRIC_TARGETS = {"f1_macro": "half", "recall_macro": "even"}
# The fewest rows for contrast by default: fewer rarely hold two rows of each of two classes.
MIN_ROWS_FOR_CONTRAST = 4
# No warmup for generative models: Adam's first steps are its largest, and a short run needs them.
# On summaries, after 76 steps, warmup over a tenth of them gave a loss 0.020 nats higher, and over
# three steps 0.017: the full gap to a trainer without one. Classifiers are unstable on few rows
# without warmup (2006.04884).
WARMUP, GENERATIVE_WARMUP = 0.1, 0.0
GENERATIVE_PART_ROWS = 4
EPOCHS_WITHOUT_CONTRAST = 20.0


def model_size(parameters: int) -> str:
    """``small``, ``base`` or ``large``."""
    if parameters < SMALL_PARAMETERS:
        return "small"
    return "base" if parameters < LARGE_PARAMETERS else "large"


def default_for(parameters: int, rows: int, model: str | None = None, classes: int = 0) -> Default:
    """The line of the table for a model of this size, or of the type that ``model`` names, and for
    training rows of this number and this many classes (0: no classes, or few)."""
    model_type = model or model_size(parameters)
    matching = (
        d
        for d in DEFAULTS_TABLE
        if d.model_type == model_type and (d.rows is None or rows <= d.rows)
    )
    return next(d for d in matching if classes >= d.classes)


def default_folds(prepared: PreparedData) -> int:
    """The folds of a recipe that leaves ``train.folds`` open, for its training and validation rows;
    0 (validation rows are set aside) where the recipe is not the one that was benchmarked
    (``against_folds``), or where a class has too few rows."""
    return 0 if against_folds(prepared.recipe) else benchmarked_folds(prepared)


def against_folds(recipe: Recipe) -> list[str]:
    """The settings by which a recipe is not the one that was benchmarked with folds: other methods,
    or how long or which layers to train. ``control.policy=adapt`` compares another number of epochs
    with the default one (``fits/plan_trial.py``), so there it is none of them."""
    passive = recipe.control.policy in PASSIVE_POLICIES
    stated = {
        "train.epochs": recipe.train.epochs if passive else None,
        "train.max_steps": recipe.train.max_steps,
        "model.adapter.kind": recipe.model.adapter.method,
        "model.freeze": recipe.model.freeze,
    }
    methods = [f"methods.{name}" for name in extra_methods(recipe)]
    return [*(name for name, value in stated.items() if value is not None), *methods]


def benchmarked_folds(prepared: PreparedData) -> int:
    """The folds of the benchmarked recipe for these rows."""
    parameters = count_parameters(prepared.loaded.network)[0]
    classes = class_count(prepared)
    folds = default_for(parameters, len(prepared), prepared.loaded.defaults, classes).folds
    # Two of each class outside each fold: contrast compares rows of a class.
    return folds if folds and _min_class_units(prepared) >= 2 * folds else 0


def may_have_folds(recipe: Recipe, rows: int) -> bool:
    """Whether ``rows`` training and validation rows are cross-fitted from some base model."""
    folds = recipe.train.folds
    if folds is not None:
        return folds > 0
    return any(d.folds > 0 and (d.rows is None or rows <= d.rows) for d in DEFAULTS_TABLE)


def _min_class_units(prepared: PreparedData) -> int:
    """The number of units of the class with the fewest."""
    labels = np.asarray(prepared.rows.column("label"))
    return min(len(np.unique(prepared.units[labels == label])) for label in np.unique(labels))


def resolve_settings(
    recipe: Recipe, parameters: int, rows: int, model: str | None = None, classes: int = 0
) -> tuple[Recipe, tuple[Decision, ...]]:
    """Fill in every training setting that the recipe leaves open, each with its reason. ``model``
    names a type of model in the table, where it is not chosen by size; ``classes`` is the number of
    classes."""
    default = default_for(parameters, rows, model, classes)
    methods = _resolve_methods(recipe, default, rows, classes)
    given = recipe.train.model_dump()
    defaults: dict[str, Any] = {
        "epochs": _epochs(default, methods, rows),
        "batch_size": default.batch_size,
        "learning_rate": default.learning_rate * rate_factor(recipe),
        "optimizer": "adamw",
        "schedule": "linear",
        "weight_decay": 0.01,
        "warmup": _warmup(recipe),
        "label_smoothing": 0.0,
        "layer_decay": 1.0,
        "clip": 1.0,
        "metric": "refined_loss",
        "head": _head_setting(recipe),
    }
    filled = {key: value for key, value in defaults.items() if given[key] is None}
    default_freeze = "words" if model in (None, SENTENCE_ENCODER) else "none"
    if recipe.model.adapter.method:
        default_freeze = "none"
    freeze = default_freeze if recipe.model.freeze is None else recipe.model.freeze
    complete = recipe.model_copy(
        update={
            # The methods choose another metric where the plan measurably gains by it.
            "train": recipe.train.model_copy(update={"keep": given["keep"] or "lowest", **filled}),
            "methods": methods,
            "enrich": _enrichments(recipe),
            "model": recipe.model.model_copy(update={"freeze": freeze}),
        }
    )
    # Phases of methods have batches of their own; they may be the whole plan.
    only_stages = 0 < (complete.train.epochs or 0) <= _stage_epochs(methods, rows)
    unused = ("epochs", "batch_size") if only_stages else ()
    settings_phrase = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in filled.items()
        if value is not None and key not in unused
    )
    classes_note = f" of {classes} classes" if default.classes else ""
    because = (
        f"the plan for {rows} training rows{classes_note} and a {default.model_type} model; "
        f"source: {default.source}"
    )
    adapter, factor = recipe.model.adapter.method, rate_factor(recipe)
    if adapter and "learning_rate" in filled:
        because += f"; with {adapter} {factor:g} times the learning rate of full fine-tuning"
    decision = Decision("default recipe", settings_phrase or "no open settings", because)
    return complete, (decision, *_method_decisions(methods, recipe))


def _method_decisions(methods: Mapping[str, object], recipe: Recipe) -> tuple[Decision, ...]:
    """A decision for each method that is not a default, with its settings and effect."""
    lines = []
    for name, settings in enabled_methods(methods).items():
        # A fit says itself how it weights its rows.
        if name in (*DEFAULT_METHODS, *ROW_METHODS):
            continue
        parts = parts_of({name: settings})
        default_settings = all_methods()[name].settings()
        settings_phrase = ", ".join(
            f"{key} {value:g}"
            if isinstance(value, (int, float))
            else f"{key} {_value_phrase(value)}"
            for key, value in settings.items()
            # Text settings at their default would make the line longer, not clearer.
            if isinstance(value, (int, float)) or value != getattr(default_settings, key)
        )
        effects = [
            f"each update passes its rows {parts.stepper.passes} times" if parts.stepper else "",
            "it samples the rows of fine-tuning" if parts.source else "",
            "it changes the loss of fine-tuning" if parts.terms else "",
            "general rows are added to each batch of fine-tuning" if parts.add_general_rows else "",
            f"{count_phrase(len(parts.stages), 'phase')} before fine-tuning"
            if parts.stages
            else "",
            f"{count_phrase(parts.copies, 'more copy', 'more copies')} of the trained weights"
            if parts.copies
            else "",
        ]
        reason = "set in the recipe"
        if name not in recipe.methods:
            reason = (
                f"{plain_key('train.metric')}={recipe.train.metric} gives every class equal weight "
                f"(to keep the class frequencies of the training rows: --set methods.{name}=false)"
            )
        because = "; ".join([reason, *filter(None, effects)])
        lines.append(
            Decision("method", f"{name} ({settings_phrase})" if settings_phrase else name, because)
        )
    return tuple(lines)


def _warmup(recipe: Recipe) -> float:
    usual = GENERATIVE_WARMUP if recipe.task in GENERATIVE_TASKS else WARMUP
    return WARMUPS.get(recipe.train.schedule or "", usual)


def _value_phrase(value: object) -> str:
    """A word, or a mapping of classes to shares."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{name}: {share:g}" for name, share in value.items())


def _head_setting(recipe: Recipe) -> str | None:
    """How the head is fitted to the base model's features; ``None`` where a row has no class."""
    if recipe.task in (None, *CLASSIFICATION_TASKS) and recipe.data.label_kind in (None, "class"):
        return "both"
    if recipe.train.head is not None:
        label_words = recipe.data.label_kind or recipe.task
        rule = f"does not apply to {label_words}: it needs one class per row"
        raise RecipeError("train.head", rule, recipe.train.head, "Leave it out.")
    return None


def _epochs(default: Default, methods: Mapping[str, object], rows: int) -> float:
    """Epochs over the training rows in all phases together."""
    of_stages = _stage_epochs(methods, rows)
    return of_stages + (default.epochs or (0 if of_stages else EPOCHS_WITHOUT_CONTRAST))


def _stage_epochs(methods: Mapping[str, object], rows: int) -> float:
    """Epochs over the training rows in the phases before fine-tuning, rounded up, so that the
    rounded number still covers every row drawn."""
    stages = parts_of(enabled_methods(methods)).stages
    return math.ceil(1000 * sum(stage.steps * stage.batch_size for stage in stages) / rows) / 1000


def _resolve_methods(
    recipe: Recipe, default: Default, rows: int, classes: int = 0
) -> dict[str, dict[str, Any] | bool]:
    """The settings of every method that is requested or a default, ``True`` for one without
    settings, or ``False`` for one that is off."""
    check_methods(recipe.methods)
    usual_rate = default.learning_rate * rate_factor(recipe)
    known = RunContext(rows, recipe.train.learning_rate or usual_rate, classes)
    frozen = recipe.model.freeze == BACKBONE
    if frozen and recipe.methods.get("contrast"):
        rule = f"trains the encoder, which model.freeze={BACKBONE} keeps as pretrained"
        raise RecipeError("methods.contrast", rule, None, "Remove one of the two.")
    contrasted = default.contrast_steps > 0 and rows >= MIN_ROWS_FOR_CONTRAST and not frozen
    stage: dict[str, Any] = {"steps": default.contrast_steps}
    if default.contrast_rate is not None:
        stage["learning_rate"] = min(default.contrast_rate * known.learning_rate, MOST)
    by_table = {"contrast": stage} if contrasted else {}
    default_on: dict[str, Any] = dict(zip(DEFAULT_METHODS, (bool(by_table), True), strict=True))
    target = METRIC_TARGETS.get(recipe.train.metric or "")
    if target and recipe.task in CLASSIFICATION_TASKS and recipe.data.label_kind in (None, "class"):
        default_on["balance"] = {"by": "none", "target": target}
    resolved_methods: dict[str, dict[str, Any] | bool] = {}
    for name, request in {**default_on, **recipe.methods}.items():
        if request is False:
            resolved_methods[name] = False
            continue
        _refuse_without_classes(recipe, name)
        given = request if isinstance(request, Mapping) else {}
        resolved_methods[name] = (
            complete_settings(name, {**by_table.get(name, {}), **given}, known) or True
        )
    return resolved_methods


def _enrichments(recipe: Recipe) -> dict[str, dict[str, Any] | bool]:
    """Every setting of the requested enrichments; ``False`` for the others."""
    on = check_enrich(recipe.enrich, input_type(recipe.task))
    return {name: on.get(name, False) for name in recipe.enrich}


def _refuse_without_classes(recipe: Recipe, name: str) -> None:
    one_class, method = recipe.data.label_kind in (None, "class"), all_methods()[name]
    if method.needs_one_answer and not one_class:
        rule = f"does not apply to data.label_kind={recipe.data.label_kind}: it needs classes"
        raise RecipeError(f"methods.{name}", rule, None, "Leave it out.")
    if not method.needs_classes or (recipe.task in (None, *CLASSIFICATION_TASKS) and one_class):
        return
    label_words = recipe.task if one_class else f"data.label_kind={recipe.data.label_kind}"
    raise RecipeError(
        f"methods.{name}",
        f"does not apply to {label_words}: it needs one class per row",
        None,
        "Leave it out.",
    )


def enabled_methods(methods: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """The settings of the methods that are on in a resolved recipe."""
    return {
        name: dict(settings) if isinstance(settings, Mapping) else {}
        for name, settings in methods.items()
        if settings is not False
    }


def extra_methods(recipe: Recipe) -> tuple[str, ...]:
    """The names of the methods that are on and change how a plan learns, without its defaults."""
    on = enabled_methods(recipe.methods)
    return tuple(name for name in on if name not in (*DEFAULT_METHODS, *ROW_METHODS))


def method_settings(recipe: ResolvedRecipe) -> dict[str, dict[str, Any]]:
    """The methods that are on in a resolved recipe, with their settings, including methods with
    their own recipe keys."""
    settings = enabled_methods(recipe.methods)
    if recipe.train.label_smoothing:
        settings["label_smoothing"] = {"share": recipe.train.label_smoothing}
    return settings


def method_parts(recipe: ResolvedRecipe) -> Parts:
    """The training components of the methods of a resolved recipe."""
    return parts_of(method_settings(recipe))


def plan_phases(
    recipe: ResolvedRecipe, parameters: int, rows: int, model: str | None = None, classes: int = 0
) -> tuple[Phase, ...]:
    """The phases of a resolved recipe for ``rows`` training rows.

    ``train.epochs`` limits the epochs over the training rows in all phases together, and
    ``train.max_steps`` their updates. The stages of methods come first; if fine-tuning follows,
    they take at most half of either. None follows where the stages have all of ``max_steps``.
    """
    parts = method_parts(recipe)
    per_step = recipe.train.batch_size * recipe.train.accumulate
    row_budget = recipe.train.epochs * rows
    most = recipe.train.max_steps
    stages_only = not default_for(parameters, rows, model, classes).epochs or (
        most is not None and sum(stage.steps for stage in parts.stages) >= most
    )
    share = (1.0 if stages_only else 0.5) / max(1, len(parts.stages))
    planned = [_stage_phase(recipe, stage, row_budget, share) for stage in parts.stages]
    before = [phase for phase in planned if phase is not None]
    remaining_rows = row_budget - sum(phase.steps * phase.batch_size for phase in before)
    # Less than one epoch is a rounding remainder, not a phase.
    steps = (
        steps_for(remaining_rows / rows, rows, per_step)
        if not before or remaining_rows >= rows
        else 0
    )
    if recipe.train.max_steps is not None:
        steps = min(steps, recipe.train.max_steps - sum(phase.steps for phase in before))
    after = [_finetune_phase(recipe, steps, parts)] if steps > 0 else []
    stepper = parts.stepper or OnePass()
    return tuple(
        replace(phase, stepper=stepper, copies=parts.copies) for phase in (*before, *after)
    )


def benchmarked_phases(
    recipe: ResolvedRecipe, parameters: int, rows: int, model: str | None = None, classes: int = 0
) -> tuple[Phase, ...] | None:
    """The phases of a recipe that leaves everything open, where a benchmark measured them, else
    ``None``."""
    if not default_for(parameters, rows, model, classes).benchmarked or recipe.model.adapter.method:
        return None
    open_settings = dict.fromkeys(
        (
            "epochs",
            "max_steps",
            "batch_size",
            "learning_rate",
            "optimizer",
            "schedule",
            "warmup",
            "weight_decay",
            "layer_decay",
        )
    )
    train = recipe.train.model_copy(update={**open_settings, "accumulate": 1})
    bare = recipe.model_copy(update={"train": train, "methods": {}})
    usual, _ = resolve_settings(bare, parameters, rows, model, classes)
    return plan_phases(resolve_recipe(usual), parameters, rows, model, classes)


def _stage_phase(
    recipe: ResolvedRecipe, stage: Stage, row_budget: float, share: float
) -> Phase | None:
    """A method's stage as a phase within its share of the budget; ``None`` for no step."""
    # The small addend is for products that miss an integer from below.
    steps = min(stage.steps, int(share * row_budget / stage.batch_size + 1e-6))
    if recipe.train.max_steps is not None:
        steps = min(steps, max(1, int(share * recipe.train.max_steps)))
    if steps < 1:
        return None
    return Phase(
        name=stage.name,
        head=stage.head,
        source=stage.source,
        terms=stage.terms,
        steps=steps,
        batch_size=stage.batch_size,
        learning_rate=stage.learning_rate,
        head_learning_rate=stage.learning_rate,
        **_shared_settings(recipe),
    )


def _finetune_phase(recipe: ResolvedRecipe, steps: int, parts: Parts) -> Phase:
    train, writes = recipe.train, recipe.task in GENERATIVE_TASKS
    rate = train.learning_rate
    return Phase(
        name=FINETUNE,
        steps=steps,
        source=parts.source or (EveryRow(window=1) if writes else EveryRow()),
        terms=parts.terms,
        part_rows=GENERATIVE_PART_ROWS if writes and not train.pack else None,
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        learning_rate=rate,
        head_learning_rate=rate,
        **_shared_settings(recipe),
    )


def _shared_settings(recipe: ResolvedRecipe) -> dict[str, Any]:
    """The recipe's settings that all phases share."""
    train = recipe.train
    return {
        "optimizer": train.optimizer,
        "schedule": train.schedule,
        "warmup": train.warmup,
        "weight_decay": train.weight_decay,
        "layer_decay": train.layer_decay,
        "clip": train.clip,
    }


def unused_settings(recipe: ResolvedRecipe, phases: Sequence[Phase]) -> tuple[Finding, ...]:
    """A finding for fine-tuning methods where the plan has no fine-tuning phase."""
    enabled = enabled_methods(recipe.methods)
    idle_settings = [
        f"methods.{name}" for name in enabled if parts_of({name: enabled[name]}).changes_finetuning
    ]
    idle_settings += ["train.label_smoothing"] if recipe.train.label_smoothing else []
    stages = [phase.name for phase in phases]
    if not idle_settings or FINETUNE in stages:
        return ()
    because = (
        f"{' and '.join(idle_settings)} would change fine-tuning, but this plan has only "
        f"{stages[0]}"
    )
    remedy = f"Set methods.{stages[0]}=false."
    return (Finding("unused_setting", "warn", 0.5, len(idle_settings), (), because, remedy),)


def conflict_query(recipe: Recipe, phases: Sequence[Phase] = ()) -> ConflictQuery:
    """The settings that decide whether methods conflict, from a recipe that may have open settings;
    with the ``phases`` of its plan once they are known."""
    train, methods = recipe.train, enabled_methods(recipe.methods)
    if recipe.task in GENERATIVE_TASKS:
        # On by default, but generative models have no head to fit.
        methods.pop("probe_first", None)
    return ConflictQuery(
        methods=methods,
        enrich=frozenset(requested_enrichments(recipe.enrich)),
        optimizer=train.optimizer or "adamw",
        weight_decay=train.weight_decay or 0.0,
        label_smoothing=train.label_smoothing or 0.0,
        head_learns=not phases or any(phase.head == "train" for phase in phases),
    )


def useless_methods(recipe: ResolvedRecipe, phases: Sequence[Phase]) -> tuple[Finding, ...]:
    """Findings for pairs of methods of which one has no effect with the other."""
    return useless_pairs(conflict_query(recipe, phases))


def usual_rates(
    recipe: ResolvedRecipe, parameters: int, model: str | None = None
) -> tuple[float, float] | None:
    """The range of learning rates that usually works for such a model; ``None`` for SGD, whose
    rates depend on many other settings."""
    if recipe.train.optimizer == "sgd":
        return None
    low, high = LEARNING_RATE_REGIONS[model or model_size(parameters)]
    return low * rate_factor(recipe), high * rate_factor(recipe)


def unusual_settings(
    recipe: ResolvedRecipe, parameters: int, model: str | None = None
) -> tuple[Finding, ...]:
    """Findings for settings far outside the range that usually works."""
    model_type, usual = model or model_size(parameters), usual_rates(recipe, parameters, model)
    if usual is None:
        return ()
    low, high = usual
    rate = recipe.train.learning_rate
    if low <= rate <= high:
        return ()
    direction = "above" if rate > high else "below"
    adapter = recipe.model.adapter.method
    trained = f"{adapter} on a {model_type} model" if adapter else f"a {model_type} model"
    return (
        Finding(
            "unusual_setting",
            "warn",
            0.5,
            1,
            (),
            f"train.learning_rate {rate:g} is {direction} the usual range {low:g} to {high:g} "
            f"for {trained}",
            f"Remove train.learning_rate, or set it between {low:g} and {high:g}.",
        ),
    )
