"""Write a cleaned copy of a file with a log of every change of every row; and undo it.

read → clean → write the log → write the file. Every column of the source is kept, in its own type
if the format has types. A file is written completely or not at all.
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
from holdfast.analyses.audit.tokenized import is_tokenized
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.outputs import OutputFile, check_output, open_output
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.cells import read_json_cell, write_delimited
from holdfast.data.raw import Raw, source_path
from holdfast.data.source import read_source
from holdfast.prepare.clean import default_treatments
from holdfast.quality.clean.apply import (
    clean_rows,
    count_skipped,
    describe_skipped,
    log_line,
    plan_cleaning,
)
from holdfast.quality.clean.treatment import RowSet
from holdfast.recipe import Recipe
from holdfast.runs.prediction_file import is_parquet, typed_parts

LOG = ".changes.jsonl"
ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class FixResult:
    """The files that were written: ``out`` with ``rows`` rows, and ``log``. ``counts`` are changes
    by cleaning step, ``left_out`` the number of removed rows, ``lost`` cells (row, column) that
    cannot be restored, ``unread`` the texts that a cleaning step skipped, by step and reason."""

    out: Path
    log: Path
    rows: int
    counts: Mapping[str, int]
    left_out: int
    lost: tuple[tuple[int, str], ...] = ()
    unread: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """``{"out", "log", "rows", "left_out", "changes": {step: n}, "irreversible": n,
        "not_looked_at": {step: {why: n}}}``."""
        return {
            "out": str(self.out),
            "log": str(self.log),
            "rows": self.rows,
            "left_out": self.left_out,
            "changes": dict(self.counts),
            "irreversible": len(self.lost),
            "not_looked_at": {name: dict(counts) for name, counts in self.unread.items()},
        }

    def __str__(self) -> str:
        """A summary for the terminal."""
        changes = ", ".join(f"{name} {count}" for name, count in self.counts.items()) or "nothing"
        removed = f", {count_phrase(self.left_out, 'row')} removed" if self.left_out else ""
        lost = f"; {count_phrase(len(self.lost), 'text')} cannot be restored" if self.lost else ""
        unread = "".join(f"; {name}, {describe_skipped(by)}" for name, by in self.unread.items())
        return (
            f"Cleaned copy: {self.out} ({count_phrase(self.rows, 'row')}{removed}); changes: "
            f"{changes}{lost}{unread}. Log of all changes: {self.log}"
        )


def requested_treatments(recipe: Recipe) -> dict[str, Mapping[str, Any] | bool]:
    """The cleaning steps for a file: those of the recipe, and the safe ones unless the recipe sets
    them to ``false``: the default steps of ``train``, one spelling per label, and the removal of
    rows without a text or a label and of exact duplicates with the same label."""
    defaults = [*default_treatments(), "missing", "copies"]
    # With data.labels=exact the user wants labels as they are written.
    defaults += ["labels"] if recipe.data.labels == "merged" else []
    return {**dict.fromkeys(defaults, True), **recipe.treat}


def check_fix(request: AuditRequest, out: Path, force: bool) -> None:
    """Reject files that could not be written before the audit runs for minutes."""
    recipe = request.recipe()
    _output(out, request.inputs, force)
    check_output(Path(f"{out}{LOG}"), request.inputs, force=force)
    plan_cleaning(requested_treatments(recipe))
    if source_path(str(recipe.data.path)).is_dir():
        rule = "writes files of texts, and these rows are images"
        raise RecipeError("--fix", rule, None, "Leave the option out.")
    if recipe.data.path is not None and is_tokenized(str(recipe.data.path), recipe.data):
        rule = "cleans texts, and these rows are token ids"
        remedy = "Clean the texts, and tokenise them again."
        raise RecipeError("--fix", rule, None, remedy)


def fix_audited(request: AuditRequest, audited: Audit, out: Path, force: bool) -> FixResult:
    """Write a cleaned copy of the audited rows, as their recipe requests."""
    recipe = request.recipe()
    text = audited.columns["text"]
    label = audited.columns["label"]
    generates = audited.task in GENERATIVE_TASKS and isinstance(label, str)
    columns = FileColumns(
        str(recipe.data.path),
        [text] if isinstance(text, str) else list(text or ()),
        None if generates else label,
        [label] if generates else [],
        recipe.data.encoding,
        recipe.data.config,
        any_text=audited.task in DECODER_TASKS,
    )
    return fix(columns, out, requested_treatments(recipe), force=force)


@dataclass(frozen=True, slots=True)
class FileColumns:
    """A file of texts, and its columns: inputs (``text``), the ``label``, and target texts of a
    generative model (``targets``); ``encoding`` and ``config`` as in ``load_table``; ``any_text``
    as in ``RowSet``."""

    source: str
    text: Sequence[str]
    label: str | None = None
    targets: Sequence[str] = ()
    encoding: str | None = None
    config: str | None = None
    any_text: bool = False


def fix(
    columns: FileColumns,
    out: Path,
    treatments: Mapping[str, Mapping[str, object] | bool],
    *,
    force: bool = False,
) -> FixResult:
    """Apply cleaning steps to a file: write it to ``out``, and the changes to ``out`` +
    ``.changes.jsonl``.

    Parameters
    ----------
    treatments : cleaning steps and their settings, as in the key ``treat`` of a recipe.
    force : whether existing files of these names may be replaced; the source is never replaced.

    Raises ``RecipeError`` for an unknown cleaning step, setting or file ending, ``RunError`` if a
    file exists already, ``DataError`` for a column without text.
    """
    plan = plan_cleaning(treatments)
    file = source_path(columns.source)
    target = _output(out, [file], force)
    log = check_output(Path(f"{out}{LOG}"), [file], force=force)
    raw = read_source(columns.source, columns.encoding, columns.config)
    _check_columns(raw, (*columns.text, *columns.targets), columns.label)
    cells = {name: raw.table[name].to_pylist() for name in raw.names}
    before = RowSet(
        range(len(raw)),
        cells,
        tuple(columns.text),
        columns.label,
        tuple(columns.targets),
        columns.any_text,
    )
    after, changes = clean_rows(before, plan)
    if not len(after):
        rule = f"would have no rows left: {', '.join(plan.names)}"
        raise DataError(columns.source, rule, None, "Use fewer cleaning steps.")
    changed = {change.column for change in changes if change.column is not None}
    table = _typed(raw, file, after, changed)
    with open_output(log) as stream:
        for change in changes:
            stream.write((log_line(change) + "\n").encode())
        # Before the log gets its final name: if the copy cannot be written, neither file exists, or
        # both are unchanged.
        _write(table, _nested(raw, file), target)
    counts = Counter(change.treatment for change in changes)
    unread: dict[str, Counter[str]] = {}
    for name in before.text:
        count_skipped(before.columns[name], plan, unread)
    lost = dict.fromkeys((c.row, str(c.column)) for c in changes if not c.reversible)
    return FixResult(
        out,
        log.path,
        len(after),
        {name: counts[name] for name in plan.names if counts[name]},
        len(before) - len(after),
        tuple(lost),
        unread,
    )


def _output(out: Path, inputs: Sequence[Path], force: bool) -> OutputFile:
    if _ending(out) not in ENDINGS:
        choices = f"Use {', '.join(ENDINGS)}, or one of these with .gz."
        raise RecipeError("--fix", "has an unsupported file ending", str(out), choices)
    return check_output(out, inputs, force=force)


def _ending(out: Path) -> str:
    return Path(out.name.lower().removesuffix(".gz")).suffix


def _check_columns(raw: Raw, names: Sequence[str], label: str | None) -> None:
    for name in (*names, *([label] if label is not None else [])):
        if name not in raw.names:
            remedy = f"The columns are {', '.join(map(repr, raw.names))}."
            raise DataError(raw.source, "has no such column", name, remedy)
    for name in names:
        if "nested" in raw.column_types.get(name, set()):
            rule = f"column {name!r} holds lists or objects, and cleaning steps need text"
            raise DataError(raw.source, rule, None, "Name columns of text with --text.")


def _typed(raw: Raw, file: Path, rows: RowSet, changed: set[str]) -> pa.Table:
    """The rows of ``rows`` in the types of the source. ``changed`` columns are built from their
    cells, the others are copied."""
    source = pa.concat_tables(list(typed_parts(raw, file)))
    row_ids = pa.array(rows.rows, pa.int64())
    columns = {}
    for name, cells in rows.columns.items():
        if name not in source.column_names:
            # A column of counts that a cleaning step added.
            columns[name] = pa.array(
                [None if cell is None else int(cell) for cell in cells], pa.int64()
            )
        elif name in changed:
            columns[name] = _cast(cells, source.schema.field(name).type)
        else:
            columns[name] = source[name].take(row_ids)
    return pa.table(columns)


def _cast(cells: Sequence[str | None], data_type: pa.DataType) -> pa.Array:
    """Cells as written, cast to a type; as text if one of them is not of that type."""
    strings = pa.array(cells, pa.string())
    try:
        if pa.types.is_nested(data_type):
            values = [None if cell is None else read_json_cell(cell) for cell in cells]
            return pa.array(values, data_type)
        return strings.cast(data_type)
    except (pa.ArrowException, ValueError):
        return strings


def _nested(raw: Raw, file: Path) -> set[str]:
    """Columns that hold JSON as text; in a JSON file they are written as JSON again."""
    if is_parquet(file):
        return set()
    return {name for name, cell_kinds in raw.column_types.items() if cell_kinds == {"nested"}}


def _write(table: pa.Table, nested: set[str], target: OutputFile) -> None:
    ending = _ending(target.path)
    with open_output(target) as stream:
        if not target.path.name.lower().endswith(".gz"):
            _write_as(ending, table, nested, stream)
            return
        # Without a timestamp, so that the same rows give the same file.
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
        write_delimited(text, table.column_names, _cells(table), delimiter=mark)
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
