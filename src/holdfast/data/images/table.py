"""A folder of images by class, or a table of their paths, as a ``Table``.

Columns of its ``rows``: ``row``, ``path`` (absolute), ``text`` (a hash of the pixels, so that exact
duplicates are found and stay in one split), ``label``, and ``group`` where given. A row number is
the image's position in the folder's sorted paths, or its row in the table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from holdfast.core.decisions import decisions_in, findings_in, notify, record_decisions
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding, Severity
from holdfast.core.wording import list_phrase
from holdfast.data.columns.profile import profile_columns, split_names
from holdfast.data.columns.roles import ColumnRole, RoleQuery, check_present, guess_column
from holdfast.data.images.decode import (
    NOTES,
    UnreadableImage,
    content_hash,
    is_image_name,
    read_image,
)
from holdfast.data.images.folders import FOLLOW, list_images
from holdfast.data.load import DEFAULT_OPTIONS, table_from_raw
from holdfast.data.options import Links, RowOptions
from holdfast.data.raw import Raw, source_path, store_columns
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table

if TYPE_CHECKING:
    import datasets

PATH, CLASS = "path", "class"
PATHS = split_names(
    """
    path file filename file_name filepath file_path image image_path image_file img img_path
    picture photo
    """
)
NOTE_REMEDIES = {
    "tiny": "Remove them if they show nothing.",
    "dark": "Scale their values to the whole range of 16 bits, or save them with 8.",
}
SAMPLED_ROWS = 200
LISTED = 100
SHOWN = 5


@dataclass(slots=True)
class _DecodingResult:
    """The result of decoding every image, by row."""

    marks: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    notes: dict[str, list[int]] = field(default_factory=dict)


def load_images(source: str | Path, options: RowOptions = DEFAULT_OPTIONS) -> Table:
    """Read a folder of images, or a table whose column ``text`` (inferred where not given) holds
    paths relative to the table's folder.

    Every image is decoded once. Unreadable ones are dropped and listed in a finding; unusual ones
    (CMYK, transparent, rotated, animated, deep, tiny) are converted and listed. ``links`` as in
    ``list_images``; a table's path that leads through links out of its folder is refused unless
    they are followed.

    Raises
    ------
    DataError : nothing to read, only one class, a path outside the table's folder, or more than
        half of the images cannot be read.
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
            paths = _paths_inside(raw, _path(options), place, options.links)
    raw = replace(raw, decisions=(*raw.decisions, *decisions_in(log)))
    decoded = _decode_images(paths)
    _refuse_mostly_broken(raw, decoded, paths, base)
    table = table_from_raw(_without_unreadable(raw, _path(options), decoded), options)
    with record_decisions() as image_log:
        _report_image_notes(decoded, raw, paths, base)
    findings = (f for f in table.findings if f.check != "missing_text")
    groups = table.column("group") if table.has_groups else None
    rows = _rows(
        table.column("row").tolist(), table.column("label").tolist(), groups, paths, decoded
    )
    return replace(table, rows=rows, findings=findings_in(findings, log, image_log))


def _path(options: RowOptions) -> str:
    """The column of paths."""
    (path,) = options.text or (PATH,)
    return path


def _of_folder(folder: Path, options: RowOptions) -> tuple[Raw, list[str | None], RowOptions]:
    """The folder's images as if a table had listed them."""
    # Rows to score are those of a run, whose classes are known.
    training = options.need_label and options.classes is None
    listed = list_images(folder, options.need_label, options.links, training=training)
    columns = {PATH: listed.names}
    if listed.classes is not None:
        columns[CLASS] = listed.classes
    label = CLASS if options.need_label else None
    # A folder named "null" is a class: only cells of a table can mean a missing label.
    options = replace(options, text=(PATH,), label=label, labels="exact")
    options = replace(options, group=None, template=None)
    paths: list[str | None] = [str(listed.folder.absolute() / name) for name in listed.names]
    return store_columns(columns, str(listed.folder)), paths, options


def _of_table(raw: Raw, options: RowOptions) -> RowOptions:
    """The options with the column of paths: as given, by its name, or by its values."""
    path, label = _path(options), options.label
    if options.text is None or (path not in raw.names and path == PATH):
        question = RoleQuery(
            "likely", lambda seen: holds_paths(raw, seen.name), "its values end like image files"
        )
        guessed = guess_column(ColumnRole(PATHS, (question,)), profile_columns(raw))
        if guessed.name is None:
            rule = "has no column that clearly holds the paths of images"
            remedy = "Name it: --text COLUMN."
            raise DataError(raw.source, rule, list(guessed.among) or raw.names, remedy)
        notify(Decision("data.text", guessed.name, guessed.because))
        path = guessed.name
    label = label if label in raw.names or label not in (None, CLASS) else None
    return replace(options, text=(path,), label=label, template=None)


def holds_paths(raw: Raw, name: str) -> bool:
    """Whether most values of a column end like the names of image files."""
    values = [v for v in raw.table[name].slice(0, SAMPLED_ROWS).to_pylist() if v]
    return bool(values) and sum(map(is_image_name, values)) > len(values) / 2


def image_name(path: str, source: str) -> str:
    """The path of an image below the folder of its source, for display."""
    place = source_path(source).absolute()
    return os.path.relpath(path, place if place.is_dir() else place.parent)


def images_at(paths: Sequence[str | Path]) -> Table:
    """Images by their paths, relative to the current folder, without labels; ``row`` is the
    position in the list. Raises ``DataError`` when more than half cannot be read."""
    raw = raw_of_paths([str(path) for path in paths])
    absolute_paths: list[str | None] = [os.path.abspath(source_path(path)) for path in paths]  # noqa: PTH100
    decoded, here = _decode_images(absolute_paths), Path.cwd()
    _refuse_mostly_broken(raw, decoded, absolute_paths, here)
    rows = _rows(list(decoded.marks), [-1] * len(decoded.marks), None, absolute_paths, decoded)
    with record_decisions() as log:
        _report_image_notes(decoded, raw, absolute_paths, here)
    return Table(rows, (), Columns((PATH,), None), raw.source, len(raw), findings_in(log))


def raw_of_paths(paths: Sequence[str]) -> Raw:
    """Paths as if a table had listed them."""
    return store_columns({PATH: paths}, "list")


def rows_left_out(table: Table) -> list[int]:
    """The source rows that ``table`` does not contain."""
    rows_in_table = set(table.column("row").tolist())
    return [row for row in range(table.source_rows) if row not in rows_in_table]


def _paths_inside(raw: Raw, column: str, folder: Path, links: Links) -> list[str | None]:
    """The absolute paths. Refuses a path that leaves the table's folder, by its name or through
    links that are not followed."""
    check_present(raw, column)
    absolute_paths: list[str | None] = []
    real = _real(folder)
    for row, name in enumerate(raw.table[column].to_pylist()):
        if name is None or not name.strip():
            absolute_paths.append(None)
            continue
        path = Path(os.path.normpath(folder / name.strip()))
        if not path.is_relative_to(folder):
            raise DataError(
                f"{raw.source}, row {row}",
                "has a path outside the table's folder",
                name,
                "Put the images into the table's folder or below it, and write their paths "
                "relative to it.",
            )
        if links == "skip" and not _real(path).is_relative_to(real):
            rule = "has a path that leaves its folder through a link"
            remedy = f"Copy the image into the folder, or follow links with --set {FOLLOW}."
            raise DataError(f"{raw.source}, row {row}", rule, name, remedy)
        absolute_paths.append(str(path))
    return absolute_paths


def _real(path: Path) -> Path:
    """Resolve links. A cycle of links or an invalid path is returned unchanged; reading it fails
    later."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def _decode_images(paths: Sequence[str | None]) -> _DecodingResult:
    decoded = _DecodingResult()
    for row, path in enumerate(paths):
        if path is None:
            decoded.broken[row] = "the path is missing"
            continue
        try:
            picture = read_image(path)
        except UnreadableImage as error:
            decoded.broken[row] = str(error)
            continue
        decoded.marks[row] = content_hash(picture.image)
        for note in picture.notes:
            decoded.notes.setdefault(note, []).append(row)
    return decoded


def _refuse_mostly_broken(
    raw: Raw, decoded: _DecodingResult, paths: Sequence[str | None], folder: Path
) -> None:
    if not len(raw) or len(decoded.broken) * 2 <= len(raw):
        return
    rule = f"has {len(raw)} images, of which {len(decoded.broken)} cannot be read"
    remedy = "Check the paths and the files."
    raise DataError(raw.source, rule, _name_broken(decoded, paths, folder), remedy)


def _without_unreadable(raw: Raw, path: str, decoded: _DecodingResult) -> Raw:
    """The source without the paths of unreadable images: these rows are dropped."""
    names = raw.table[path].to_pylist()
    readable_names = pa.array(
        [n if row in decoded.marks else None for row, n in enumerate(names)], pa.string()
    )
    place = raw.table.column_names.index(path)
    return replace(raw, table=raw.table.set_column(place, path, readable_names).combine_chunks())


def _rows(
    rows: list[int],
    labels: list[int],
    groups: list[str] | None,
    paths: Sequence[str | None],
    decoded: _DecodingResult,
) -> datasets.Dataset:
    """A data set on disk of these rows, with the hash of the pixels as the text."""
    columns = {
        "row": pa.array(rows, pa.int64()),
        "path": pa.array([paths[row] for row in rows], pa.string()),
        "text": pa.array([decoded.marks[row] for row in rows], pa.string()),
        "label": pa.array(labels, pa.int64()),
    }
    if groups is not None:
        columns["group"] = pa.array(groups, pa.string())
    arrow_rows = pa.table(columns)
    return write_batches("images", arrow_rows.schema, arrow_rows.to_batches(max_chunksize=10_000))


def _name_broken(decoded: _DecodingResult, paths: Sequence[str | None], folder: Path) -> str:
    """The first unreadable images, each with the reason, as paths below the source's folder."""
    broken = [
        f"row {row} ({reason})"
        if (path := paths[row]) is None
        else f"{os.path.relpath(path, folder)} ({reason})"
        for row, reason in decoded.broken.items()
    ]
    return list_phrase(broken, SHOWN)


def _report_image_notes(
    decoded: _DecodingResult, raw: Raw, paths: Sequence[str | None], folder: Path
) -> None:
    """Log the unreadable images, and the unusual ones that were converted."""

    def notice(
        check: str, rows: Sequence[int], because: str, remedy: str, severity: Severity, fixed: bool
    ) -> None:
        share, first = len(rows) / max(1, len(raw)), tuple(rows[:LISTED])
        because = f"{len(rows)} of {len(raw)} images{because}"
        notify(Finding(check, severity, share, len(rows), first, because, remedy, fixed))

    if decoded.broken:
        because = f" cannot be read and are dropped: {_name_broken(decoded, paths, folder)}"
        remedy = "Replace these files, or remove their rows."
        notice("broken_images", list(decoded.broken), because, remedy, "warn", True)
    for note, rows in decoded.notes.items():
        usual = "No change is needed if these images should look like this."
        remedy = NOTE_REMEDIES.get(note, usual)
        severity: Severity = "warn" if note in NOTE_REMEDIES else "info"
        notice(f"{note}_images", rows, f": {NOTES[note]}", remedy, severity, severity == "info")
