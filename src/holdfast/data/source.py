"""What a source names: a file in a known format, or a data set of the hub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from holdfast.core.discovery import missing_path_remedy
from holdfast.core.errors import DataError
from holdfast.core.input_errors import reading_errors
from holdfast.data.limits import check_rows
from holdfast.data.raw import Batch, Raw, read_errors, source_path, store
from holdfast.data.readers import Reader, all_readers
from holdfast.data.readers.hub import HubName, parse_hub_name, read_hub
from holdfast.data.readers.text import is_gzipped
from holdfast.data.tags.conll import SUFFIX as CONLL

# Formats that are compressed within.
_PACKED = (".parquet", ".xlsx")
# Of a README.md that may say where missing rows come from.
README_BYTES = 1_000_000
TEXT_FILE_HINT = (
    " A file of one text a line: put the header text above it and call it .csv (with quotation "
    "marks around texts that hold commas), or holdfast predict RUN - < FILE."
)
_IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"}


def read_source(source: str | Path, encoding: str | None, config: str | None) -> Raw:
    """Every value of the source as it writes it, memory-mapped.

    A path that exists is a file; else ``name[:config][@split]`` without a known ending is a data
    set of the hub; else the missing file is refused, and the nearest name beside it given.
    """
    path = source_path(source)
    if path.exists():
        return _read_file(path, encoding)
    refuse_missing(source)
    hub = parse_hub_name(str(source))
    assert hub is not None
    rows = read_hub(HubName(hub.name, config or hub.config, hub.split))
    return store(_guarded_batches(str(source), rows), str(source))


def refuse_missing(source: str | Path) -> None:
    """Raise ``DataError`` for the name of a file that is not there; a name that may be a data set
    of the hub passes."""
    path = source_path(source)
    if path.exists():
        return
    local = str(source).startswith((".", "/", "~")) or _has_known_ending(path)
    if isinstance(source, Path) or parse_hub_name(str(source)) is None or local:
        raise _missing_file_error(path)


def read_first_batch(source: str | Path, encoding: str | None, config: str | None) -> Raw:
    """As ``read_source``, but of a file the first batch with rows alone: enough to see what its
    columns are, whatever its size."""
    path = source_path(source)
    if path.exists():
        return _read_file(path, encoding, first=True)
    return read_source(source, encoding, config)


def _read_file(path: Path, encoding: str | None, first: bool = False) -> Raw:
    if path.is_dir():
        raise _folder_error(path)
    if not path.is_file():
        raise DataError(str(path), "is not a regular file", None, "Save the data to a file first.")
    reader = find_reader(path)
    with read_errors(path):
        # Others name their columns beside the rows; only here a first row may be taken for names.
        headed = reader.suffix in (".csv", ".tsv")
        rows = _guarded_batches(str(path), _checked_batches(path, reader, encoding), first)
        return store(rows, str(path), headed=headed)


def _guarded_batches(source: str, batches: Iterator[Batch], first: bool = False) -> Iterator[Batch]:
    """What a reader hands on, with the net under the reading alone; of it the ``first`` with rows
    alone: some readers begin with the columns."""
    remedy = "Look whether it is whole, and what its ending says; or write it again."
    while True:
        with reading_errors(source, DataError, remedy=remedy):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
        if first and any(len(column) for column in batch.columns.values()):
            return


def _checked_batches(path: Path, reader: Reader, encoding: str | None) -> Iterator[Batch]:
    size = path.stat().st_size
    if size == 0:
        raise DataError(str(path), "is empty", None, "It needs rows with a text and a label.")
    packed, rows = is_gzipped(path) or reader.suffix in _PACKED, 0
    # What the system and the decompressor refuse has words of its own, before the net's.
    with read_errors(path):
        for batch in reader.read(path, encoding):
            rows += len(next(iter(batch.columns.values()), ()))
            if packed:
                check_rows(str(path), size, rows)
            yield batch


def find_reader(path: Path) -> Reader:
    """The reader for a file's ending."""
    name = path.name.lower().removesuffix(".gz")
    for reader in all_readers().values():
        if name.endswith(reader.suffix):
            return reader
    if name.endswith(CONLL):
        raise DataError(
            str(path),
            "holds words with a tag each, which token-classification alone reads",
            None,
            f"Train with --task token-classification; the other tasks read {_known_endings()}.",
        )
    raise DataError(
        str(path),
        "has an ending that no reader knows",
        "".join(path.suffixes[-2:]) or None,
        f"Known: {_known_endings()}, each also with .gz." + TEXT_FILE_HINT * name.endswith(".txt"),
    )


def _known_endings() -> str:
    return ", ".join(sorted(reader.suffix for reader in all_readers().values()))


def _has_known_ending(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    known = (*(reader.suffix for reader in all_readers().values()), CONLL, ".txt", ".xlsx", ".xls")
    return name.endswith(known) or path.name.endswith(".gz")


def _missing_file_error(path: Path) -> DataError:
    if readme := _readme_naming(path):
        remedy = f"Put {path.name} into the folder {path.parent}, as {readme} says."
        return DataError(str(path), "does not exist", None, remedy)
    return DataError(str(path), "does not exist", None, missing_path_remedy(path))


def _readme_naming(path: Path) -> Path | None:
    """A README.md beside the missing file, or in one of the two folders above, that names it: rows
    that a user must bring."""
    for folder in list(path.absolute().parents)[:3]:
        readme = folder / "README.md"
        # Anybody's file: a pipe would be waited for, and a large one is not held.
        with contextlib.suppress(OSError):
            if readme.is_file():
                with readme.open("rb") as stream:
                    if path.name in stream.read(README_BYTES).decode("utf-8", "replace"):
                        return readme
    return None


def _folder_error(path: Path) -> DataError:
    with reading_errors(str(path), DataError, "cannot be listed", "Check who may read it."):
        entries = sorted(path.iterdir())
        inner = (file for entry in entries if entry.is_dir() for file in entry.iterdir())
        pictured = any(file.suffix.lower() in _IMAGES for file in inner)
    if pictured:
        return DataError(
            str(path),
            "is a folder of images, and this task reads texts",
            None,
            f"Use --task image-classification, or give a file of texts: {_known_endings()}.",
        )
    files = [e.name for e in entries if e.is_file() and _has_known_ending(e)]
    hint = f"Did you mean {path / files[0]}? " if files else ""
    return DataError(
        str(path),
        "is a folder without one subfolder of images per class",
        None,
        f"{hint}Give a file of texts ({_known_endings()}) or a folder of images by class.",
    )
