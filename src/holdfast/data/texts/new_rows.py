"""Texts without labels: rows to be predicted, and texts beside a source that are learned from.

Differs from ``load_table`` in that no column is looked for by itself and none is taken for a label:
the run has said which columns it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Finding
from holdfast.data.clean import complete, meant, row_schema
from holdfast.data.columns.roles import check_column
from holdfast.data.raw import Raw
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table


def renamed(raw: Raw, expected: Sequence[str], given: Sequence[str] | None) -> Raw:
    """The source with the columns ``given`` under the names ``expected`` that the run reads.

    Raises ``DataError`` where one is not there, or there are more or fewer.
    """
    names = tuple(given) if given else tuple(expected)
    if len(names) != len(expected):
        raise DataError(
            "--text",
            f"must name {len(expected)} columns for this run, in the order of "
            f"{', '.join(expected)}",
            ", ".join(names),
            "Give --text once for each.",
        )
    for name in names:
        if name not in raw.names:
            read = "" if given else ", which the run reads"
            raise DataError(
                raw.source,
                f"has no column {name!r}{read}",
                ", ".join(raw.names),
                f"{nearest(name, raw.names)} Choose the column with --text.",
            )
    if names == tuple(expected):
        return raw
    called = dict(zip(names, expected, strict=True))
    # A column that happens to have an expected name gives way to the one that is meant.
    kept = [name for name in raw.names if name in called or name not in expected]
    table = raw.table.select(kept).rename_columns([called.get(name, name) for name in kept])
    kinds = {called.get(name, name): raw.kinds[name] for name in kept if name in raw.kinds}
    return replace(raw, table=table, kinds=kinds)


def unlabelled(raw: Raw, columns: Columns, *, label: int = -1, target: bool = False) -> Table:
    """The rows that have their texts, each with the same ``label`` (and an empty ``target``).

    A row without text is not among them: ``row`` says which are. Streams from the mapped source to
    disk, so that memory holds one batch.
    """
    for name in columns.text:
        if columns.template is None:
            check_column(raw, name)
    plain = replace(columns, label=None, group=None)
    schema = row_schema(plain, *([("target", pa.string())] if target else []))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in meant(raw, plain):
            batch = batch.filter(complete(batch))
            rows = batch.num_rows
            batch = batch.append_column("label", pa.array(np.full(rows, label, dtype=np.int64)))
            if target:
                batch = batch.append_column("target", pa.array([""] * rows, pa.string()))
            yield batch.select(schema.names)

    rows = write_batches("unlabelled", schema, batches())
    return Table(rows, (), plain, raw.source, len(raw))


KEY = "data.unlabelled"


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """``texts`` that may be learned from, and what was left out."""

    texts: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)


def read_unlabelled(path: str, rows: Table, encoding: str | None) -> Table:
    """The texts of ``path``, in the columns that ``rows`` have theirs in, or in its only one; a
    column of labels is not read, a row without text is not among them.

    Raises ``RecipeError`` where the texts of ``rows`` are pairs, or in no column of ``path``.
    """
    if rows.has_pairs:
        raise RecipeError(KEY, "needs rows of one text each", None, "Leave it out.")
    raw, columns = read_source(path, encoding, None), rows.columns
    if columns.template is None:
        (wanted,) = columns.text
        if wanted not in raw.names and len(raw.names) == 1:
            raw = renamed(raw, (wanted,), raw.names)
    for wanted in columns.text:  # of a template all that it joins
        if wanted not in raw.names:
            rule = f"has no column {wanted!r}, in which the source has its texts"
            remedy = f"Name the column so in {path}."
            raise RecipeError(KEY, rule, ", ".join(raw.names), remedy)
    return replace(unlabelled(raw, columns), source=path)


def refuse_test_rows(path: str, held: str | None) -> None:
    """Refuse to learn from the texts that the honest number is measured on."""
    if held is not None and _same(path, held):
        raise RecipeError(
            KEY,
            "names the test rows: what was learned from their texts is not measured on them",
            path,
            "Name a file of other rows.",
        )


def _same(one: str, other: str) -> bool:
    try:
        return Path(one).resolve() == Path(other).resolve()
    except (OSError, RuntimeError):
        return one == other
