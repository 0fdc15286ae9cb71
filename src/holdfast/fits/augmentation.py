"""Other forms of the training rows, put together: which enrichments, of which rows, and what is
reported of them."""

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
from holdfast.contract.fit import EncodedSplits, TaskDefinition
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

# Images compared with their mirror images; more show no more.
MAX_MIRRORED = 2000
# Below it an enrichment changes too few rows to be what was requested.
MIN_CHANGED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class EnrichedPlan:
    """The plan whose phases draw rows in other forms, and the ``settings`` of what makes them."""

    plan: Plan
    settings: Mapping[str, Any]
    on: bool = False


def enrich_plan(
    plan: Plan,
    definition: TaskDefinition[LoadedModel, Examples],
    loaded: LoadedModel,
    splits: EncodedSplits,
    recipe: Recipe,
) -> EnrichedPlan:
    """``plan`` with its rows in the forms that the recipe asks for; the log says what they do.

    Raises ``RecipeError`` where an enrichment does not fit the task, ``MachineError`` where what it
    needs is missing.
    """
    if recipe.task in IMAGE_TASKS:
        return _enrich_images(plan, splits, recipe)
    enrichments = check_enrich(recipe.enrich, "text")
    if not enrichments:
        return EnrichedPlan(plan, recipe.enrich)
    augmenters = make_all(enrichments)
    for one in augmenters.values():
        one.ready()
    forms = text_forms(augmenters, definition, loaded, splits, recipe)
    form_survey = survey(forms)
    phases = [replace(phase, source=Enriched(phase.source, forms)) for phase in plan.phases]
    for name, one in augmenters.items():
        _notify_of_forms(name, one, form_survey)
    return EnrichedPlan(replace(plan, phases=tuple(phases)), recipe.enrich, on=True)


def text_forms(
    augmenters: Mapping[str, Any],
    definition: TaskDefinition[LoadedModel, Examples],
    loaded: Any,
    splits: EncodedSplits,
    recipe: Recipe,
) -> Rewriting:
    """The training rows in the forms of these enrichments.

    Raises ``RecipeError`` for tags and plain texts, and for a function that breaks its promise.
    """
    table = splits.train_rows.table
    _refuse_where_words_are_bound(table, recipe, next(iter(augmenters)))
    # A tokenizer keeps how it cuts and pads: this one belongs to the thread that makes the forms.
    own_loaded = replace(loaded, tokenizer=copy.deepcopy(loaded.tokenizer))

    def encode(rows: Table) -> Examples:
        return definition.transform_examples(
            definition.encode(rows, own_loaded, recipe), own_loaded, rows
        )

    for one in augmenters.values():
        if isinstance(one, Own):
            first_rows = table.rows.with_format("arrow")[:3]
            check_function(load_function(one.function), read_rows(first_rows, table), one.function)
    return Rewriting(
        splits.train_rows,
        row_positions(splits.train, len(table)),
        augmenters,
        encode,
        recipe.seed,
        splits.added,
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


def row_positions(examples: Any, rows: int) -> Ints:
    """Where the row of each example stands in its table of so many ``rows`` [examples]."""
    if len(examples) == rows:
        return np.arange(rows)
    kept_positions = getattr(examples, "kept", None)
    positions: Ints = examples.positions if kept_positions is None else kept_positions
    return positions


def _notify_of_forms(name: str, one: object, form_survey: FormSurvey) -> None:
    """What an enrichment does to rows, seen before any is learned from; and a finding where it
    leaves nearly every row as it is."""
    settings = names_of(one, ("share", "strength", "copies", "similarity"))
    changed, lost = form_survey.changed[name], sum(form_survey.kept[name].values())
    parts = [
        "set by you",
        f"{changed} of {count_phrase(form_survey.rows, 'training row')} looked at come out "
        "otherwise",
    ]
    if lost:
        why = ", ".join(f"{cause} {count}" for cause, count in form_survey.kept[name].items())
        parts.append(f"{count_phrase(lost, 'form')} fall back to the row ({why})")
    if name in form_survey.alike:
        parts.append(f"the median likeness of meaning is {form_survey.alike[name]:.2f}")
        before, after = form_survey.shown[name]
        parts.append(f"e.g. {_shorten(before)!r} → {_shorten(after)!r}")
    parts.append(f"known: {ENRICHMENTS[name].known}")
    notify(Decision("enrich", f"{name} ({settings})", "; ".join(parts)))
    share = changed / max(1, form_survey.rows)
    if share >= MIN_CHANGED_SHARE:
        return
    why = f", {count_phrase(lost, 'form')} lost meaning" if lost else ""
    because = f"enrich.{name} changes {changed} of {form_survey.rows} rows that were looked at{why}"
    remedy = f"Leave enrich.{name} out, or look whether it is made for this language."
    notify(
        Finding(
            "idle_enrichment", "warn", 1 - share, form_survey.rows - changed, (), because, remedy
        )
    )


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _enrich_images(plan: Plan, splits: EncodedSplits, recipe: Recipe) -> EnrichedPlan:
    examples = splits.train
    assert isinstance(examples, EncodedImages)
    enrichments = check_enrich(recipe.enrich, "pictures")
    if not enrichments:
        return EnrichedPlan(plan, recipe.enrich)
    _settle_mirror(enrichments, examples, recipe.seed)
    augmenters = make_all(enrichments)
    unsupported = [name for name, one in augmenters.items() if one.needs_colours]
    if unsupported and examples.pixels.affine is None:
        rule = "works on colours, and this model's processor does more than scale them"
        remedy = "Leave it out; crop, flip, resize, rotate and erase work."
        raise RecipeError(f"enrich.{unsupported[0]}", rule, None, remedy)
    for name, one in augmenters.items():
        settings = names_of(one, ("share", "strength", "least", "degrees", "most", "alpha"))
        known = ENRICHMENTS[name].known
        because = f"set by you; another form each time a picture comes up; known: {known}"
        notify(Decision("enrich", f"{name} ({settings})", because))
    forms = Redrawing(
        splits.train_rows,
        examples,
        augmenters,
        lambda rows: examples.pixels.colours(examples.places[rows]),
        examples.pixels.from_colours,
        recipe.seed,
    )
    phases = tuple(_with_image_forms(phase, forms) for phase in plan.phases)
    return EnrichedPlan(replace(plan, phases=phases), {**recipe.enrich, **enrichments}, on=True)


def _settle_mirror(
    enrichments: dict[str, dict[str, Any]], examples: EncodedImages, seed: int
) -> None:
    """Whether images are mirrored where that is left to the rows, which settles it in
    ``enrichments``; and a warning where a mirror that is set changes what they mean."""
    usual = enrichments.get("usual", {})
    undecided = usual.get("mirror") == BY_EVIDENCE
    if not (undecided or usual.get("mirror") == YES or "flip" in enrichments):
        return
    rng = generator(seed, "enrich", "mirror rows")
    rows = np.sort(rng.permutation(len(examples))[:MAX_MIRRORED])
    pixels = examples.pixels.colours(examples.places[rows])
    mirror_test = in_a_mirror(pixels, examples.labels[rows], seed)
    if undecided:
        usual["mirror"] = YES if mirror_test.alike else NO
        sentence = "pictures are mirrored" if mirror_test.alike else "no picture is mirrored"
        notify(Decision("enrich", sentence, f"{mirror_test.because} (enrich.usual.mirror)"))
    elif not mirror_test.alike:
        loses = (mirror_test.plain - mirror_test.mirrored) / max(
            1e-9, mirror_test.plain - mirror_test.chance
        )
        notify(
            Finding(
                "mirror_changes_meaning",
                "warn",
                min(1.0, max(0.0, loses)),
                0,
                (),
                f"pictures are mirrored, and {mirror_test.because}",
                "Set enrich.flip=false or enrich.usual.mirror=no where left and right matter.",
            )
        )


def _with_image_forms(phase: Phase, forms: Redrawing) -> Phase:
    """The phase with its images in other forms; where rows are compared none is of two classes,
    and nothing is mixed."""
    alone = {k: v for k, v in forms.enrichments.items() if not isinstance(v, Mixing)}
    if phase.compares_rows or not forms.mixing:
        if not alone:
            return phase
        return replace(phase, source=Enriched(phase.source, replace(forms, enrichments=alone)))
    source = Enriched(phase.source, forms)
    return replace(phase, source=source, terms=(*phase.terms, MixedLabels()))
