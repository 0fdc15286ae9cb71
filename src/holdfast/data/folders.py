"""Which pictures a folder holds, of which classes, and which of its parts are which side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding
from holdfast.data.pictures import is_picture_name

SIDES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}  # fmt: skip
LISTED = 5


@dataclass(frozen=True, slots=True)
class Listed:
    """The pictures of ``folder``: ``names`` relative to it, sorted, and their ``classes`` (the
    first folder of each path), or ``None`` where they are not asked for."""

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    findings: tuple[Finding, ...] = ()


def is_image_folder(source: str | Path) -> bool:
    """Whether ``source`` is a folder of pictures by class, or such folders by side."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return False
    return any(map(_holds_pictures, _folders(part_of(folder, "train") or folder)))


def part_of(folder: Path, side: str) -> Path | None:
    """The sub-folder for a side; ``None`` without one, or where ``folder`` is not divided.

    A folder is divided when it has a training part that itself holds folders of pictures; a class
    that is called ``train`` holds pictures, not folders.
    """
    parts = {
        name: next((f for f in _folders(folder) if f.name.lower() in names), None)
        for name, names in SIDES.items()
    }
    train = parts["train"]
    if train is None or _has_pictures(train) or not any(map(_holds_pictures, _folders(train))):
        return None
    return parts[side]


def given_sides(source: str | Path) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """The folder's own validation and test pictures, and the reason to use them as they are."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return {}, ()
    parts = {side: part_of(folder, side) for side in ("valid", "test")}
    found = {side: str(part) for side, part in parts.items() if part is not None}
    because = "the folder has its own part of this name beside its training part"
    return found, tuple(Decision(f"{side} rows", part, because) for side, part in found.items())


def list_pictures(folder: Path, by_class: bool) -> Listed:
    """Every picture below ``folder`` (below its training part, where it is divided), sorted by
    path. Hidden files and folders do not count; other files are told.

    Raises ``DataError`` where there is none, or ``by_class`` and fewer than two classes.
    """
    folder = part_of(folder, "train") or folder
    files = sorted(p.relative_to(folder).as_posix() for p in _files(folder))
    names = tuple(name for name in files if is_picture_name(name))
    if not names:
        raise DataError(
            str(folder), "holds no pictures", None,
            "Give a folder with one sub-folder of pictures a class.",
        )  # fmt: skip
    if not by_class:
        return Listed(folder, names, None)
    within = tuple(name for name in names if "/" in name)
    classes = tuple(name.partition("/")[0] for name in within)
    if len(set(classes)) < 2:
        raise DataError(
            str(folder), "needs two or more sub-folders of pictures, one for each class",
            sorted(set(classes)) or None, "Put each picture into the folder of its class.",
        )  # fmt: skip
    stray = [name for name in files if name not in set(within)]
    return Listed(folder, within, classes, (*_stray(stray), *_empty(folder, set(classes))))


def _stray(names: list[str]) -> tuple[Finding, ...]:
    if not names:
        return ()
    shown = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    return (Finding(
        "other_files", "info", 0.0, len(names), (),
        f"not read, because they are no pictures in the folder of a class: {shown}",
        "Move pictures into the folder of their class.",
    ),)  # fmt: skip


def _empty(folder: Path, classes: set[str]) -> tuple[Finding, ...]:
    empty = [part.name for part in _folders(folder) if part.name not in classes]
    if not empty:
        return ()
    return (Finding(
        "empty_classes", "warn", 0.0, len(empty), (),
        f"folders without pictures are no classes: {', '.join(empty[:LISTED])}",
        "Fill them, or take them away.",
    ),)  # fmt: skip


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p.name))


def _files(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if _hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _files(entry)
        elif entry.is_file():
            yield entry


def _hidden(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def _has_pictures(folder: Path) -> bool:
    return any(is_picture_name(entry.name) for entry in folder.iterdir() if entry.is_file())


def _holds_pictures(folder: Path) -> bool:
    return next((True for path in _files(folder) if is_picture_name(path.name)), False)
