"""The default recipe: one table by rows and kind of model, and how a recipe becomes a plan.

Each line names the benchmark that chose it. A value that the user sets always wins; a value far
outside its region is a finding, never a silent change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.augment.registry import asked_for, check_enrich, kind_of_rows
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding
from holdfast.core.tasks import CLASSIFIERS, WRITERS
from holdfast.core.wording import counted
from holdfast.methods.conflicts import ConflictQuery
from holdfast.methods.conflicts import useless_settings as useless_pairs
from holdfast.methods.contrast import MANY_CLASSES
from holdfast.methods.optimizers import WARMUPS
from holdfast.methods.registry import (
    RunContext,
    Parts,
    Stage,
    all_methods,
    check_methods,
    parts_of,
    complete_settings,
)
from holdfast.plan.adapters import rate_factor
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe, resolved
from holdfast.training.plan import EveryRow, OnePass, Phase, steps_for

SMALL_PARAMETERS = 40_000_000
LARGE_PARAMETERS = 200_000_000


@dataclass(frozen=True, slots=True)
class Default:
    """One line of the table, for up to ``rows`` training rows (``None``: any) of at least
    ``classes`` classes.

    ``kind`` is by parameters: small below 40 million, base below 200 million, large from there; or
    what the kind of task says of its model (``vision``, ``resnet``).
    A run takes ``contrast_steps`` of supervised contrast with a refitted head, then ``epochs`` of
    fine-tuning from the linear probe; either may be none. ``source`` is a benchmark of this
    repository, where that chose the line (``measured``), else what it follows.
    """

    kind: str
    rows: int | None
    contrast_steps: int
    epochs: float
    batch_size: int
    learning_rate: float
    source: str
    measured: bool = False
    classes: int = 0


TABLE = (
    # Many classes of few rows: batches of many classes, with which their names are contrasted too
    # (two divisions: 1.0 and 2.2 points above fine-tuning with the same names).
    Default(
        "small",
        400,
        40,
        0,
        16,
        1e-4,
        "benchmarks/signals.py at 385 rows of 77 classes",
        True,
        MANY_CLASSES,
    ),
    Default("small", 200, 75, 0, 16, 1e-4, "benchmarks/small_data.py at 100 rows", True),
    Default("small", 800, 0, 6, 16, 1e-4, "benchmarks/small_data.py at 400 rows", True),
    Default("small", None, 0, 3, 16, 1e-4, "benchmarks/standing.py at 1,600 rows", True),
    Default("base", 1000, 0, 12, 16, 3e-5, "many passes, 2006.04884"),
    Default("base", None, 0, 4, 32, 3e-5, "the usual region, 1810.04805"),
    Default("large", 1000, 0, 12, 16, 1e-5, "many passes, 2006.04884"),
    Default("large", None, 0, 3, 32, 1e-5, "the usual region, 1810.04805"),
    # Several labels, a number, or tags of words: no contrast, which needs a class a row.
    Default("small encoder", 800, 0, 10, 16, 1e-4, "as for classes, longer"),
    Default("small encoder", None, 0, 4, 16, 1e-4, "as for classes, longer"),
    Default("base encoder", 1000, 0, 12, 16, 3e-5, "many passes, 2006.04884"),
    Default("base encoder", None, 0, 4, 32, 3e-5, "the usual region"),
    Default("large encoder", 1000, 0, 12, 16, 1e-5, "many passes, 2006.04884"),
    Default("large encoder", None, 0, 3, 32, 1e-5, "the usual region"),
    Default("vision", 1000, 0, 10, 16, 1e-4, "the usual region, 2106.10270"),
    Default("vision", None, 0, 5, 32, 5e-5, "the usual region, 2106.10270"),
    Default("resnet", 1000, 0, 10, 16, 5e-4, "a higher rate, 2110.00476"),
    Default("resnet", None, 0, 6, 32, 3e-4, "a higher rate, 2110.00476"),
    Default("t5", 1000, 0, 10, 8, 1e-4, "T5 learns at higher rates, 1910.10683"),
    Default("t5", None, 0, 4, 16, 1e-4, "T5 learns at higher rates, 1910.10683"),
    Default("seq2seq", 1000, 0, 10, 8, 3e-5, "the usual region, 1910.13461"),
    Default("seq2seq", None, 0, 4, 16, 3e-5, "the usual region, 1910.13461"),
    Default("small decoder", 1000, 0, 5, 16, 3e-4, "the usual region"),
    Default("small decoder", None, 0, 3, 16, 3e-4, "the usual region"),
    Default("base decoder", None, 0, 3, 16, 1e-4, "the usual region"),
    Default("large decoder", None, 0, 3, 16, 2e-5, "the rate of 2307.09288"),
)
REGIONS = {
    "small": (1e-5, 1e-3),
    "base": (3e-6, 3e-4),
    "large": (1e-6, 1e-4),
    "small encoder": (1e-5, 1e-3),
    "base encoder": (3e-6, 3e-4),
    "large encoder": (1e-6, 1e-4),
    "vision": (3e-6, 1e-3),
    "resnet": (1e-5, 1e-2),
    "t5": (1e-5, 2e-3),
    "seq2seq": (3e-6, 1e-3),
    "small decoder": (1e-5, 3e-3),
    "base decoder": (5e-6, 1e-3),
    "large decoder": (1e-6, 2e-4),
}
# Tasks whose updates are means over tokens.
FINETUNE = "finetune"
# Methods that a plan may have without being asked.
USUAL = ("contrast", "probe_first")
# Fewer rows hold no two of two classes; a run that asked for it nevertheless is refused.
LEAST_FOR_CONTRAST = 4
# None where a model writes: Adam's first steps are its largest, and a short run needs them. After
# 76 steps on summaries a tenth of them ended 0.020 nats higher, three steps 0.017: all of the gap
# to a trainer without one. Classifiers are unstable on few rows without (2006.04884).
WARMUP, WARMUP_WRITING = 0.1, 0.0
PART_ROWS = 4
EPOCHS_WITHOUT_CONTRAST = 20.0


def size_of(parameters: int) -> str:
    """``small``, ``base`` or ``large``."""
    if parameters < SMALL_PARAMETERS:
        return "small"
    return "base" if parameters < LARGE_PARAMETERS else "large"


def line_for(parameters: int, rows: int, line: str | None = None, classes: int = 0) -> Default:
    """The line of the table for a model of this size, or of the kind that ``line`` names, and this
    many training rows of so many classes (0: no classes, or few)."""
    kind = line or size_of(parameters)
    fits = (d for d in TABLE if d.kind == kind and (d.rows is None or rows <= d.rows))
    return next(d for d in fits if classes >= d.classes)


def resolve(
    recipe: Recipe, parameters: int, rows: int, model: str | None = None, classes: int = 0
) -> tuple[Recipe, tuple[Decision, ...]]:
    """Fill in every training setting that the recipe leaves open, each with its reason. ``model``
    names a kind of model in the table, where it is not chosen by size; ``classes`` is their
    number."""
    line = line_for(parameters, rows, model, classes)
    methods = _methods(recipe, line, rows, classes)
    given = recipe.train.model_dump()
    wanted: dict[str, Any] = {
        "epochs": _epochs(line, methods, rows),
        "batch_size": line.batch_size,
        "learning_rate": line.learning_rate * rate_factor(recipe),
        "optimizer": "adamw",
        "schedule": "linear",
        "weight_decay": 0.01,
        "warmup": _warmup(recipe),
        "label_smoothing": 0.0,
        "layer_decay": 1.0,
        "clip": 1.0,
        "metric": "refined_loss",
        "head": _head(recipe),
    }
    filled = {key: value for key, value in wanted.items() if given[key] is None}
    freeze = recipe.model.freeze or ("none" if recipe.model.adapter.kind else None)
    unasked = "none" if model else "words"
    complete = recipe.model_copy(
        update={
            # The composition asks for another rule where the plan was measured to gain by it.
            "train": recipe.train.model_copy(update={"keep": given["keep"] or "lowest", **filled}),
            "methods": methods,
            "enrich": _enrichments(recipe),
            "model": recipe.model.model_copy(
                update={"freeze": unasked if freeze is None else freeze}
            ),
        }
    )
    shown = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in filled.items()
        if value is not None
    )
    many = f" of {classes} classes" if line.classes else ""
    because = f"{rows} training rows{many}, a {line.kind} model: {line.source}"
    filled_in = Decision("default recipe", shown or "nothing left open", because)
    return complete, (filled_in, *_asked_for(methods))


def _asked_for(methods: Mapping[str, object]) -> tuple[Decision, ...]:
    """A line for each method that no plan has by itself, with its settings and what it does."""
    lines = []
    for name, settings in _switched_on(methods).items():
        if name in USUAL:
            continue
        parts = parts_of({name: settings})
        usual = all_methods()[name].settings()
        shown = ", ".join(
            f"{key} {value:g}" if isinstance(value, (int, float)) else f"{key} {_named(value)}"
            for key, value in settings.items()
            # Words that stand as they usually do would make the line longer, not clearer.
            if isinstance(value, (int, float)) or value != getattr(usual, key)
        )
        does = [
            f"each update passes its rows {parts.stepper.passes} times" if parts.stepper else "",
            "it draws the rows of the fine-tuning" if parts.source else "",
            "it changes the losses of the fine-tuning" if parts.terms else "",
            "general rows pass beside those of the fine-tuning" if parts.add_general_rows else "",
            f"{counted(len(parts.stages), 'phase')} before the fine-tuning" if parts.stages else "",
            f"{counted(parts.copies, 'more copy', 'more copies')} of the weights that learn"
            if parts.copies
            else "",
        ]
        because = "; ".join(["set by you", *filter(None, does)])
        lines.append(Decision("method", f"{name} ({shown})" if shown else name, because))
    return tuple(lines)


def _warmup(recipe: Recipe) -> float:
    usual = WARMUP_WRITING if recipe.task in WRITERS else WARMUP
    return WARMUPS.get(recipe.train.schedule or "", usual)


def _named(value: object) -> str:
    """A word, or a table of classes with a share each."""
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{name}: {share:g}" for name, share in value.items())


def _head(recipe: Recipe) -> str | None:
    """How the head is fitted to the untouched features; ``None`` where a row has no class."""
    if recipe.task in (None, *CLASSIFIERS) and recipe.data.label_kind in (None, "class"):
        return "both"
    if recipe.train.head is not None:
        of = recipe.data.label_kind or recipe.task
        rule = f"does not exist for {of}: it needs a class a row"
        raise RecipeError("train.head", rule, recipe.train.head, "Leave it out.")
    return None


def _epochs(line: Default, methods: Mapping[str, object], rows: int) -> float:
    """Passes over the training rows in all phases together."""
    stages = parts_of(_switched_on(methods)).stages
    if not stages:
        return line.epochs or EPOCHS_WITHOUT_CONTRAST
    drawn = sum(stage.steps * stage.batch_size for stage in stages)
    # Rounded up, so that the number as it is written still pays for every row drawn.
    return math.ceil(1000 * drawn / rows) / 1000 + line.epochs


def _methods(
    recipe: Recipe, line: Default, rows: int, classes: int = 0
) -> dict[str, dict[str, Any] | bool]:
    """Every method that is asked for or usual, with all its settings, or ``False``; ``True`` for
    one without settings."""
    check_methods(recipe.methods)
    known = RunContext(rows, recipe.train.learning_rate or line.learning_rate, classes)
    contrasted = line.contrast_steps > 0 and rows >= LEAST_FOR_CONTRAST
    by_table = {"contrast": {"steps": line.contrast_steps}} if contrasted else {}
    usual = dict(zip(USUAL, (bool(by_table), True), strict=True))
    settled: dict[str, dict[str, Any] | bool] = {}
    for name, asked in {**usual, **recipe.methods}.items():
        if asked is False:
            settled[name] = False
            continue
        _refuse_without_classes(recipe, name)
        given = asked if isinstance(asked, Mapping) else {}
        settled[name] = complete_settings(name, {**by_table.get(name, {}), **given}, known) or True
    return settled


def _enrichments(recipe: Recipe) -> dict[str, dict[str, Any] | bool]:
    """Every setting of the enrichments that are asked for; ``False`` for those that are not."""
    on = check_enrich(recipe.enrich, kind_of_rows(recipe.task))
    return {name: on.get(name, False) for name in recipe.enrich}


def _refuse_without_classes(recipe: Recipe, name: str) -> None:
    one_class, method = recipe.data.label_kind in (None, "class"), all_methods()[name]
    if method.needs_one_answer and not one_class:
        rule = f"does not exist for data.label_kind={recipe.data.label_kind}: it compares answers"
        raise RecipeError(f"methods.{name}", rule, None, "Leave it out.")
    if not method.needs_classes or (recipe.task in (None, *CLASSIFIERS) and one_class):
        return
    of = recipe.task if one_class else f"data.label_kind={recipe.data.label_kind}"
    raise RecipeError(
        f"methods.{name}", f"does not exist for {of}: it needs a class a row", None, "Leave it out."
    )


def _switched_on(methods: Mapping[str, object]) -> dict[str, dict[str, Any]]:
    """The settings of those methods of a resolved recipe that are on."""
    return {
        name: dict(asked) if isinstance(asked, Mapping) else {}
        for name, asked in methods.items()
        if asked is not False
    }


def own_methods(recipe: Recipe) -> tuple[str, ...]:
    """The names of the methods that are on, without those that a plan has unasked."""
    on = (name for name, given in recipe.methods.items() if given is not False)
    return tuple(name for name in on if name not in USUAL)


def method_settings(recipe: ResolvedRecipe) -> dict[str, dict[str, Any]]:
    """Those methods of a resolved recipe that are on with their settings; those with keys of their
    own among them."""
    asked = _switched_on(recipe.methods)
    if recipe.train.label_smoothing:
        asked["label_smoothing"] = {"share": recipe.train.label_smoothing}
    return asked


def method_parts(recipe: ResolvedRecipe) -> Parts:
    """What the methods of a resolved recipe bring."""
    return parts_of(method_settings(recipe))


def phases_of(
    recipe: ResolvedRecipe, parameters: int, rows: int, model: str | None = None, classes: int = 0
) -> tuple[Phase, ...]:
    """The phases of a resolved recipe for ``rows`` training rows.

    ``train.epochs`` bounds the passes over the training rows in all phases together, and
    ``train.max_steps`` their updates. The stages of methods come first; where fine-tuning is to
    follow, they take at most half of either.
    """
    parts = method_parts(recipe)
    per_step = recipe.train.batch_size * recipe.train.accumulate
    row_budget = recipe.train.epochs * rows
    alone = not line_for(parameters, rows, model, classes).epochs
    share = (1.0 if alone else 0.5) / max(1, len(parts.stages))
    planned = [_stage_phase(recipe, stage, row_budget, share) for stage in parts.stages]
    before = [phase for phase in planned if phase is not None]
    left = row_budget - sum(phase.steps * phase.batch_size for phase in before)
    # Less than a pass is the rounding of a budget, not a phase.
    steps = steps_for(left / rows, rows, per_step) if not before or left >= rows else 0
    if recipe.train.max_steps is not None:
        steps = min(steps, recipe.train.max_steps - sum(phase.steps for phase in before))
    after = [_finetune_phase(recipe, steps, parts)] if steps > 0 else []
    stepper = parts.stepper or OnePass()
    return tuple(
        replace(phase, stepper=stepper, copies=parts.copies) for phase in (*before, *after)
    )


def measured_phases(
    recipe: ResolvedRecipe, parameters: int, rows: int, model: str | None = None, classes: int = 0
) -> tuple[Phase, ...] | None:
    """What a recipe that leaves everything open would do, where a benchmark has measured that;
    ``None`` where none has."""
    if not line_for(parameters, rows, model, classes).measured or recipe.model.adapter.kind:
        return None
    unset = dict.fromkeys(
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
    train = recipe.train.model_copy(update={**unset, "accumulate": 1})
    bare = recipe.model_copy(update={"train": train, "methods": {}})
    usual, _ = resolve(bare, parameters, rows, model, classes)
    return phases_of(resolved(usual), parameters, rows, model, classes)


def _stage_phase(
    recipe: ResolvedRecipe, stage: Stage, row_budget: float, share: float
) -> Phase | None:
    """A method's stage as a phase, as far as its share of the budget goes; ``None`` for no step."""
    # The sliver is for products that miss a whole number from below.
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
        **_shared(recipe),
    )


def _finetune_phase(recipe: ResolvedRecipe, steps: int, parts: Parts) -> Phase:
    train, writes = recipe.train, recipe.task in WRITERS
    rate = train.learning_rate
    return Phase(
        name=FINETUNE,
        steps=steps,
        source=parts.source or (EveryRow(window=1) if writes else EveryRow()),
        terms=parts.terms,
        part_rows=PART_ROWS if writes and not train.pack else None,
        batch_size=train.batch_size,
        accumulate=train.accumulate,
        learning_rate=rate,
        head_learning_rate=rate,
        **_shared(recipe),
    )


def _shared(recipe: ResolvedRecipe) -> dict[str, Any]:
    """What a recipe says of every phase."""
    train = recipe.train
    return {
        "optimizer": train.optimizer,
        "schedule": train.schedule,
        "warmup": train.warmup,
        "weight_decay": train.weight_decay,
        "layer_decay": train.layer_decay,
        "clip": train.clip,
    }


def unused(recipe: ResolvedRecipe, phases: Sequence[Phase]) -> tuple[Finding, ...]:
    """A finding for methods of the fine-tuning where the plan has none."""
    asked = _switched_on(recipe.methods)
    idle = [f"methods.{name}" for name in asked if parts_of({name: asked[name]}).changes_finetuning]
    idle += ["train.label_smoothing"] if recipe.train.label_smoothing else []
    stages = [phase.name for phase in phases]
    if not idle or FINETUNE in stages:
        return ()
    because = f"{' and '.join(idle)} changes the fine-tuning, and this plan has only {stages[0]}"
    remedy = f"Set methods.{stages[0]}=false."
    return (Finding("unused_setting", "warn", 0.5, len(idle), (), because, remedy),)


def asked_of(recipe: Recipe, phases: Sequence[Phase] = ()) -> ConflictQuery:
    """What a recipe, in which something may be open, asks of its methods; with the ``phases`` of
    its plan where that is made."""
    train, methods = recipe.train, _switched_on(recipe.methods)
    if recipe.task in WRITERS:
        # It is on by default, and of what writes no head is fitted.
        methods.pop("probe_first", None)
    return ConflictQuery(
        methods=methods,
        enrich=frozenset(asked_for(recipe.enrich)),
        optimizer=train.optimizer or "adamw",
        weight_decay=train.weight_decay or 0.0,
        label_smoothing=train.label_smoothing or 0.0,
        head_learns=not phases or any(phase.head == "train" for phase in phases),
    )


def useless(recipe: ResolvedRecipe, phases: Sequence[Phase]) -> tuple[Finding, ...]:
    """Findings for methods of which one does nothing beside the other."""
    return useless_pairs(asked_of(recipe, phases))


def usual_rates(
    recipe: ResolvedRecipe, parameters: int, model: str | None = None
) -> tuple[float, float] | None:
    """The least and the largest learning rate that are known to work for such a model; ``None``
    for SGD, whose rates depend on much else."""
    if recipe.train.optimizer == "sgd":
        return None
    low, high = REGIONS[model or size_of(parameters)]
    return low * rate_factor(recipe), high * rate_factor(recipe)


def unusual(
    recipe: ResolvedRecipe, parameters: int, model: str | None = None
) -> tuple[Finding, ...]:
    """Findings for settings far outside the region that is known to work."""
    kind, usual = model or size_of(parameters), usual_rates(recipe, parameters, model)
    if usual is None:
        return ()
    low, high = usual
    rate = recipe.train.learning_rate
    if low <= rate <= high:
        return ()
    side = "above" if rate > high else "below"
    return (
        Finding(
            "unusual_setting",
            "warn",
            0.5,
            1,
            (),
            f"train.learning_rate {rate:g} is {side} the usual region {low:g} to {high:g} "
            f"of a {kind} model",
            f"Leave train.learning_rate out, or set it between {low:g} and {high:g}.",
        ),
    )


PASSIVE = ("off", "stop")
