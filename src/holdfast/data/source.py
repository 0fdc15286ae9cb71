"""What a source names: a file in a known format, or a hub data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from holdfast.core.discovery import missing_path_remedy, missing_rule
from holdfast.core.errors import DataError
from holdfast.core.input_errors import reading_errors
from holdfast.data.limits import check_rows
from holdfast.data.raw import Batch, Raw, read_errors, source_path, store
from holdfast.data.readers import Reader, all_readers
from holdfast.data.readers.hub import HubName, parse_hub_name, read_hub
from holdfast.data.readers.text import is_gzipped
from holdfast.data.tags.conll import SUFFIX as CONLL

# Formats with internal compression.
_PACKED = (".parquet", ".xlsx")
# The most characters read of a README.md that may say where a missing file comes from.
README_BYTES = 1_000_000
TEXT_FILE_HINT = (
    " For a file with one text per line: add the line text at the top and rename it to .csv (put "
    "quotation marks around texts with commas), or use holdfast predict RUN - < FILE."
)
_IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"}


def read_source(source: str | Path, encoding: str | None, config: str | None) -> Raw:
    """Every value of the source as written, memory-mapped.

    A path that exists is a file. Otherwise ``name[:config][@split]`` without a known ending is a
    hub data set. Any other name is refused as a missing file, with the nearest name suggested.
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
    """Raise ``DataError`` for a file that does not exist. A name that may be a hub data set
    passes."""
    path = source_path(source)
    if path.exists():
        return
    local = str(source).startswith((".", "/", "~")) or _has_known_ending(path)
    if isinstance(source, Path) or parse_hub_name(str(source)) is None or local:
        raise _missing_file_error(path)


def read_first_batch(source: str | Path, encoding: str | None, config: str | None) -> Raw:
    """As ``read_source``, but only the first batch of a file that has rows: enough to profile its
    columns, whatever its size."""
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
        # Other formats store column names; only here may a first row be taken for names.
        headed = reader.suffix in (".csv", ".tsv")
        rows = _guarded_batches(str(path), _checked_batches(path, reader, encoding), first)
        return store(rows, str(path), headed=headed)


def _guarded_batches(source: str, batches: Iterator[Batch], first: bool = False) -> Iterator[Batch]:
    """The batches of a reader, with unexpected errors of the reading turned into ``DataError``.
    With ``first``, stop after the first batch with rows: some readers begin with the columns."""
    remedy = "Check that the file is complete and has the right ending, or save it again."
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
        raise DataError(str(path), "is empty", None, "Add a header and rows.")
    packed, rows = is_gzipped(path) or reader.suffix in _PACKED, 0
    # Errors of the system and the decompressor get their own messages, before the general one.
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
        rule = "holds words with one tag each, which only token-classification reads"
        remedy = f"Use --task token-classification; the other tasks read {_known_endings()}."
        raise DataError(str(path), rule, None, remedy)
    raise DataError(
        str(path),
        "has an unknown file ending",
        "".join(path.suffixes[-2:]) or None,
        f"Known: {_known_endings()}, each also with .gz." + TEXT_FILE_HINT * name.endswith(".txt"),
    )


def _known_endings() -> str:
    return ", ".join(sorted(reader.suffix for reader in all_readers().values()))


def is_file_name(text: str) -> bool:
    """Whether a text reads as the name of a data file: one word with a known ending."""
    return len(text.split()) == 1 and _has_known_ending(Path(text))


def _has_known_ending(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    known = (*(reader.suffix for reader in all_readers().values()), CONLL, ".txt", ".xlsx", ".xls")
    return name.endswith(known) or path.name.endswith(".gz")


def _missing_file_error(path: Path) -> DataError:
    if readme := _readme_naming(path):
        remedy = f"Put {path.name} into the folder {path.parent}, as {readme} says."
        return DataError(str(path), "does not exist", None, remedy)
    return DataError(str(path), missing_rule(path), None, missing_path_remedy(path))


def _readme_naming(path: Path) -> Path | None:
    """A README.md next to the missing file, or in one of the two folders above it, that names the
    file: data that users must bring themselves."""
    for folder in list(path.absolute().parents)[:3]:
        readme = folder / "README.md"
        # The file is not trusted: a pipe would block, and a large one is not read.
        with contextlib.suppress(OSError):
            if readme.is_file():
                with readme.open("rb") as stream:
                    if path.name in stream.read(README_BYTES).decode("utf-8", "replace"):
                        return readme
    return None


def _folder_error(path: Path) -> DataError:
    with reading_errors(str(path), DataError, "cannot be listed", "Check its permissions."):
        entries = sorted(path.iterdir())
        inner = (file for entry in entries if entry.is_dir() for file in entry.iterdir())
        pictured = any(file.suffix.lower() in _IMAGES for file in inner)
    if pictured:
        return DataError(
            str(path),
            "is a folder of images, but this task reads texts",
            None,
            f"Give a file of texts ({_known_endings()}), or train on images with --task "
            "image-classification.",
        )
    files = [e.name for e in entries if e.is_file() and _has_known_ending(e)]
    hint = f"Did you mean {path / files[0]}? " if files else ""
    return DataError(
        str(path),
        "is a folder, but it has no subfolder of images for each class",
        None,
        f"{hint}Give a file of texts ({_known_endings()}), or a folder with one subfolder of "
        "images for each class.",
    )
