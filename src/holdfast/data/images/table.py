"""A folder of pictures by class, or a table of their paths → a ``Table``.

Columns of its ``rows``: ``row``, ``path`` (absolute), ``text`` (one word that equal pixels share,
so that exact copies are found and stay on one side), ``label``, and ``group`` where given. A row is
the place of the picture in the folder's sorted paths, or its row in the table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.records import Decision, Finding
from holdfast.data.columns.columns import NamedColumns
from holdfast.data.columns.profile import profile
from holdfast.data.columns.roles import Role, RoleQuery, check_present, guess
from holdfast.data.images.folders import FOLLOW, Links, list_pictures
from holdfast.data.images.picture import (
    NOTES,
    Unreadable,
    content_mark,
    is_picture_name,
    read_picture,
)
from holdfast.data.labels.classes import ClassRules
from holdfast.data.labels.rare import RARE_BELOW, Rare
from holdfast.data.labels.spelling import Labels
from holdfast.data.load import table_from_raw
from holdfast.data.paths import source_path
from holdfast.data.raw import Batch, Raw, store
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table

PATH, CLASS = "path", "class"
PATHS = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "img",
    "img_path",
    "picture",
    "photo",
)
LOOKED_AT = 200
LISTED = 100
SHOWN = 5


@dataclass(slots=True)
class _Seen:
    """What decoding every picture showed, by row."""

    marks: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    notes: dict[str, list[int]] = field(default_factory=dict)


def load_images(
    source: str | Path,
    *,
    path: str | None = None,
    label: str | None = None,
    group: str | None = None,
    encoding: str | None = None,
    config: str | None = None,
    classes: Sequence[str] | None = None,
    need_label: bool = True,
    rare: Rare = "refuse",
    rare_below: int = RARE_BELOW,
    labels: Labels = "merged",
    links: Links = "skip",
) -> Table:
    """Read a folder of pictures, or a table whose column ``path`` (worked out where not given)
    holds paths relative to the table's folder.

    Every picture is decoded once: broken ones are left out and named in a finding, odd ones (CMYK,
    transparent, turned, animated, deep, tiny) are handled and named. ``links`` as in
    ``list_pictures``; a table's path that leads through links out of its folder is refused unless
    they are followed. The other arguments are those of ``load_table``.

    Raises
    ------
    DataError : nothing to read, one class only, a path outside the table's folder, or more than
        half of the pictures cannot be read.
    """
    folder = source_path(source)
    if folder.is_dir():
        # Somebody named each folder, "null" among them: only a table's cells stand for none.
        labels = "exact"
        listed = list_pictures(folder, need_label, links)
        # The folder's pictures as if a table had listed them.
        columns = {PATH: pa.array(listed.names, pa.string())}
        if listed.classes is not None:
            columns[CLASS] = pa.array(listed.classes, pa.string())
        raw = store(iter([Batch(columns)]), str(listed.folder))
        paths: list[str | None] = [str(listed.folder.absolute() / name) for name in listed.names]
        path, label, group = PATH, CLASS if need_label else None, None
        told: tuple[Finding, ...] = listed.findings
    else:
        raw = read_source(source, encoding, config)
        path, chosen = _path_column(raw, path)
        raw = replace(raw, decisions=(*raw.decisions, *chosen))
        place = Path(os.path.abspath(folder)).parent  # noqa: PTH100
        paths = _inside(raw, path, place, links)
        label = label if label in raw.names or label not in (None, CLASS) else None
        told = ()
    base = folder.absolute() if folder.is_dir() else folder.absolute().parent
    seen = _look(paths)
    _refuse_mostly_broken(raw, seen, paths, base)
    table = table_from_raw(
        _without(raw, path, seen),
        NamedColumns([path], label, group),
        ClassRules(classes, need_label, rare, rare_below, labels),
    )
    findings = [f for f in table.findings if f.check != "missing_text"]
    groups = table.column("group") if table.has_groups else None
    rows = _rows(table.column("row").tolist(), table.column("label").tolist(), groups, paths, seen)
    return replace(
        table, rows=rows, findings=(*findings, *told, *_findings(seen, raw, paths, base))
    )


def images_at(paths: Sequence[str | Path]) -> Table:
    """Pictures by their paths, relative to the current folder, without labels; ``row`` is the place
    in the list. Raises ``DataError`` when more than half cannot be read."""
    raw = paths_raw([str(path) for path in paths])
    found: list[str | None] = [os.path.abspath(source_path(path)) for path in paths]  # noqa: PTH100
    seen = _look(found)
    here = Path.cwd()
    _refuse_mostly_broken(raw, seen, found, here)
    rows = _rows(list(seen.marks), [-1] * len(seen.marks), None, found, seen)
    columns, findings = Columns((PATH,), None), tuple(_findings(seen, raw, found, here))
    return Table(rows, (), columns, raw.source, len(raw), findings)


def paths_raw(paths: Sequence[str]) -> Raw:
    """Paths as if a table had listed them."""
    return store(iter([Batch({PATH: pa.array(list(paths), pa.string())})]), "list")


def left_out(table: Table) -> list[int]:
    """The source rows that ``table`` does not hold."""
    held = set(table.column("row").tolist())
    return [row for row in range(table.source_rows) if row not in held]


def _path_column(raw: Raw, given: str | None) -> tuple[str, tuple[Decision, ...]]:
    """The column of paths: as given, by its name, or by what it holds."""
    if given is not None and (given in raw.names or given != PATH):
        return given, ()
    question = RoleQuery(
        "likely", lambda column: _holds_paths(raw, column.name), "its values end like picture files"
    )
    found = guess(Role(PATHS, (question,)), profile(raw))
    if found.name is None:
        raise DataError(
            raw.source,
            "has no column that is clearly the pictures' paths",
            list(found.among) or raw.names,
            "Name it with --text.",
        )
    return found.name, (Decision("data.text", found.name, found.because),)


def _holds_paths(raw: Raw, name: str) -> bool:
    values = [v for v in raw.table[name].slice(0, LOOKED_AT).to_pylist() if v]
    return bool(values) and sum(map(is_picture_name, values)) > len(values) / 2


def _inside(raw: Raw, column: str, folder: Path, links: Links) -> list[str | None]:
    """The absolute paths; one that leaves the table's folder, by its name or through links that
    are not followed, is refused."""
    check_present(raw, column)
    found: list[str | None] = []
    real = _real(folder)
    for row, name in enumerate(raw.table[column].to_pylist()):
        if name is None or not name.strip():
            found.append(None)
            continue
        path = Path(os.path.normpath(folder / name.strip()))
        if not path.is_relative_to(folder):
            raise DataError(
                f"{raw.source}, row {row}",
                "has a path outside the table's folder",
                name,
                "Put the pictures beside the table or below it, and write their paths relative "
                "to it.",
            )
        if links == "skip" and not _real(path).is_relative_to(real):
            raise DataError(
                f"{raw.source}, row {row}",
                "has a path that a link leads out of its folder",
                name,
                f"Put the picture itself there, or follow links with --set {FOLLOW}.",
            )
        found.append(str(path))
    return found


def _real(path: Path) -> Path:
    """Without links; a ring of links, or what no path can be, stays as it is and is not read."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def _look(paths: Sequence[str | None]) -> _Seen:
    seen = _Seen()
    for row, path in enumerate(paths):
        if path is None:
            seen.broken[row] = "no path is given"
            continue
        try:
            picture = read_picture(path)
        except Unreadable as error:
            seen.broken[row] = str(error)
            continue
        seen.marks[row] = content_mark(picture.image)
        for note in picture.notes:
            seen.notes.setdefault(note, []).append(row)
    return seen


def _refuse_mostly_broken(raw: Raw, seen: _Seen, paths: Sequence[str | None], folder: Path) -> None:
    if not len(raw) or len(seen.broken) * 2 <= len(raw):
        return
    raise DataError(
        raw.source,
        f"has {len(seen.broken)} pictures of {len(raw)} that cannot be read",
        _named(seen, paths, folder),
        "Check the paths and the files.",
    )


def _without(raw: Raw, path: str, seen: _Seen) -> Raw:
    """The source with no path where the picture cannot be read: such rows are left out."""
    names = raw.table[path].to_pylist()
    kept = pa.array([n if row in seen.marks else None for row, n in enumerate(names)], pa.string())
    place = raw.table.column_names.index(path)
    return replace(raw, table=raw.table.set_column(place, path, kept).combine_chunks())


def _rows(
    rows: list[int],
    labels: list[int],
    groups: list[str] | None,
    paths: Sequence[str | None],
    seen: _Seen,
) -> Any:
    """A data set on disk of these rows, with the content's mark as the text."""

    columns = {
        "row": pa.array(rows, pa.int64()),
        "path": pa.array([paths[row] for row in rows], pa.string()),
        "text": pa.array([seen.marks[row] for row in rows], pa.string()),
        "label": pa.array(labels, pa.int64()),
    }
    if groups is not None:
        columns["group"] = pa.array(groups, pa.string())
    file, made = scratch_file("images"), pa.table(columns)
    with disk_errors(file), pa.ipc.new_stream(str(file), made.schema) as target:
        target.write_table(made, max_chunksize=10_000)
    return stored_rows(file)


def _named(seen: _Seen, paths: Sequence[str | None], folder: Path) -> str:
    """The first broken pictures, each with what is wrong, as paths below the source's folder."""
    shown = [
        f"row {row} ({reason})"
        if (path := paths[row]) is None
        else f"{os.path.relpath(path, folder)} ({reason})"
        for row, reason in list(seen.broken.items())[:SHOWN]
    ]
    more = len(seen.broken) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _findings(seen: _Seen, raw: Raw, paths: Sequence[str | None], folder: Path) -> list[Finding]:
    total, found = max(1, len(raw)), []
    if seen.broken:
        found.append(
            Finding(
                "broken_images",
                "warn",
                len(seen.broken) / total,
                len(seen.broken),
                tuple(list(seen.broken)[:LISTED]),
                f"{len(seen.broken)} of {len(raw)} pictures cannot be read and are left out: "
                + _named(seen, paths, folder),
                "Replace these files, or take their rows away.",
                True,
            )
        )
    for note, rows in seen.notes.items():
        severity: Any = "warn" if note == "tiny" else "info"
        found.append(
            Finding(
                f"{note}_images",
                severity,
                len(rows) / total,
                len(rows),
                tuple(rows[:LISTED]),
                f"{len(rows)} of {len(raw)} pictures: {NOTES[note]}",
                "Take them away if they show nothing."
                if note == "tiny"
                else "Nothing to do, if that is what they should look like.",
                note != "tiny",
            )
        )
    return found
