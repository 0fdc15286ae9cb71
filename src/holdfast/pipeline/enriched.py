"""Other forms of the training rows, put together: which enrichments, of which rows, and what is
told of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.wording import counted
from holdfast.data.table import Table
from holdfast.enrich.registry import ENRICHMENTS, asked_for, check_enrich, kind_of_rows, make_all
from holdfast.enrich.rewriting import Rewriting, Survey, read_rows, survey
from holdfast.enrich.settings import names_of
from holdfast.enrich.source import Enriched, MakesForms
from holdfast.enrich.texts.own import Own, check_function, load_function
from holdfast.models.base import Loaded
from holdfast.pipeline.ready import Kind, Sides
from holdfast.recipe import Recipe
from holdfast.tasks.base import Examples
from holdfast.training.plan import Plan

# Below it an enrichment changes so few rows that it is not what was asked for.
LEAST_CHANGED = 0.1


@dataclass(frozen=True, slots=True)
class EnrichedPlan:
    """The plan whose phases draw rows in other forms, and what is told of it."""

    plan: Plan
    decisions: tuple[Decision, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def on(self) -> bool:
        return bool(self.decisions)


def enriched(
    plan: Plan, kind: Kind[Loaded, Examples], loaded: Any, sides: Sides, recipe: Recipe
) -> EnrichedPlan:
    """``plan`` with its rows in the forms that the recipe asks for.

    Raises ``RecipeError`` where an enrichment does not fit the task, ``MachineError`` where what it
    needs is missing.
    """
    asked = check_enrich(recipe.enrich, kind_of_rows(recipe.task))
    if not asked:
        return EnrichedPlan(plan)
    ways = make_all(asked)
    for one in ways.values():
        one.ready()
    forms = text_forms(ways, kind, loaded, sides, recipe)
    found = survey(forms)
    return EnrichedPlan(with_forms(plan, forms), _told(ways, found, recipe), _idle(ways, found))


def with_forms(plan: Plan, forms: MakesForms) -> Plan:
    """The plan with every phase's rows passed in these forms."""
    phases = [replace(phase, source=Enriched(phase.source, forms)) for phase in plan.phases]
    return replace(plan, phases=tuple(phases))


def text_forms(
    ways: Mapping[str, Any], kind: Kind[Loaded, Examples], loaded: Any, sides: Sides, recipe: Recipe
) -> Rewriting:
    """The training rows in the forms of these enrichments.

    Raises ``RecipeError`` for tags and plain texts, and for a function that breaks its promise.
    """
    table = sides.train_rows.table
    _refuse_where_words_are_bound(table, recipe, next(iter(ways)))
    # A tokenizer keeps how it cuts and pads: this one belongs to the thread that makes the forms.
    mine = replace(loaded, tokenizer=copy.deepcopy(loaded.tokenizer))

    def encode(rows: Table) -> Examples:
        return kind.side(kind.encode(rows, mine, recipe), mine, rows)

    for one in ways.values():
        if isinstance(one, Own):
            first = table.rows.with_format("arrow")[:3]
            check_function(load_function(one.function), read_rows(first, table), one.function)
    return Rewriting(
        sides.train_rows, places_of(sides.train, len(table)), ways, encode, recipe.seed, sides.added
    )


def _refuse_where_words_are_bound(table: Table, recipe: Recipe, name: str) -> None:
    """Tags belong to words, and a plain text that a model learns to go on with is all answer."""
    if recipe.task == "token-classification":
        why = "the tags belong to the words as they stand"
    elif recipe.task == "causal-lm" and "[]" in table.rows[:1]["turns"]:
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


def _told(ways: Mapping[str, Any], found: Survey, recipe: Recipe) -> tuple[Decision, ...]:
    """A line for each enrichment: what it does to rows, seen before any is learned from."""
    by_user = set(asked_for(recipe.enrich))
    lines = []
    for name, one in ways.items():
        settings = names_of(one, ("share", "strength", "copies", "similarity"))
        told = [
            "set by you" if name in by_user else "by default",
            f"{found.changed[name]} of {counted(found.rows, 'training row')} looked at come out "
            "otherwise",
        ]
        if found.kept[name]:
            total = sum(found.kept[name].values())
            why = ", ".join(f"{what} {count}" for what, count in found.kept[name].items())
            told.append(f"{counted(total, 'form')} fall back to the row ({why})")
        if name in found.alike:
            told.append(f"the median likeness of meaning is {found.alike[name]:.2f}")
            before, after = found.shown[name]
            told.append(f"e.g. {_short(before)!r} → {_short(after)!r}")
        told.append(f"known: {ENRICHMENTS[name].known}")
        lines.append(Decision("enrich", f"{name} ({settings})", "; ".join(told)))
    return tuple(lines)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _idle(ways: Mapping[str, Any], found: Survey) -> tuple[Finding, ...]:
    """A finding for each enrichment that leaves nearly every row as it is."""
    findings = []
    for name in ways:
        share = found.changed[name] / max(1, found.rows)
        if share >= LEAST_CHANGED:
            continue
        lost = sum(found.kept[name].values())
        why = f", {counted(lost, 'form')} lost meaning" if lost else ""
        findings.append(
            Finding(
                "idle_enrichment",
                "warn",
                1 - share,
                found.rows - found.changed[name],
                (),
                f"enrich.{name} changes {found.changed[name]} of {found.rows} rows that were "
                f"looked at{why}",
                f"Leave enrich.{name} out, or look whether it is made for this language.",
            )
        )
    return tuple(findings)
