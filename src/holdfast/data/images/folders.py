"""Which pictures a folder holds, of which classes, and which of its parts are which side."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from holdfast.core.errors import DataError
from holdfast.core.input_errors import door
from holdfast.core.records import Decision, Finding
from holdfast.data.images.picture import is_picture_name
from holdfast.data.paths import source_path

SIDES = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
LISTED = 5
Links = Literal["skip", "follow"]
FOLLOW = "data.links=follow"


@dataclass(frozen=True, slots=True)
class ImageList:
    """The pictures of ``folder``: ``names`` relative to it, sorted, and their ``classes`` (the
    first folder of each path, with accents composed), or ``None`` where they are not asked for."""

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None
    findings: tuple[Finding, ...] = ()


def is_image_folder(source: str | Path) -> bool:
    """Whether ``source`` is a folder of pictures by class, or such folders by side."""
    folder = source_path(source)
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
    folder = source_path(source)
    if not folder.is_dir():
        return {}, ()
    parts = {side: part_of(folder, side) for side in ("valid", "test")}
    found = {side: str(part) for side, part in parts.items() if part is not None}
    because = "the folder has its own part of this name beside its training part"
    return found, tuple(Decision(f"{side} rows", part, because) for side, part in found.items())


def list_pictures(folder: Path, by_class: bool, links: Links = "skip") -> ImageList:
    """Every picture below ``folder`` (below its training part, where it is divided), sorted by
    path. Hidden files and folders do not count; other files are told, and so are links, which may
    lead out of the folder or show one picture as two: they are left out, or with ``follow`` read,
    no folder twice.

    Raises ``DataError`` where there is none, or ``by_class`` and fewer than two classes.
    """
    folder = part_of(folder, "train") or folder
    walk = _Walk(links == "follow")
    files = sorted(p.relative_to(folder).as_posix() for p in walk.files(folder))
    names = tuple(name for name in files if is_picture_name(name))
    _refuse_odd_names(folder, names)
    left = _left_links(folder, walk.links)
    if not names:
        raise DataError(
            str(folder),
            "holds no pictures but links" if left else "holds no pictures",
            None,
            f"Read what they lead to with --set {FOLLOW}."
            if left
            else "Give a folder with one sub-folder of pictures a class.",
        )
    if not by_class:
        return ImageList(folder, names, None, left)
    within = tuple(name for name in names if "/" in name)
    # macOS stores accents apart from their letters: one class would be two.
    classes = tuple(unicodedata.normalize("NFC", name.partition("/")[0]) for name in within)
    if len(set(classes)) < 2:
        raise DataError(
            str(folder),
            "needs two or more sub-folders of pictures, one for each class",
            sorted(set(classes)) or None,
            f"Read what its {len(walk.links)} links lead to with --set {FOLLOW}."
            if left
            else "Put each picture into the folder of its class.",
        )
    in_classes = set(within)
    stray = [told_name(name) for name in files if name not in in_classes]
    findings = (*left, *_stray(stray), *_empty(folder, set(classes)), *_one_name(within))
    return ImageList(folder, within, classes, findings)


def _refuse_odd_names(folder: Path, names: tuple[str, ...]) -> None:
    """A name is kept with its row, and tables hold UTF-8 alone."""
    odd = [name for name in names if told_name(name) != name]
    if odd:
        raise DataError(
            str(folder),
            "holds pictures whose names are not UTF-8",
            told_name(odd[0]),
            "Rename them, with convmv for instance: they come from a system of another encoding.",
        )


def told_name(name: str) -> str:
    """A file's name as it can be told: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "replace").decode()


def _left_links(folder: Path, links: list[Path]) -> tuple[Finding, ...]:
    if not links:
        return ()
    names = [told_name(link.relative_to(folder).as_posix()) for link in sorted(links)]
    shown = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    return (
        Finding(
            "links",
            "warn",
            0.0,
            len(names),
            (),
            "links are not read, because they may lead out of the folder or show one picture "
            "as two: "
            f"{shown}",
            f"Put the pictures themselves there, or set {FOLLOW}.",
        ),
    )


def _one_name(names: tuple[str, ...]) -> tuple[Finding, ...]:
    """Folders whose names look the same, but have their accents in other characters."""
    spelled: dict[str, set[str]] = {}
    for name in names:
        part = name.partition("/")[0]
        spelled.setdefault(unicodedata.normalize("NFC", part), set()).add(part)
    twice = sorted(name for name, parts in spelled.items() if len(parts) > 1)
    if not twice:
        return ()
    return (
        Finding(
            "same_class_names",
            "info",
            0.0,
            len(twice),
            (),
            "folders whose names differ in how their accents are stored are one class: "
            f"{', '.join(map(repr, twice[:LISTED]))}",
            "",
            True,
        ),
    )


def _stray(names: list[str]) -> tuple[Finding, ...]:
    if not names:
        return ()
    shown = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    return (
        Finding(
            "other_files",
            "info",
            0.0,
            len(names),
            (),
            f"not read, because they are no pictures in the folder of a class: {shown}",
            "Move pictures into the folder of their class.",
        ),
    )


def _empty(folder: Path, classes: set[str]) -> tuple[Finding, ...]:
    empty = [
        told_name(part.name)
        for part in _folders(folder)
        if unicodedata.normalize("NFC", part.name) not in classes
    ]
    if not empty:
        return ()
    return (
        Finding(
            "empty_classes",
            "warn",
            0.0,
            len(empty),
            (),
            f"folders without pictures are no classes: {', '.join(empty[:LISTED])}",
            "Fill them, or take them away.",
        ),
    )


def _folders(folder: Path) -> list[Path]:
    return [p for p in _entries(folder) if p.is_dir() and not _hidden(p.name)]


def _entries(folder: Path) -> list[Path]:
    with door(str(folder), DataError, "cannot be listed", "Check who may read it."):
        return sorted(folder.iterdir())


@dataclass(slots=True)
class _Walk:
    """The files below a folder. A link is left out and put into ``links``; or followed, where no
    folder is entered twice, so that a link to a folder above it ends."""

    follow: bool
    links: list[Path] = field(default_factory=list)

    def files(self, folder: Path) -> Iterator[Path]:
        """In the order of their names, folder by folder."""
        waiting, entered = [folder], set()
        while waiting:
            place = waiting.pop()
            with door(str(place), DataError, remedy="Check the folder and its permissions."):
                mark = place.stat()
                entries = sorted(place.iterdir())
            if (mark.st_dev, mark.st_ino) in entered:
                continue
            entered.add((mark.st_dev, mark.st_ino))
            folders = []
            for entry in entries:
                if _hidden(entry.name):
                    continue
                if entry.is_symlink() and not self.follow:
                    self.links.append(entry)
                elif entry.is_dir():
                    folders.append(entry)
                elif entry.is_file():
                    yield entry
            # The last of the list is taken next: reversed, they come in the order of their names.
            waiting += reversed(folders)


def _hidden(name: str) -> bool:
    # ``__MACOSX`` of archives, and what Windows puts beside pictures.
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def _has_pictures(folder: Path) -> bool:
    return any(is_picture_name(entry.name) for entry in _entries(folder) if entry.is_file())


def _holds_pictures(folder: Path) -> bool:
    # Links count here, so that a folder of them is taken for what it is and they are named.
    return any(is_picture_name(path.name) for path in _Walk(follow=True).files(folder))
