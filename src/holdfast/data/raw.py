"""What a reader yields, and how it is stored on disk: every value as the source writes it.

A reader yields ``Batch``es and logs its decisions. ``store`` writes the batches to memory-mapped
Arrow as they come, so that memory holds one batch, whatever the size of the file.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import decisions_in, record_decisions
from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.input_errors import reason
from holdfast.core.records import Decision
from holdfast.data.limits import BATCH_CELLS, check_columns, check_row, current_limits
from holdfast.data.scratch import scratch_file

ColumnType = Literal["text", "integer", "float", "boolean", "nested"]

BATCH_ROWS = 10_000
BATCH_CHARACTERS = 8_000_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some consecutive rows. ``columns`` are Arrow string arrays of one length, in source order;
    ``column_types`` says which types of value each column held (a nested one is written as JSON).
    """

    columns: dict[str, pa.Array]
    column_types: dict[str, set[ColumnType]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """The full source, as strings, memory-mapped. A cell that the source omits is null.
    ``column_types`` says which types of value each column held; a nested one is JSON in ``table``.
    ``has_header``: the names come from a first line, which a file may lack.
    """

    table: pa.Table
    column_types: dict[str, set[ColumnType]]
    source: str
    decisions: tuple[Decision, ...] = ()  # made while reading
    has_header: bool = False

    @property
    def names(self) -> list[str]:
        return list(self.table.column_names)

    def __len__(self) -> int:
        return int(self.table.num_rows)


def batch_rows(columns: int) -> int:
    """The most rows of a batch: fewer for a source with many columns."""
    return max(1, min(BATCH_ROWS, BATCH_CELLS // max(1, columns)))


def batched(
    items: Iterable[tuple[T, int]], max_rows: Callable[[], int] = lambda: BATCH_ROWS
) -> Iterator[list[T]]:
    """Group items, given with their numbers of characters, into batches of at most ``max_rows``
    rows and a batch's most characters."""
    group: list[T] = []
    characters = 0
    for item, length in items:
        group.append(item)
        characters += length
        if len(group) >= max_rows() or characters > BATCH_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def check_column_names(
    where: str, names: Sequence[str], columns_phrase: str = "each column of the header"
) -> None:
    """Refuse too many columns, a name that is too long, and repeated names."""
    check_columns(where, names)
    refuse_repeated(where, names, f"Give {columns_phrase} a different name.")


def refuse_repeated(where: str, names: Sequence[str], remedy: str) -> None:
    """Refuse columns with the same name."""
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        if "" in repeated:
            remedy += " If the header is not the first line, delete the lines above it."
        raise DataError(
            where, "has columns with the same name", ", ".join(map(repr, repeated)), remedy
        )


def store(batches: Iterator[Batch], source: str, *, headed: bool = False) -> Raw:
    """Write the batches to disk and map them. A column that appears later is null before that."""
    column_types: dict[str, set[ColumnType]] = {}
    parts = _ArrowFiles(source)
    with record_decisions() as log, contextlib.closing(parts):
        for batch in batches:
            for name, types in batch.column_types.items():
                column_types.setdefault(name, set()).update(types)
            for name, values in batch.columns.items():
                longest = pc.max(pc.binary_length(values)).as_py() or 0
                # Length in bytes: at least that in characters.
                if longest > current_limits().cell:
                    longest = pc.max(pc.utf8_length(values)).as_py()
                check_row(f"{source}, column {name!r}", longest)
            parts.write(batch.columns)
    return Raw(parts.table(), column_types, source, decisions_in(log), headed)


def store_columns(columns: Mapping[str, Sequence[str | None]], source: str) -> Raw:
    """Store columns in memory, of one length, as if they came from a file."""
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return store(iter([Batch(arrays)]), source)


class _ArrowFiles:
    """Arrow files with one schema each: a new column starts the next file."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._paths: list[Path] = []
        # A dictionary, for fast lookup: searching a list of names takes quadratic time.
        self._names: dict[str, None] = {}
        self._writer: Any = None

    def write(self, columns: dict[str, pa.Array]) -> None:
        new = [name for name in columns if name not in self._names]
        if new or self._writer is None:
            self.close()
            self._names |= dict.fromkeys(new)
            check_columns(self._source, tuple(self._names))
            self._open()
        rows = len(next(iter(columns.values()))) if columns else 0
        empty = pa.nulls(rows, pa.string())
        arrays = [columns.get(name, empty) for name in self._names]
        with disk_errors(self._paths[-1]):
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema()))

    def table(self) -> pa.Table:
        tables = [_memory_map(path) for path in self._paths]
        if not tables:
            return pa.table({})
        # Files written before a column appeared get it as nulls.
        return pa.concat_tables(tables, promote_options="default")

    def close(self) -> None:
        if self._writer is not None:
            with disk_errors(self._paths[-1]):
                self._writer.close()
            self._writer = None

    def _open(self) -> None:
        self._paths.append(scratch_file("raw"))
        with disk_errors(self._paths[-1]):
            self._writer = pa.ipc.new_stream(str(self._paths[-1]), self._schema())

    def _schema(self) -> pa.Schema:
        return pa.schema([(name, pa.string()) for name in self._names])


def _memory_map(path: Path) -> pa.Table:
    # Mapped, not read: the system loads pages on demand.
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    # Where the system allows it, the file is unlinked now: its space is freed with the table, even
    # when the process is killed.
    with contextlib.suppress(OSError):
        path.unlink()
    return table


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system and the decompressor into one clear message."""
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise DataError(
            str(path), f"is truncated or damaged: {error}", None, "Download or compress it again."
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            str(path), f"cannot be read: {reason}", None, "Check the file and its permissions."
        ) from error


def source_path(source: str | Path) -> Path:
    """The path, with ``~`` resolved. ``exists``, ``is_file`` and ``is_dir`` of it raise nothing.

    Raises ``DataError`` for an empty name, for a string that no system accepts as a path (a NUL,
    too many characters, half of a surrogate pair), and for a place that may not be read.
    """
    name = str(source)
    if not name.strip():
        raise DataError("the source", "has an empty name", name, "Name a file or a folder.")
    try:
        path = Path(source).expanduser()
        path.stat()
    except FileNotFoundError:
        return path
    except RuntimeError:
        raise _path_error(name, "begins with the home folder of an unknown user", name) from None
    except NotADirectoryError:
        return path
    except OSError as error:
        raise _path_error(name, f"cannot be accessed: {reason(error)}", None) from error
    except ValueError as error:
        raise _path_error(name, "is not a valid path", name) from error
    return path


def _path_error(source: str, rule: str, value: object) -> DataError:
    return DataError(source, rule, value, "Check the name and the permissions.")
