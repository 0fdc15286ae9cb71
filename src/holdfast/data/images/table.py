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
from typing import TYPE_CHECKING

import pyarrow as pa

from holdfast.core.decisions import notify, record_decisions
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding, Severity
from holdfast.core.wording import list_phrase
from holdfast.data.columns.profile import listed, profile
from holdfast.data.columns.roles import Role, RoleQuery, check_present, guess
from holdfast.data.images.folders import FOLLOW, list_pictures
from holdfast.data.images.picture import (
    NOTES,
    Unreadable,
    content_mark,
    is_picture_name,
    read_picture,
)
from holdfast.data.load import PLAIN, table_from_raw
from holdfast.data.options import Links, RowOptions
from holdfast.data.raw import Raw, source_path, store_columns
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table, decisions_in, findings_in

if TYPE_CHECKING:
    import datasets

PATH, CLASS = "path", "class"
PATHS = listed(
    """
    path file filename file_name filepath file_path image image_path image_file img img_path
    picture photo
    """
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


def load_images(source: str | Path, options: RowOptions = PLAIN) -> Table:
    """Read a folder of pictures, or a table whose column ``text`` (worked out where not given)
    holds paths relative to the table's folder.

    Every picture is decoded once: broken ones are left out and named in a finding, odd ones (CMYK,
    transparent, turned, animated, deep, tiny) are handled and named. ``links`` as in
    ``list_pictures``; a table's path that leads through links out of its folder is refused unless
    they are followed.

    Raises
    ------
    DataError : nothing to read, one class only, a path outside the table's folder, or more than
        half of the pictures cannot be read.
    """
    folder = source_path(source)
    base = folder.absolute() if folder.is_dir() else folder.absolute().parent
    with record_decisions() as log:
        if folder.is_dir():
            raw, paths, options = _of_folder(folder, options)
        else:
            raw = read_source(source, options.encoding, options.config)
            options = _of_table(raw, options)
            place = Path(os.path.abspath(folder)).parent  # noqa: PTH100
            paths = _inside(raw, _path(options), place, options.links)
    raw = replace(raw, decisions=(*raw.decisions, *decisions_in(log)))
    seen = _look(paths)
    _refuse_mostly_broken(raw, seen, paths, base)
    table = table_from_raw(_without(raw, _path(options), seen), options)
    with record_decisions() as odd:
        _notice_odd(seen, raw, paths, base)
    findings = (f for f in table.findings if f.check != "missing_text")
    groups = table.column("group") if table.has_groups else None
    rows = _rows(table.column("row").tolist(), table.column("label").tolist(), groups, paths, seen)
    return replace(table, rows=rows, findings=findings_in(findings, log, odd))


def _path(options: RowOptions) -> str:
    """The column of paths."""
    (path,) = options.text or (PATH,)
    return path


def _of_folder(folder: Path, options: RowOptions) -> tuple[Raw, list[str | None], RowOptions]:
    """The folder's pictures as if a table had listed them."""
    listed = list_pictures(folder, options.need_label, options.links)
    columns = {PATH: listed.names}
    if listed.classes is not None:
        columns[CLASS] = listed.classes
    label = CLASS if options.need_label else None
    # Somebody named each folder, "null" among them: only a table's cells stand for none.
    options = replace(options, text=(PATH,), label=label, labels="exact")
    options = replace(options, group=None, template=None)
    paths: list[str | None] = [str(listed.folder.absolute() / name) for name in listed.names]
    return store_columns(columns, str(listed.folder)), paths, options


def _of_table(raw: Raw, options: RowOptions) -> RowOptions:
    """The options with the column of paths: as given, by its name, or by what it holds."""
    path, label = _path(options), options.label
    if options.text is None or (path not in raw.names and path == PATH):
        question = RoleQuery(
            "likely", lambda seen: _holds_paths(raw, seen.name), "its values end like picture files"
        )
        found = guess(Role(PATHS, (question,)), profile(raw))
        if found.name is None:
            raise DataError(
                raw.source,
                "has no column that is clearly the pictures' paths",
                list(found.among) or raw.names,
                "Name it with --text.",
            )
        notify(Decision("data.text", found.name, found.because))
        path = found.name
    label = label if label in raw.names or label not in (None, CLASS) else None
    return replace(options, text=(path,), label=label, template=None)


def _holds_paths(raw: Raw, name: str) -> bool:
    values = [v for v in raw.table[name].slice(0, LOOKED_AT).to_pylist() if v]
    return bool(values) and sum(map(is_picture_name, values)) > len(values) / 2


def images_at(paths: Sequence[str | Path]) -> Table:
    """Pictures by their paths, relative to the current folder, without labels; ``row`` is the place
    in the list. Raises ``DataError`` when more than half cannot be read."""
    raw = paths_raw([str(path) for path in paths])
    found: list[str | None] = [os.path.abspath(source_path(path)) for path in paths]  # noqa: PTH100
    seen, here = _look(found), Path.cwd()
    _refuse_mostly_broken(raw, seen, found, here)
    rows = _rows(list(seen.marks), [-1] * len(seen.marks), None, found, seen)
    with record_decisions() as log:
        _notice_odd(seen, raw, found, here)
    return Table(rows, (), Columns((PATH,), None), raw.source, len(raw), findings_in(log))


def paths_raw(paths: Sequence[str]) -> Raw:
    """Paths as if a table had listed them."""
    return store_columns({PATH: paths}, "list")


def left_out(table: Table) -> list[int]:
    """The source rows that ``table`` does not hold."""
    held = set(table.column("row").tolist())
    return [row for row in range(table.source_rows) if row not in held]


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
) -> datasets.Dataset:
    """A data set on disk of these rows, with the content's mark as the text."""
    columns = {
        "row": pa.array(rows, pa.int64()),
        "path": pa.array([paths[row] for row in rows], pa.string()),
        "text": pa.array([seen.marks[row] for row in rows], pa.string()),
        "label": pa.array(labels, pa.int64()),
    }
    if groups is not None:
        columns["group"] = pa.array(groups, pa.string())
    made = pa.table(columns)
    return write_batches("images", made.schema, made.to_batches(max_chunksize=10_000))


def _named(seen: _Seen, paths: Sequence[str | None], folder: Path) -> str:
    """The first broken pictures, each with what is wrong, as paths below the source's folder."""
    told = [
        f"row {row} ({reason})"
        if (path := paths[row]) is None
        else f"{os.path.relpath(path, folder)} ({reason})"
        for row, reason in seen.broken.items()
    ]
    return list_phrase(told, SHOWN)


def _notice_odd(seen: _Seen, raw: Raw, paths: Sequence[str | None], folder: Path) -> None:
    """Pictures that cannot be read, and what is odd about the others."""

    def notice(
        check: str, rows: Sequence[int], because: str, remedy: str, severity: Severity, fixed: bool
    ) -> None:
        share, first = len(rows) / max(1, len(raw)), tuple(rows[:LISTED])
        because = f"{len(rows)} of {len(raw)} pictures{because}"
        notify(Finding(check, severity, share, len(rows), first, because, remedy, fixed))

    if seen.broken:
        because = f" cannot be read and are left out: {_named(seen, paths, folder)}"
        remedy = "Replace these files, or take their rows away."
        notice("broken_images", list(seen.broken), because, remedy, "warn", True)
    for note, rows in seen.notes.items():
        tiny = note == "tiny"
        remedy = "Nothing to do, if that is what they should look like."
        if tiny:
            remedy = "Take them away if they show nothing."
        severity: Severity = "warn" if tiny else "info"
        notice(f"{note}_images", rows, f": {NOTES[note]}", remedy, severity, not tiny)
