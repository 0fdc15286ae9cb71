"""Texts with one class, several labels or a number each: the kind decides which reader it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.data.columns.columns import NamedColumns, choose_columns
from holdfast.data.labels.classes import ClassRules
from holdfast.data.labels.label_type import decide_kind, label_counts, open_lists
from holdfast.data.labels.numbers import table_of_numbers
from holdfast.data.labels.rare import Rare
from holdfast.data.labels.sets import table_of_sets
from holdfast.data.labels.spelling import missing_labels
from holdfast.data.load import refuse_empty, table_from_raw
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table


def load_labelled(
    source: str,
    named: NamedColumns,
    rules: ClassRules,
    *,
    encoding: str | None = None,
    config: str | None = None,
    kind: str | None = None,
    separator: str | None = None,
    like: Table | None = None,
    view: Callable[[Raw], Raw] | None = None,
) -> Table:
    """The rows of a source whose labels are of any kind.

    Parameters
    ----------
    rules : how labels become classes; its ``classes`` are the labels of a run where a text has
        several.
    encoding, config : as in ``load_table``.
    kind : ``class``, ``several`` or ``number``; without it the labels decide, with a reason.
    separator : between the labels of a cell; without it cells are JSON lists, or ``|`` or ``;``
        is found.
    like : the table that these rows are divided or scored with: its kind and its ranges.
    view : what is made of the source before anything looks at it: other names for its columns.

    Raises ``DataError`` where the labels are not of the kind that is asked for.
    """
    raw = read_source(source, encoding, config)
    raw = view(raw) if view is not None else raw
    refuse_empty(raw)
    # Where somebody said that a cell is one class, one that looks like a list is one too.
    opened = raw if kind == "class" else open_lists(raw, named.label)
    columns, chosen, noticed = choose_columns(
        opened, text=named.text, label=named.label, group=named.group, template=named.template
    )
    assert columns.label is not None
    counts = label_counts(opened, columns.label)
    missing = missing_labels(counts, rules.classes or ()) if rules.labels == "merged" else ()
    counts = {cell: count for cell, count in counts.items() if cell not in missing}
    found, mark, why_kind = decide_kind(counts, kind, separator)
    if separator and found != "several":
        raise RecipeError(
            "data.label_separator",
            f"has no meaning where data.label_kind is {found}",
            separator,
            "Leave one of the two out.",
        )
    columns = replace(columns, label_kind=found, label_separator=mark, label_missing=missing)
    if found == "class":
        table = table_from_raw(raw, named, rules)
        return _with(table, replace(table.columns, label_kind="class"), why_kind)
    _refuse_rare(rules.rare, found)
    if found == "number":
        table = table_of_numbers(opened, columns, like, fresh=rules.classes is None)
    else:
        table = table_of_sets(opened, columns, rules.classes, like, rules.labels)
    table = replace(table, findings=(*table.findings, *noticed))
    return _with(table, columns, (*raw.decisions, *chosen, *why_kind))


def _with(table: Table, columns: Columns, decisions: tuple[Decision, ...]) -> Table:
    return replace(table, columns=columns, decisions=(*decisions, *table.decisions))


def _refuse_rare(rare: Rare, kind: str) -> None:
    if rare != "refuse":
        raise RecipeError(
            "data.rare",
            f"has no meaning where data.label_kind is {kind}: there are no classes "
            "to drop or merge",
            rare,
            "Leave it out.",
        )
