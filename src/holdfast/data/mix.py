"""Several small data sets as one table: the same columns, one spelling of each label, and a column
``source`` with the name of each row's source.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import (
    decisions_in,
    decisions_to,
    findings_in,
    notify,
    record_decisions,
)
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding, Severity
from holdfast.core.wording import list_phrase
from holdfast.data.chats.chat import is_text_file, load_chats, read_row_turns
from holdfast.data.columns.columns import choose_columns
from holdfast.data.columns.profile import present_values
from holdfast.data.columns.roles import check_column
from holdfast.data.load import refuse_empty
from holdfast.data.options import RowOptions
from holdfast.data.pairs import load_pairs
from holdfast.data.raw import source_path
from holdfast.data.source import read_source
from holdfast.data.table import Table

SOURCE = "source"
# Labels this similar may be two spellings of one label.
MIN_LABEL_SIMILARITY = 0.6


@dataclass(frozen=True, slots=True)
class MixSource:
    """One source: its ``text`` and ``label`` columns where they are given, and ``labels``, which
    renames its labels."""

    path: str
    name: str | None = None
    config: str | None = None
    encoding: str | None = None
    text: tuple[str, ...] | None = None
    label: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MixedRows:
    """``rows`` with the column ``source`` and those of the task: ``text`` (``text_pair``) and
    ``label``, ``text`` and ``target`` of pairs, ``messages`` of chats, ``text`` of plain texts;
    ``names`` are the sources in order."""

    rows: pa.Table
    names: tuple[str, ...]
    decisions: tuple[Decision, ...]
    findings: tuple[Finding, ...]

    @property
    def text(self) -> tuple[str, ...]:
        return tuple(name for name in ("text", "text_pair") if name in self.rows.column_names)


def mix_sources(parts: Sequence[MixSource], holds: str = "classes") -> MixedRows:
    """Read the sources one after the other and put their rows into one table. They hold
    ``classes`` of texts, ``pairs`` of a text and its target, or ``chats`` (or plain texts) of a
    language model.

    Raises ``RecipeError`` for fewer than two sources, two with the same name, or a renamed label
    that a source does not have; ``DataError`` where a column cannot be chosen, or the sources do
    not hold the same kind of rows.
    """
    read = {"classes": _read, "pairs": _read_pairs, "chats": _read_chats}[holds]
    if len(parts) < 2:
        raise RecipeError("data.mix", "needs two sources or more", len(parts), "Set data.path.")
    names = _source_names(parts)
    with record_decisions() as log:
        tables = [read(part, name) for part, name in zip(parts, names, strict=True)]
    widths = {tuple(table.column_names) for table in tables}
    if len(widths) > 1:
        kinds, remedy = (
            (("chats", "plain texts"), "Mix sources of one form: chats, or plain texts.")
            if holds == "chats"
            else (
                ("pairs of texts", "single texts"),
                "Name the text columns of each source: {path: …, text: [first, second]}.",
            )
        )
        rule = f"holds {kinds[0]} in some sources and {kinds[1]} in others"
        raise DataError("data.mix", rule, ", ".join(names), remedy)
    with record_decisions() as label_log:
        if holds == "classes":
            _report_label_differences(tables, names)
    findings = (*findings_in(log), *findings_in(label_log))
    return MixedRows(pa.concat_tables(tables), names, decisions_in(log), findings)


def with_sources(
    table: Table, file: str, name: str | None, options: RowOptions, *, optional: bool
) -> Table:
    """The table with a column ``source``: the cells of the column ``name`` of its ``file``, unless
    it is ``None``. Where it is ``optional``, a file without the column has no sources.

    Raises ``DataError`` where the column is missing or a row has no value in it.
    """
    if name is None:
        return table
    raw = None if is_text_file(file) else read_source(file, options.encoding, options.config)
    if optional and (raw is None or name not in raw.names):
        because = f"{file} has no column {name!r}: its rows are scored together"
        return replace(table, decisions=(*table.decisions, Decision("sources", "none", because)))
    if raw is None:
        raise DataError(file, "has no columns, and data.source names one", name, "Leave it out.")
    check_column(raw, name)
    cells = pc.utf8_trim_whitespace(raw.table[name]).take(pa.array(table.column("row")))
    source_names = cells.to_pylist()
    for row, cell in zip(table.column("row").tolist(), source_names, strict=True):
        if not cell:
            where = f"{raw.source}, row {row}"
            rule = f"has no source name in the column {name!r}"
            raise DataError(where, rule, None, "Fill the cell, or leave data.source out.")
    return replace(table, rows=table.rows.add_column(SOURCE, source_names))


def _source_names(parts: Sequence[MixSource]) -> tuple[str, ...]:
    """The given name of each source, else that of its file; equal names get a number."""
    given = [part.name for part in parts if part.name]
    for name in given:
        if given.count(name) > 1:
            raise RecipeError(
                "data.mix", "gives two sources the same name", name, "Rename one of them."
            )
    unique_names: list[str] = []
    for part in parts:
        stem = source_path(part.path).name.split(".")[0] or part.path
        name, count = part.name or stem, 1
        while name in unique_names or (part.name is None and name in given):
            count += 1
            name = f"{stem} {count}"
        unique_names.append(name)
    return tuple(unique_names)


def _read(part: MixSource, name: str) -> pa.Table:
    raw = read_source(part.path, part.encoding, part.config)
    refuse_empty(raw)
    with decisions_to(None):
        columns = choose_columns(raw, RowOptions(part.text, part.label))
    assert columns.label is not None
    if len(columns.text) > 2:
        rule = "has more than two text columns"
        raise DataError(part.path, rule, ", ".join(columns.text), "Name one or two of them.")
    cells = pc.utf8_trim_whitespace(raw.table[columns.label])
    known = set(pc.unique(present_values(cells)).to_pylist())
    for old in part.labels:
        if old not in known:
            rule = f"renames a label that {part.path} does not have"
            raise RecipeError("data.mix.labels", rule, old, suggest_name(old, sorted(known)))
    if part.labels:
        class_of_label = {**{one: one for one in known}, **part.labels}
        cells = pa.chunked_array(
            [[class_of_label.get(c, c) for c in cells.to_pylist()]], pa.string()
        )
    texts = [raw.table[column].cast(pa.string()) for column in columns.text]
    columns_read = dict(zip(("text", "text_pair"), texts, strict=False))
    columns_read |= {
        "label": cells.cast(pa.string()),
        SOURCE: pa.array([name] * len(raw), pa.string()),
    }
    renamed = f", {len(part.labels)} labels renamed" if part.labels else ""
    because = (
        f"{part.path}: text {' and '.join(map(repr, columns.text))}, label {columns.label!r}, "
        f"{len(known)} labels{renamed}"
    )
    notify(Decision(f"source {name}", f"{len(raw):,} rows", because))
    return pa.table(columns_read)


def _read_pairs(part: MixSource, name: str) -> pa.Table:
    table = load_pairs(part.path, _options(part))
    columns = {"text": table.column("text"), "target": table.column("target")}
    return _of_source(table, part, name, columns, "pairs")


def _read_chats(part: MixSource, name: str) -> pa.Table:
    table = load_chats(part.path, _options(part))
    turns = read_row_turns(table)
    if any(turns):
        messages = [json.dumps(one, ensure_ascii=False) for one in turns]
        return _of_source(table, part, name, {"messages": messages}, "chats with an answer")
    return _of_source(table, part, name, {"text": table.column("text")}, "texts")


def _options(part: MixSource) -> RowOptions:
    if part.labels:
        rule = "renames labels, and these rows have none"
        raise RecipeError("data.mix.labels", rule, ", ".join(part.labels), "Leave it out.")
    return RowOptions(part.text, part.label, encoding=part.encoding, config=part.config)


def _of_source(
    table: Table, part: MixSource, name: str, columns: Mapping[str, Sequence[str]], what: str
) -> pa.Table:
    notify(*table.findings)
    because = f"{part.path}: {what}"
    notify(Decision(f"source {name}", f"{len(table):,} rows", because))
    texts = {key: pa.array(list(column), pa.string()) for key, column in columns.items()}
    return pa.table({**texts, SOURCE: pa.array([name] * len(table), pa.string())})


def _report_label_differences(tables: Sequence[pa.Table], names: Sequence[str]) -> None:
    """Log a finding for labels that only some sources have: their classes differ, or one class has
    several names."""
    labels_of_source = [
        set(pc.unique(present_values(table["label"])).to_pylist()) for table in tables
    ]
    everywhere = set.intersection(*labels_of_source)
    partial_labels = {
        label: [n for n, labels in zip(names, labels_of_source, strict=True) if label in labels]
        for label in sorted(set.union(*labels_of_source) - everywhere)
    }
    if not partial_labels:
        return
    label_notes = [
        f"{label!r} only in {', '.join(where)}" for label, where in partial_labels.items()
    ]
    shown = list_phrase(label_notes, 5, more=" and {} more")
    twin = _similar_labels(partial_labels)
    severity: Severity = "warn" if twin or not everywhere else "info"
    hint = f" Perhaps {twin[0]!r} and {twin[1]!r} are the same label." if twin else ""
    because = (
        f"not every source has every label: {shown}; a model can then predict these labels from "
        f"features that only identify the source.{hint}"
    )
    share = len(partial_labels) / (len(partial_labels) + len(everywhere))
    remedy = (
        "Give labels with the same meaning one name: data.mix: [{path: …, labels: {old: new}}]."
    )
    notify(Finding("labels_by_source", severity, share, len(partial_labels), (), because, remedy))


def _similar_labels(partial: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """Two labels of different sources that may be the same."""
    for label, where in partial.items():
        others = [o for o, there in partial.items() if not set(where) & set(there)]
        similar = difflib.get_close_matches(
            label.lower(), [o.lower() for o in others], 1, MIN_LABEL_SIMILARITY
        )
        for other in others:
            begins = other.lower().startswith(label.lower()[:3]) and len(label) >= 3
            if other.lower() in similar or begins:
                return label, other
    return None
