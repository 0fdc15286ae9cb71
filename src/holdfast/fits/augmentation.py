"""Other forms of the training rows, put together: which enrichments, of which rows, and what is
told of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.augment.image_forms import MixedLabels, Mixing, Redrawing
from holdfast.augment.pictures.warp import BY_EVIDENCE, NO, YES, in_a_mirror
from holdfast.augment.registry import ENRICHMENTS, check_enrich, make_all, names_of
from holdfast.augment.source import Enriched
from holdfast.augment.text_forms import FormSurvey, Rewriting, read_rows, survey
from holdfast.augment.texts.user_function import Own, check_function, load_function
from holdfast.contract.fit import TaskDefinition, EncodedSplits
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.table import Table
from holdfast.models.base import LoadedModel
from holdfast.recipe import Recipe
from holdfast.tasks.images.losses import EncodedImages
from holdfast.training.plan import Phase, Plan
from holdfast.training.task import Examples

# Looked at in a mirror; more tell no more.
MOST_MIRRORED = 2000
# Below it an enrichment changes so few rows that it is not what was asked for.
LEAST_CHANGED = 0.1


@dataclass(frozen=True, slots=True)
class EnrichedPlan:
    """The plan whose phases draw rows in other forms, and the ``settings`` of what makes them."""

    plan: Plan
    settings: Mapping[str, Any]
    on: bool = False


def enriched(
    plan: Plan, definition: TaskDefinition[LoadedModel, Examples], loaded: LoadedModel, sides: EncodedSplits, recipe: Recipe
) -> EnrichedPlan:
    """``plan`` with its rows in the forms that the recipe asks for; the log says what they do.

    Raises ``RecipeError`` where an enrichment does not fit the task, ``MachineError`` where what it
    needs is missing.
    """
    if recipe.task in IMAGE_TASKS:
        return _with_pictures(plan, sides, recipe)
    asked = check_enrich(recipe.enrich, "text")
    if not asked:
        return EnrichedPlan(plan, recipe.enrich)
    ways = make_all(asked)
    for one in ways.values():
        one.ready()
    forms = text_forms(ways, definition, loaded, sides, recipe)
    found = survey(forms)
    phases = [replace(phase, source=Enriched(phase.source, forms)) for phase in plan.phases]
    for name, one in ways.items():
        _notify_of_forms(name, one, found)
    return EnrichedPlan(replace(plan, phases=tuple(phases)), recipe.enrich, on=True)


def text_forms(
    ways: Mapping[str, Any], definition: TaskDefinition[LoadedModel, Examples], loaded: Any, sides: EncodedSplits, recipe: Recipe
) -> Rewriting:
    """The training rows in the forms of these enrichments.

    Raises ``RecipeError`` for tags and plain texts, and for a function that breaks its promise.
    """
    table = sides.train_rows.table
    _refuse_where_words_are_bound(table, recipe, next(iter(ways)))
    # A tokenizer keeps how it cuts and pads: this one belongs to the thread that makes the forms.
    mine = replace(loaded, tokenizer=copy.deepcopy(loaded.tokenizer))

    def encode(rows: Table) -> Examples:
        return definition.transform_examples(definition.encode(rows, mine, recipe), mine, rows)

    for one in ways.values():
        if isinstance(one, Own):
            first = table.rows.with_format("arrow")[:3]
            check_function(load_function(one.function), read_rows(first, table), one.function)
    return Rewriting(
        sides.train_rows, places_of(sides.train, len(table)), ways, encode, recipe.seed, sides.added
    )


def _refuse_where_words_are_bound(table: Table, recipe: Recipe, name: str) -> None:
    """Tags belong to words, and a plain text that a model learns to go on with is all answer."""
    if recipe.task in TAGGING_TASKS:
        why = "the tags belong to the words as they stand"
    elif recipe.task in DECODER_TASKS and "[]" in table.rows[:1]["turns"]:
        why = "of plain text every token is learned, so that a changed one would be learned too"
    else:
        return
    raise RecipeError(
        f"enrich.{name}", f"does not exist for these rows: {why}", recipe.task, "Leave it out."
    )


def places_of(examples: Any, rows: int) -> Ints:
    """Where the row of each example stands in its table of so many ``rows`` [examples]."""
    if len(examples) == rows:
        return np.arange(rows)
    kept = getattr(examples, "kept", None)
    found: Ints = examples.positions if kept is None else kept
    return found


def _notify_of_forms(name: str, one: object, found: FormSurvey) -> None:
    """What an enrichment does to rows, seen before any is learned from; and a finding where it
    leaves nearly every row as it is."""
    settings = names_of(one, ("share", "strength", "copies", "similarity"))
    changed, lost = found.changed[name], sum(found.kept[name].values())
    told = [
        "set by you",
        f"{changed} of {count_phrase(found.rows, 'training row')} looked at come out otherwise",
    ]
    if lost:
        why = ", ".join(f"{what} {count}" for what, count in found.kept[name].items())
        told.append(f"{count_phrase(lost, 'form')} fall back to the row ({why})")
    if name in found.alike:
        told.append(f"the median likeness of meaning is {found.alike[name]:.2f}")
        before, after = found.shown[name]
        told.append(f"e.g. {_short(before)!r} → {_short(after)!r}")
    told.append(f"known: {ENRICHMENTS[name].known}")
    notify(Decision("enrich", f"{name} ({settings})", "; ".join(told)))
    share = changed / max(1, found.rows)
    if share >= LEAST_CHANGED:
        return
    why = f", {count_phrase(lost, 'form')} lost meaning" if lost else ""
    because = f"enrich.{name} changes {changed} of {found.rows} rows that were looked at{why}"
    remedy = f"Leave enrich.{name} out, or look whether it is made for this language."
    notify(Finding("idle_enrichment", "warn", 1 - share, found.rows - changed, (), because, remedy))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _with_pictures(plan: Plan, sides: EncodedSplits, recipe: Recipe) -> EnrichedPlan:
    examples = sides.train
    assert isinstance(examples, EncodedImages)
    asked = check_enrich(recipe.enrich, "pictures")
    if not asked:
        return EnrichedPlan(plan, recipe.enrich)
    _settle_mirror(asked, examples, recipe.seed)
    ways = make_all(asked)
    wrong = [name for name, one in ways.items() if one.needs_colours]
    if wrong and examples.pixels.affine is None:
        rule = "works on colours, and this model's processor does more than scale them"
        remedy = "Leave it out; crop, flip, resize, rotate and erase work."
        raise RecipeError(f"enrich.{wrong[0]}", rule, None, remedy)
    for name, one in ways.items():
        settings = names_of(one, ("share", "strength", "least", "degrees", "most", "alpha"))
        known = ENRICHMENTS[name].known
        because = f"set by you; another form each time a picture comes up; known: {known}"
        notify(Decision("enrich", f"{name} ({settings})", because))
    forms = Redrawing(
        sides.train_rows,
        examples,
        ways,
        lambda rows: examples.pixels.colours(examples.places[rows]),
        examples.pixels.from_colours,
        recipe.seed,
    )
    phases = tuple(_drawn_with(phase, forms) for phase in plan.phases)
    return EnrichedPlan(replace(plan, phases=phases), {**recipe.enrich, **asked}, on=True)


def _settle_mirror(asked: dict[str, dict[str, Any]], examples: EncodedImages, seed: int) -> None:
    """Whether pictures are mirrored where that is left to the rows, which settles it in ``asked``;
    and a warning where a mirror that is set changes what they mean."""
    usual = asked.get("usual", {})
    open_ = usual.get("mirror") == BY_EVIDENCE
    if not (open_ or usual.get("mirror") == YES or "flip" in asked):
        return
    rng = generator(seed, "enrich", "mirror rows")
    rows = np.sort(rng.permutation(len(examples))[:MOST_MIRRORED])
    pixels = examples.pixels.colours(examples.places[rows])
    seen = in_a_mirror(pixels, examples.labels[rows], seed)
    if open_:
        usual["mirror"] = YES if seen.alike else NO
        chosen = "pictures are mirrored" if seen.alike else "no picture is mirrored"
        notify(Decision("enrich", chosen, f"{seen.because} (enrich.usual.mirror)"))
    elif not seen.alike:
        loses = (seen.plain - seen.mirrored) / max(1e-9, seen.plain - seen.chance)
        notify(
            Finding(
                "mirror_changes_meaning",
                "warn",
                min(1.0, max(0.0, loses)),
                0,
                (),
                f"pictures are mirrored, and {seen.because}",
                "Set enrich.flip=false or enrich.usual.mirror=no where left and right matter.",
            )
        )


def _drawn_with(phase: Phase, forms: Redrawing) -> Phase:
    """The phase with its pictures in other forms; where rows are compared none is of two classes,
    and nothing is mixed."""
    alone = {k: v for k, v in forms.enrichments.items() if not isinstance(v, Mixing)}
    if phase.compares_rows or not forms.mixing:
        if not alone:
            return phase
        return replace(phase, source=Enriched(phase.source, replace(forms, enrichments=alone)))
    source = Enriched(phase.source, forms)
    return replace(phase, source=source, terms=(*phase.terms, MixedLabels()))
