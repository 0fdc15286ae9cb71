"""A treated copy of a file, with every change of every row beside it; and the way back.

read → treat → write the log → write the file. Every column of the source is kept, in its own type
where the format has types. Whatever is written is whole or not there.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from holdfast.analyses.audit.audit import Audit, AuditRequest
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.outputs import OutputFile, checked_output, writing
from holdfast.core.tasks import WRITERS
from holdfast.core.wording import counted
from holdfast.data.cells import read_json_cell, write_delimited
from holdfast.data.raw import Raw, reading, source_path
from holdfast.data.source import read_source
from holdfast.prepare.clean import default_treatments
from holdfast.quality.clean.apply import (
    choose,
    count_unread,
    line,
    read_log,
    revert,
    treat_side,
    unread_words,
)
from holdfast.quality.clean.treatment import RowSet
from holdfast.recipe import Recipe
from holdfast.runs.prediction_file import is_parquet, typed_parts

LOG = ".changes.jsonl"
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class Fixed:
    """What was written: ``out`` of ``rows`` rows, and ``log``. ``counts`` are changes by treatment,
    ``left_out`` rows that are gone, ``lost`` cells (row, column) that cannot be given back,
    ``unread`` texts by treatment and why it left them alone without a look."""

    out: Path
    log: Path | None
    rows: int
    counts: Mapping[str, int]
    left_out: int
    lost: tuple[tuple[int, str], ...] = ()
    unread: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """``{"out", "log", "rows", "left_out", "changes": {treatment: n}, "irreversible": n,
        "not_looked_at": {treatment: {why: n}}}``."""
        return {
            "out": str(self.out),
            "log": None if self.log is None else str(self.log),
            "rows": self.rows,
            "left_out": self.left_out,
            "changes": dict(self.counts),
            "irreversible": len(self.lost),
            "not_looked_at": {name: dict(counts) for name, counts in self.unread.items()},
        }

    def __str__(self) -> str:
        """What was done, for a person."""
        done = ", ".join(f"{name} {count}" for name, count in self.counts.items()) or "nothing"
        gone = f", {counted(self.left_out, 'row')} left out" if self.left_out else ""
        lost = f"; {counted(len(self.lost), 'text')} cannot be given back" if self.lost else ""
        unread = "".join(f"; {name}, {unread_words(by)}" for name, by in self.unread.items())
        return (
            f"Treated copy: {self.out} ({counted(self.rows, 'row')}{gone}); changes: "
            f"{done}{lost}{unread}. Every change: {self.log}"
        )


def treatments_of(recipe: Recipe) -> dict[str, Mapping[str, Any] | bool]:
    """What a file is treated by: what the recipe asks for, and, unless it says ``false``, what is
    surely right: what ``train`` does by itself, labels in one spelling, rows without a text or a
    label left out, and copies of a row with its label."""
    usual = [*default_treatments(), "missing", "copies"]
    # A person who wants labels as they are written has said so.
    usual += ["labels"] if recipe.data.labels == "merged" else []
    return {**dict.fromkeys(usual, True), **recipe.treat}


def check_fix(asked: AuditRequest, out: Path, force: bool) -> None:
    """Refuse what could not be written, before the minutes of an audit."""
    recipe = asked.recipe()
    _output(out, asked.inputs, force)
    checked_output(Path(f"{out}{LOG}"), asked.inputs, force=force)
    choose(treatments_of(recipe))
    if source_path(str(recipe.data.path)).is_dir():
        rule = "writes files of texts, and these are pictures"
        raise RecipeError("--fix", rule, None, "Leave it out.")


def fix_audited(asked: AuditRequest, found: Audit, out: Path, force: bool) -> Fixed:
    """Write a treated copy of what was audited, as its recipe asks."""
    recipe = asked.recipe()
    text = found.columns["text"]
    label = found.columns["label"]
    written = found.task in WRITERS and isinstance(label, str)
    given = FileColumns(
        str(recipe.data.path),
        [text] if isinstance(text, str) else list(text or ()),
        None if written else label,
        [label] if written else [],
        recipe.data.encoding,
        recipe.data.config,
    )
    return fix(given, out, treatments_of(recipe), force=force)


@dataclass(frozen=True, slots=True)
class FileColumns:
    """A file of texts, and which of its columns are read (``text``), the ``label``, and to be
    written by a model (``targets``); ``encoding`` and ``config`` as in ``load_table``."""

    source: str
    text: Sequence[str]
    label: str | None = None
    targets: Sequence[str] = ()
    encoding: str | None = None
    config: str | None = None


def fix(
    given: FileColumns,
    out: Path,
    asked: Mapping[str, Mapping[str, object] | bool],
    *,
    force: bool = False,
) -> Fixed:
    """Write a file with these treatments to ``out``, and the changes to ``out`` +
    ``.changes.jsonl``.

    Parameters
    ----------
    asked : treatments and their settings, as in the key ``treat`` of a recipe.
    force : whether files of these names may be replaced; the source never is.

    Raises ``RecipeError`` for a treatment, a setting or an ending that does not exist, ``RunError``
    where a file is in the way, ``DataError`` where a column is no text.
    """
    chosen = choose(asked)
    file = source_path(given.source)
    target = _output(out, [file], force)
    log = checked_output(Path(f"{out}{LOG}"), [file], force=force)
    raw = read_source(given.source, given.encoding, given.config)
    _check_columns(raw, (*given.text, *given.targets), given.label)
    before = _side(raw, tuple(given.text), given.label)
    after, changes = treat_side(before, chosen, given.targets)
    if not len(after):
        rule = f"would leave no row: {', '.join(chosen.names)}"
        raise DataError(given.source, rule, None, "Ask for less.")
    touched = {change.column for change in changes if change.column is not None}
    table = _typed(raw, file, after, touched)
    with writing(log) as stream:
        for change in changes:
            stream.write((line(change) + "\n").encode())
        # Before the log takes its name: where the copy cannot be written neither is there, or both
        # are as they were.
        _write(table, _nested(raw, file), target)
    counts = Counter(change.treatment for change in changes)
    unread: dict[str, Counter[str]] = {}
    for name in before.text:
        count_unread(before.columns[name], chosen, unread)
    lost = dict.fromkeys((c.row, str(c.column)) for c in changes if not c.reversible)
    return Fixed(
        out,
        log.path,
        len(after),
        {name: counts[name] for name in chosen.names if counts[name]},
        len(before) - len(after),
        tuple(lost),
        unread,
    )


def undo(treated: Path, log: Path, out: Path, *, force: bool = False) -> Fixed:
    """Write the source of a treated file again, from the file and its log.

    What was masked stays so, since it was written nowhere; ``lost`` names those cells. Raises
    ``DataError`` where the file and the log do not belong together.
    """
    target = _output(out, [treated, log], force)
    raw = read_source(str(treated), None, None)
    with reading(log):
        changes = read_log(log.read_text("utf-8").splitlines(), str(log))
    back = revert(_side(raw, (), None), changes)
    _write(_typed(raw, treated, back.side, set(raw.names)), _nested(raw, treated), target)
    counts = Counter(change.treatment for change in changes)
    return Fixed(out, None, len(back.side), dict(counts), 0, back.lost)


def _output(out: Path, inputs: Sequence[Path], force: bool) -> OutputFile:
    if _ending(out) not in ENDINGS:
        choices = f"Choose {', '.join(ENDINGS)}, or one of these with .gz."
        raise RecipeError("--fix", "has an ending that is not written", str(out), choices)
    return checked_output(out, inputs, force=force)


def _ending(out: Path) -> str:
    return Path(out.name.lower().removesuffix(".gz")).suffix


def _check_columns(raw: Raw, names: Sequence[str], label: str | None) -> None:
    for name in (*names, *([label] if label is not None else [])):
        if name not in raw.names:
            there = f"It has {', '.join(map(repr, raw.names))}."
            raise DataError(raw.source, "has no such column", name, there)
    for name in names:
        if "nested" in raw.kinds.get(name, set()):
            rule = f"column {name!r} holds lists or objects, and treatments read text"
            raise DataError(raw.source, rule, None, "Name columns of text with --text.")


def _side(raw: Raw, text: tuple[str, ...], label: str | None) -> RowSet:
    columns = {name: raw.table[name].to_pylist() for name in raw.names}
    return RowSet(range(len(raw)), columns, text, label)


def _typed(raw: Raw, file: Path, side: RowSet, touched: set[str]) -> pa.Table:
    """The rows of ``side`` in the types of the source. ``touched`` columns are made of their cells,
    the others taken as they were."""
    whole = pa.concat_tables(list(typed_parts(raw, file)))
    kept = pa.array(side.rows, pa.int64())
    columns = {}
    for name, cells in side.columns.items():
        if name not in whole.column_names:
            # A column that was added, which counts.
            columns[name] = pa.array(
                [None if cell is None else int(cell) for cell in cells], pa.int64()
            )
        elif name in touched:
            columns[name] = _cast(cells, whole.schema.field(name).type)
        else:
            columns[name] = whole[name].take(kept)
    return pa.table(columns)


def _cast(cells: Sequence[str | None], kind: pa.DataType) -> pa.Array:
    """Cells as they are written, in a type; as text where one of them has no such value."""
    written = pa.array(cells, pa.string())
    try:
        if pa.types.is_nested(kind):
            values = [None if cell is None else read_json_cell(cell) for cell in cells]
            return pa.array(values, kind)
        return written.cast(kind)
    except (pa.ArrowException, ValueError):
        return written


def _nested(raw: Raw, file: Path) -> set[str]:
    """Columns that hold JSON as text, which JSON is written from as it was."""
    if is_parquet(file):
        return set()
    return {name for name, kinds in raw.kinds.items() if kinds == {"nested"}}


def _write(table: pa.Table, nested: set[str], target: OutputFile) -> None:
    ending = _ending(target.path)
    with writing(target) as stream:
        if not target.path.name.lower().endswith(".gz"):
            _write_as(ending, table, nested, stream)
            return
        # Without a time, so that the same rows give the same file.
        with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0, filename="") as packed:
            _write_as(ending, table, nested, cast("io.RawIOBase", packed))


def _write_as(ending: str, table: pa.Table, nested: set[str], stream: io.RawIOBase) -> None:
    if ending == ".parquet":
        import pyarrow.parquet as parquet

        parquet.write_table(table, stream)
        return
    text = io.TextIOWrapper(cast("IO[bytes]", stream), encoding="utf-8", newline="")
    if ending in (".csv", ".tsv"):
        mark = "\t" if ending == ".tsv" else ","
        write_delimited(text, table.column_names, _cells(table), mark=mark)
    elif ending == ".jsonl":
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(table, nested))
    else:
        json.dump(list(_rows(table, nested)), text, ensure_ascii=False, indent=0)
    text.flush()
    text.detach()


def _cells(table: pa.Table) -> Iterator[Sequence[Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _rows(table: pa.Table, nested: set[str]) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            yield {name: _plain(value, name in nested) for name, value in row.items()}


def _plain(value: object, nested: bool) -> Any:
    if nested and isinstance(value, str):
        return read_json_cell(value)
    if value is None or isinstance(value, (str, int, float, bool, list, dict)):
        return value
    return str(value)
