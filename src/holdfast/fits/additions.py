"""What may join the fine-tuning of a run that is under way:
``training.restore.Additions`` of a fit, from the registries of methods and of
enrichments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.augment.image_forms import MixedLabels
from holdfast.augment.registry import all_enrichments, requested_enrichments, input_type
from holdfast.augment.source import Enriched
from holdfast.contract.fit import TrainingPlan
from holdfast.core.decisions import decisions_to, decisions_and_findings, record_decisions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.events import Listener
from holdfast.core.records import Decision, Finding
from holdfast.core.updates import LossTerm
from holdfast.fits.augmentation import enriched
from holdfast.methods.conflicts import check_conflicts
from holdfast.methods.registry import RunContext, Method, Parts, all_methods, parts_of, complete_settings
from holdfast.methods.replay import ReplaySource
from holdfast.plan.defaults import FINETUNE, conflict_query, method_parts, method_settings
from holdfast.recipe.resolution import resolve_recipe
from holdfast.training.plan import EveryRow, OnePass, Phase, Plan, terms_of_rows
from holdfast.training.restore import Settings

if TYPE_CHECKING:
    from holdfast.core.updates import BatchSource


# One notch more of a number that says how much an enrichment does.
STRONGER = 1.5
STRENGTHS = ("share", "strength", "most", "degrees", "alpha")
# What is switched on where nothing is: benchmarks/methods.md has no other of texts above nothing
# (aeda +0.2 points, word-level changes below 0); shifts and mirrors gained 6 to 10 points on
# pictures, the others come after them.
NOTCHES: Mapping[str, tuple[Mapping[str, Settings], ...]] = {
    "text": ({"aeda": {"share": 0.5}}, {"aeda": {"share": 0.5}, "delete": {"share": 0.5}}),
    "pictures": (
        {"usual": {}},
        {"usual": {}, "erase": {}},
        {"usual": {"strength": 0.2}, "erase": {"strength": 0.4}},
    ),
}
MOST_NOTCHES = 3


class FitAdditions:
    """Of one fit: its resolved recipe, its rows, its model."""

    def __init__(self, ready: TrainingPlan) -> None:
        self._ready = ready
        self._enriched: dict[int, tuple[Phase, ...]] = {}

    def accepts(self, phase: Phase) -> bool:
        return phase.name == FINETUNE

    def complete_settings(self, name: str, given: Settings, on: Mapping[str, Settings]) -> dict[str, Any]:
        try:
            ready = self._ready
            known = RunContext(len(ready.train), ready.recipe.train.learning_rate, ready.classes)
            method, settings = all_methods()[name], complete_settings(name, given, known)
            self._check(name, method, settings, on)
        except RecipeError as error:
            rule = f"cannot be applied: {error.what} {error.rule}"
            raise RunError("the action SwitchOn", rule, name, error.remedy) from error
        return settings

    @property
    def possible(self) -> dict[str, dict[str, Any]]:
        """The methods that could join this run now, alone, with their usual settings."""
        found = {}
        for name in sorted(all_methods()):
            try:
                found[name] = self.complete_settings(name, {}, {})
            except RunError:
                continue
        return found

    @property
    def notches(self) -> int:
        if not any(self.accepts(phase) for phase in self._ready.plan.phases):
            return 0
        if self._mine():
            return MOST_NOTCHES
        try:
            self._forms(1)
        except (RecipeError, RunError):
            return 0
        return len(NOTCHES[self._of()])

    def add_to(self, phase: Phase, methods: Mapping[str, Settings], notches: int) -> Phase:
        if not self.accepts(phase):
            return phase
        mine = method_parts(self._ready.recipe)
        if notches:
            forms = next(one for one in self._forms(notches) if one.name == phase.name)
            source = self._with_general(forms.source, mine)
            phase = replace(phase, source=source, terms=forms.terms)
        if not methods:
            return phase
        parts = parts_of(methods)
        drawn = phase
        if parts.add_general_rows is not None or mine.add_general_rows is not None:
            drawn = replace(phase, source=_alone(phase.source))
        return replace(
            phase,
            source=self._with_general(_drawn_by(drawn, parts), parts, mine),
            stepper=parts.stepper or phase.stepper,
            terms=(*phase.terms, *self._terms(parts)),
        )

    def listeners(self, name: str, settings: Settings) -> Sequence[Listener]:
        parts = parts_of({name: settings})
        return (*parts.listeners(), *parts.listeners_for(self._ready.loaded))

    def told(self, notches: int) -> tuple[Decision | Finding, ...]:
        """What is known of rows enriched by so many notches more."""
        with record_decisions() as log:
            enriched(*self._asked(notches))
        decisions, findings = decisions_and_findings(log)
        return (*decisions, *findings)

    def _check(
        self, name: str, method: Method, settings: Settings, on: Mapping[str, Settings]
    ) -> None:
        """Refuse what cannot join: a method that is on by the recipe, one with a phase of its own
        or none of these parts, one that needs a class a row, one that excludes another."""
        known = method_settings(self._ready.recipe)
        where = f"methods.{name}"
        if name in known:
            raise RecipeError(where, "is on by the recipe", None, "Name another.")
        if not method.joins:
            raise RecipeError(where, "acts at the beginning of a run, which is over", None)
        parts = parts_of({name: settings})
        if parts.stages:
            raise RecipeError(where, "has a phase of its own, which comes first", None)
        # What a method needs of the model it says here, before it is made for it.
        with record_decisions():
            parts.prepares(self._ready.loaded)
        mine = self.listeners(name, settings)
        joins = parts.terms or parts.source or parts.stepper or parts.add_general_rows or mine
        if not joins:
            raise RecipeError(where, "brings nothing that a run under way could take", None)
        labels = getattr(self._ready.train, "labels", None)
        if method.needs_classes and (labels is None or not self._one_class()):
            raise RecipeError(where, "needs a class a row", None)
        if method.needs_one_answer and not self._one_class():
            raise RecipeError(where, "compares answers, and a row has several or a number", None)
        if method.needs_general and self._ready.splits.general_rows is None:
            raise RecipeError(where, "needs general rows, and none were prepared", None)
        parts_of({**known, **on, name: settings})
        asked = conflict_query(self._ready.recipe)
        check_conflicts(replace(asked, methods={**asked.methods, **on, name: settings}))
        ordinary = all(
            isinstance(_inner(phase.source), EveryRow) and isinstance(phase.stepper, OnePass)
            for phase in self._ready.plan.phases
            if self.accepts(phase)
        )
        if (parts.source or parts.stepper) and not ordinary:
            raise RecipeError(where, "draws rows or makes gradients as another method does", None)
        self._terms(parts)

    def _one_class(self) -> bool:
        return self._ready.prepared.rows.columns.one_class

    def _with_general(self, source: BatchSource, *wanted: Parts) -> BatchSource:
        """The source with general rows beside, where the recipe or what joins asks for them."""
        rows = self._ready.splits.general_rows
        beside = next((one.add_general_rows for one in wanted if one.add_general_rows is not None), None)
        return source if beside is None or rows is None else beside(source, rows)

    def _terms(self, parts: Parts) -> list[LossTerm]:
        return terms_of_rows(parts.terms, self._ready.train, self._ready.prepared.rows.classes)

    def _of(self) -> str:
        of = input_type(self._ready.recipe.task)
        assert of is not None
        return of

    def _mine(self) -> dict[str, Mapping[str, Any]]:
        """What the recipe enriches its rows with."""
        return requested_enrichments(self._ready.recipe.enrich)

    def _forms(self, notches: int) -> tuple[Phase, ...]:
        if notches not in self._enriched:
            with decisions_to(None):
                self._enriched[notches] = enriched(*self._asked(notches)).plan.phases
        return self._enriched[notches]

    def _asked(self, notches: int) -> tuple[Plan, Any, Any, Any, Any]:
        ready = self._ready
        mine, table = self._mine(), NOTCHES[self._of()]
        asked = _stronger(mine, notches) if mine else table[min(notches, len(table)) - 1]
        bare = replace(ready.plan, phases=tuple(map(_bare, ready.plan.phases)))
        recipe = resolve_recipe(ready.recipe.model_copy(update={"enrich": asked}))
        return bare, ready.definition, ready.loaded, ready.splits, recipe


def _bare(phase: Phase) -> Phase:
    """The phase with its rows as they are."""
    terms = tuple(term for term in phase.terms if not isinstance(term, MixedLabels))
    return replace(phase, source=_inner(phase.source), terms=terms)


def _inner(source: BatchSource) -> BatchSource:
    source = _alone(source)
    return source.inner if isinstance(source, Enriched) else source


def _alone(source: BatchSource) -> BatchSource:
    """The source without general rows beside."""
    return source.inner if isinstance(source, ReplaySource) else source


def _drawn_by(phase: Phase, parts: Parts) -> Any:
    """The source of a method in the place of the ordinary one, its rows in the forms of this."""
    if parts.source is None:
        return phase.source
    if isinstance(phase.source, Enriched):
        return Enriched(parts.source, phase.source.forms)
    return parts.source


def _stronger(mine: Mapping[str, Mapping[str, Any]], notches: int) -> dict[str, dict[str, Any]]:
    """Each number that says how much an enrichment does, times ``STRONGER`` a notch, as far as its
    bounds go."""
    known, found = all_enrichments(), {}
    for name, given in mine.items():
        fields = known[name].settings.__dataclass_fields__
        settings = dict(given)
        for key in STRENGTHS:
            if key in fields:
                value = settings.get(key, fields[key].default)
                most = fields[key].metadata["rule"].most
                settings[key] = min(most, value * math.pow(STRONGER, notches))
        found[name] = settings
    return found
