"""What can be added to fine-tuning while a run is under way: ``training.restore.Additions`` of a
fit, from the registries of methods and of enrichments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.augment.image_forms import MixedLabels
from holdfast.augment.registry import all_enrichments, input_type, requested_enrichments
from holdfast.augment.source import Enriched
from holdfast.contract.fit import TrainingPlan
from holdfast.core.decisions import decisions_to, record_decisions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.events import Listener
from holdfast.core.updates import LossTerm
from holdfast.fits.augmentation import enrich_plan
from holdfast.methods.conflicts import check_conflicts
from holdfast.methods.registry import (
    Method,
    Parts,
    RunContext,
    all_methods,
    complete_settings,
    parts_of,
)
from holdfast.methods.replay import ReplaySource
from holdfast.plan.defaults import FINETUNE, conflict_query, method_parts, method_settings
from holdfast.recipe.resolution import resolve_recipe
from holdfast.training.plan import EveryRow, OnePass, Phase, Plan, terms_of_rows
from holdfast.training.restore import Settings

if TYPE_CHECKING:
    from holdfast.core.updates import BatchSource


# The factor by which one notch increases the settings for the strength of an enrichment.
STRONGER = 1.5
STRENGTH_KEYS = ("share", "strength", "most", "degrees", "alpha")
# The enrichment to switch on where none is active. Of texts none is known to gain; of images,
# shifts and mirrors do (benchmarks/results/enrich_pictures.md), and the others come after them.
NOTCHES: Mapping[str, tuple[Mapping[str, Settings], ...]] = {
    "text": ({"aeda": {"share": 0.5}}, {"aeda": {"share": 0.5}, "delete": {"share": 0.5}}),
    "pictures": (
        {"usual": {}},
        {"usual": {}, "erase": {}},
        {"usual": {"strength": 0.2}, "erase": {"strength": 0.4}},
    ),
}
MAX_NOTCHES = 3


class FitAdditions:
    """The additions of one fit: from its resolved recipe, its rows and its model."""

    def __init__(self, training_plan: TrainingPlan) -> None:
        self._plan = training_plan
        self._enriched_phases: dict[int, tuple[Phase, ...]] = {}

    def accepts(self, phase: Phase) -> bool:
        return phase.name == FINETUNE

    def complete_settings(
        self, name: str, given: Settings, active: Mapping[str, Settings]
    ) -> dict[str, Any]:
        try:
            training_plan = self._plan
            facts = RunContext(
                len(training_plan.train),
                training_plan.recipe.train.learning_rate,
                training_plan.classes,
            )
            method, settings = all_methods()[name], complete_settings(name, given, facts)
            self._check(name, method, settings, active)
        except RecipeError as error:
            rule = f"cannot be applied: {error.what} {error.rule}"
            raise RunError("the action SwitchOn", rule, name, error.remedy) from error
        return settings

    @property
    def possible(self) -> dict[str, dict[str, Any]]:
        """The methods that could be added to this run now, each by itself, with usual settings."""
        methods = {}
        for name in sorted(all_methods()):
            try:
                methods[name] = self.complete_settings(name, {}, {})
            except RunError:
                continue
        return methods

    @property
    def notches(self) -> int:
        if not any(self.accepts(phase) for phase in self._plan.plan.phases):
            return 0
        if self._own_enrichments():
            return MAX_NOTCHES
        try:
            self._forms(1)
        except (RecipeError, RunError):
            return 0
        return len(NOTCHES[self._row_type()])

    def add_to(self, phase: Phase, methods: Mapping[str, Settings], notches: int) -> Phase:
        if not self.accepts(phase):
            return phase
        recipe_parts = method_parts(self._plan.recipe)
        if notches:
            forms = next(one for one in self._forms(notches) if one.name == phase.name)
            source = self._with_general(forms.source, recipe_parts)
            phase = replace(phase, source=source, terms=forms.terms)
        if not methods:
            return phase
        parts = parts_of(methods)
        own_source = phase
        if parts.add_general_rows is not None or recipe_parts.add_general_rows is not None:
            own_source = replace(phase, source=_without_general(phase.source))
        return replace(
            phase,
            source=self._with_general(_source_with(own_source, parts), parts, recipe_parts),
            stepper=parts.stepper or phase.stepper,
            terms=(*phase.terms, *self._terms(parts)),
        )

    def listeners(self, name: str, settings: Settings) -> Sequence[Listener]:
        parts = parts_of({name: settings})
        return (*parts.listeners(), *parts.listeners_for(self._plan.loaded))

    def _check(
        self, name: str, method: Method, settings: Settings, active: Mapping[str, Settings]
    ) -> None:
        """Refuse a method that cannot be added: it is already on by the recipe, has its own phase,
        has no parts that fit, needs one class per row, or excludes another method."""
        recipe_methods = method_settings(self._plan.recipe)
        where = f"methods.{name}"
        if name in recipe_methods:
            raise RecipeError(where, "is already on by the recipe", None, "Name another.")
        if not method.joins:
            raise RecipeError(where, "acts only at the beginning of a run, which is over", None)
        parts = parts_of({name: settings})
        if parts.stages:
            raise RecipeError(where, "has its own phase before fine-tuning", None)
        # The method checks its requirements on the model here, before its parts are made.
        with record_decisions():
            parts.prepares(self._plan.loaded)
        listeners = self.listeners(name, settings)
        contributes = (
            parts.terms or parts.source or parts.stepper or parts.add_general_rows or listeners
        )
        if not contributes:
            raise RecipeError(where, "has no part that can be added during a run", None)
        labels = getattr(self._plan.train, "labels", None)
        if method.needs_classes and (labels is None or not self._one_class()):
            raise RecipeError(where, "needs one class per row", None)
        if method.needs_one_answer and not self._one_class():
            raise RecipeError(
                where, "needs one class per row, not several labels or a number", None
            )
        if method.needs_general and self._plan.splits.general_rows is None:
            raise RecipeError(where, "needs general rows, but none were prepared", None)
        parts_of({**recipe_methods, **active, name: settings})
        query = conflict_query(self._plan.recipe)
        check_conflicts(replace(query, methods={**query.methods, **active, name: settings}))
        draws_every_row = all(
            isinstance(_row_source(phase.source), EveryRow) and isinstance(phase.stepper, OnePass)
            for phase in self._plan.plan.phases
            if self.accepts(phase)
        )
        if (parts.source or parts.stepper) and not draws_every_row:
            raise RecipeError(
                where, "samples rows or computes gradients, as another method already does", None
            )
        self._terms(parts)

    def _one_class(self) -> bool:
        return self._plan.prepared.rows.columns.one_class

    def _with_general(self, source: BatchSource, *parts: Parts) -> BatchSource:
        """The source with general rows, where the recipe or the added method needs them."""
        rows = self._plan.splits.general_rows
        add_general = next(
            (one.add_general_rows for one in parts if one.add_general_rows is not None), None
        )
        return source if add_general is None or rows is None else add_general(source, rows)

    def _terms(self, parts: Parts) -> list[LossTerm]:
        return terms_of_rows(parts.terms, self._plan.train, self._plan.prepared.rows.classes)

    def _row_type(self) -> str:
        row_type = input_type(self._plan.recipe.task)
        assert row_type is not None
        return row_type

    def _own_enrichments(self) -> dict[str, Mapping[str, Any]]:
        """The enrichments of the recipe."""
        return requested_enrichments(self._plan.recipe.enrich)

    def _forms(self, notches: int) -> tuple[Phase, ...]:
        if notches not in self._enriched_phases:
            with decisions_to(None):
                self._enriched_phases[notches] = enrich_plan(
                    *self._enrich_arguments(notches)
                ).plan.phases
        return self._enriched_phases[notches]

    def _enrich_arguments(self, notches: int) -> tuple[Plan, Any, Any, Any, Any]:
        training_plan = self._plan
        own_enrichments, table = self._own_enrichments(), NOTCHES[self._row_type()]
        enrich = (
            _strengthened(own_enrichments, notches)
            if own_enrichments
            else table[min(notches, len(table)) - 1]
        )
        plain_plan = replace(
            training_plan.plan, phases=tuple(map(_plain_phase, training_plan.plan.phases))
        )
        recipe = resolve_recipe(training_plan.recipe.model_copy(update={"enrich": enrich}))
        return (
            plain_plan,
            training_plan.definition,
            training_plan.loaded,
            training_plan.splits,
            recipe,
        )


def _plain_phase(phase: Phase) -> Phase:
    """The phase with its rows without enrichment."""
    terms = tuple(term for term in phase.terms if not isinstance(term, MixedLabels))
    return replace(phase, source=_row_source(phase.source), terms=terms)


def _row_source(source: BatchSource) -> BatchSource:
    source = _without_general(source)
    return source.inner if isinstance(source, Enriched) else source


def _without_general(source: BatchSource) -> BatchSource:
    """The source without its general rows."""
    return source.inner if isinstance(source, ReplaySource) else source


def _source_with(phase: Phase, parts: Parts) -> Any:
    """The source of a method in place of the ordinary one, with the enriched rows of this phase."""
    if parts.source is None:
        return phase.source
    if isinstance(phase.source, Enriched):
        return Enriched(parts.source, phase.source.forms)
    return parts.source


def _strengthened(
    own_enrichments: Mapping[str, Mapping[str, Any]], notches: int
) -> dict[str, dict[str, Any]]:
    """Each strength setting of an enrichment, multiplied by ``STRONGER`` per notch, within its
    bounds."""
    registry, strengthened = all_enrichments(), {}
    for name, given in own_enrichments.items():
        fields = registry[name].settings.__dataclass_fields__
        settings = dict(given)
        for key in STRENGTH_KEYS:
            if key in fields:
                value = settings.get(key, fields[key].default)
                upper = fields[key].metadata["rule"].most
                settings[key] = min(upper, value * math.pow(STRONGER, notches))
        strengthened[name] = settings
    return strengthened
