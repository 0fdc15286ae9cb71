"""Enrich training rows: which enrichments apply to which rows, and what is reported about them."""

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
from holdfast.core.printable import shorten
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

# The most images compared with their mirror images; more do not change the result.
MAX_MIRRORED = 2000
# Below this share of changed rows an enrichment is reported as idle.
MIN_CHANGED_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class EnrichedPlan:
    """The plan whose phases draw enriched rows, and the ``settings`` of the enrichments."""

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
    """``plan`` with its rows enriched as the recipe asks; the effects are logged.

    Raises ``RecipeError`` where an enrichment does not fit the task, ``MachineError`` where a
    requirement is missing.
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
    """The training rows, rewritten by these enrichments.

    Raises ``RecipeError`` for tags and plain texts, and for a function that breaks its contract.
    """
    table = splits.train_rows.table
    _refuse_where_words_are_bound(table, recipe, next(iter(augmenters)))
    # A tokenizer stores truncation and padding as state: the rewriting thread has its own copy.
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
    """Refuse tags, which belong to words, and plain text, in which every token is a target."""
    if recipe.task in TAGGING_TASKS:
        why = "the tags belong to the original words"
    elif recipe.task in DECODER_TASKS and "[]" in table.rows[:1]["turns"]:
        why = "in plain text every token is a target, so a changed token would be learned too"
    else:
        return
    raise RecipeError(
        f"augment.{name}", f"does not apply to these rows: {why}", recipe.task, "Leave it out."
    )


def row_positions(examples: Any, rows: int) -> Ints:
    """The row of each example in its table of ``rows`` rows [examples]."""
    if len(examples) == rows:
        return np.arange(rows)
    kept_positions = getattr(examples, "kept", None)
    positions: Ints = examples.positions if kept_positions is None else kept_positions
    return positions


def _notify_of_forms(name: str, one: object, form_survey: FormSurvey) -> None:
    """Log how an enrichment changes rows, before training; and a finding where it leaves nearly
    every row unchanged."""
    settings = names_of(one, ("share", "strength", "copies", "similarity"))
    changed, lost = form_survey.changed[name], sum(form_survey.kept[name].values())
    parts = [
        "set in the recipe",
        f"{changed} of {count_phrase(form_survey.rows, 'sampled training row')} are changed",
    ]
    if lost:
        why = ", ".join(f"{cause} {count}" for cause, count in form_survey.kept[name].items())
        parts.append(
            f"{count_phrase(lost, 'rewritten text')} rejected in favour of the original ({why})"
        )
    if name in form_survey.alike:
        parts.append(f"median semantic similarity {form_survey.alike[name]:.2f}")
        before, after = form_survey.shown[name]
        parts.append(f"for example {shorten(before, 80)!r} → {shorten(after, 80)!r}")
    parts.append(f"known results: {ENRICHMENTS[name].known}")
    notify(Decision("augmentation", f"{name} ({settings})", "; ".join(parts)))
    share = changed / max(1, form_survey.rows)
    if share >= MIN_CHANGED_SHARE:
        return
    why = f"; {count_phrase(lost, 'rewritten text')} changed the meaning" if lost else ""
    because = f"augment.{name} changes {changed} of {form_survey.rows} sampled rows{why}"
    remedy = f"Remove augment.{name}, or check whether it supports this language."
    notify(
        Finding(
            "idle_enrichment", "warn", 1 - share, form_survey.rows - changed, (), because, remedy
        )
    )


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
        rule = "changes colours, but the model's image processor does more than scale them"
        remedy = "Remove it; crop, flip, resize, rotate and erase work."
        raise RecipeError(f"augment.{unsupported[0]}", rule, None, remedy)
    for name, one in augmenters.items():
        settings = names_of(one, ("share", "strength", "least", "degrees", "most", "alpha"))
        known = ENRICHMENTS[name].known
        because = (
            f"set in the recipe; each use of an image is changed again; known results: {known}"
        )
        notify(Decision("augmentation", f"{name} ({settings})", because))
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
    """Decide whether images are mirrored where the recipe leaves it open, and store it in
    ``enrichments``; warn where mirroring is set and changes the meaning of images."""
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
        sentence = "images are mirrored" if mirror_test.alike else "images are not mirrored"
        notify(Decision("augmentation", sentence, f"{mirror_test.because} (augment.usual.mirror)"))
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
                f"images are mirrored, but {mirror_test.because}",
                "Set augment.flip=false or augment.usual.mirror=no where left and right matter.",
            )
        )


def _with_image_forms(phase: Phase, forms: Redrawing) -> Phase:
    """The phase with enriched images. In a phase of contrast, no image has two classes and nothing
    is mixed."""
    alone = {k: v for k, v in forms.enrichments.items() if not isinstance(v, Mixing)}
    if phase.compares_rows or not forms.mixing:
        if not alone:
            return phase
        return replace(phase, source=Enriched(phase.source, replace(forms, enrichments=alone)))
    source = Enriched(phase.source, forms)
    return replace(phase, source=source, terms=(*phase.terms, MixedLabels()))
