"""Which images a folder holds, of which classes, and which of its parts are which split."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.core.decisions import notify
from holdfast.core.errors import DataError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision, Finding, Severity
from holdfast.core.wording import list_phrase
from holdfast.data.images.decode import is_image_name
from holdfast.data.options import Links
from holdfast.data.raw import source_path

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev"),
    "test": ("test", "testing"),
}
LISTED = 5
FOLLOW = "data.links=follow"
_MORE = (", ", ", …")


@dataclass(frozen=True, slots=True)
class ImageList:
    """The images of ``folder``: ``names`` relative to it, sorted, and their ``classes`` (the
    first folder of each path, with accents composed), or ``None`` where they are not asked for."""

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None


def is_image_folder(source: str | Path) -> bool:
    """Whether ``source`` is a folder of images by class, or such folders by split."""
    folder = source_path(source)
    if not folder.is_dir():
        return False
    return any(map(_holds_images, _folders(split_folder(folder, "train") or folder)))


def split_folder(folder: Path, split: str) -> Path | None:
    """The sub-folder for a side; ``None`` without one, or where ``folder`` is not divided.

    A folder is divided when it has a training part that itself holds folders of images; a class
    that is called ``train`` holds images, not folders.
    """
    parts = {
        name: next((f for f in _folders(folder) if f.name.lower() in names), None)
        for name, names in SPLIT_FOLDERS.items()
    }
    train = parts["train"]
    if train is None or _has_images(train) or not any(map(_holds_images, _folders(train))):
        return None
    return parts[split]


def given_splits(source: str | Path) -> dict[str, str]:
    """The folder's own validation and test images; the reason to use them goes into the log."""
    folder = source_path(source)
    if not folder.is_dir():
        return {}
    parts = {split: split_folder(folder, split) for split in ("valid", "test")}
    split_paths = {side: str(part) for side, part in parts.items() if part is not None}
    because = "the folder has its own part of this name beside its training part"
    notify(*(Decision(f"{side} rows", part, because) for side, part in split_paths.items()))
    return split_paths


def list_images(folder: Path, by_class: bool, links: Links = "skip") -> ImageList:
    """Every image below ``folder`` (below its training part, where it is divided), sorted by
    path. Hidden files and folders do not count; other files are told, and so are links, which may
    lead out of the folder or show one image as two: they are left out, or with ``follow`` read,
    no folder twice. What is told goes into the log.

    Raises ``DataError`` where there is none, or ``by_class`` and fewer than two classes.
    """
    folder = split_folder(folder, "train") or folder
    walk = _Walk(links == "follow")
    files = sorted(p.relative_to(folder).as_posix() for p in walk.files(folder))
    names = tuple(name for name in files if is_image_name(name))
    # A name is kept with its row, and tables hold UTF-8 alone.
    undecodable_name = next(
        (printable_name(name) for name in names if printable_name(name) != name), None
    )
    if undecodable_name is not None:
        raise DataError(
            str(folder),
            "holds pictures whose names are not UTF-8",
            undecodable_name,
            "Rename them, with convmv for instance: they come from a system of another encoding.",
        )
    left = [printable_name(link.relative_to(folder).as_posix()) for link in sorted(walk.links)]
    _report(
        "links",
        "warn",
        left,
        f"links are not read, because they may lead out of the folder or show one picture as two: "
        f"{list_phrase(left, LISTED, *_MORE)}",
        f"Put the pictures themselves there, or set {FOLLOW}.",
    )
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
        return ImageList(folder, names, None)
    within = tuple(name for name in names if "/" in name)
    # macOS stores accents apart from their letters: one class would be two.
    classes = tuple(_composed(name.partition("/")[0]) for name in within)
    if len(set(classes)) < 2:
        raise DataError(
            str(folder),
            "needs two or more sub-folders of pictures, one for each class",
            sorted(set(classes)) or None,
            f"Read what its {len(left)} links lead to with --set {FOLLOW}."
            if left
            else "Put each picture into the folder of its class.",
        )
    _report_other_files(folder, files, within, classes)
    return ImageList(folder, within, classes)


def _report_other_files(
    folder: Path, files: Sequence[str], within: Sequence[str], classes: Sequence[str]
) -> None:
    """Files and folders that are no image of a class and no class; and folders whose names look
    the same, but have their accents in other characters."""
    inside, known = set(within), set(classes)
    stray = [printable_name(name) for name in files if name not in inside]
    shown = list_phrase(stray, LISTED, *_MORE)
    because = f"not read, because they are no pictures in the folder of a class: {shown}"
    _report("other_files", "info", stray, because, "Move pictures into the folder of their class.")
    empty = [printable_name(p.name) for p in _folders(folder) if _composed(p.name) not in known]
    because = f"folders without pictures are no classes: {', '.join(empty[:LISTED])}"
    _report("empty_classes", "warn", empty, because, "Fill them, or take them away.")
    spelled: dict[str, set[str]] = {}
    for name, one in zip(within, classes, strict=True):
        spelled.setdefault(one, set()).add(name.partition("/")[0])
    twice = sorted(name for name, parts in spelled.items() if len(parts) > 1)
    because = "folders whose names differ in how their accents are stored are one class: "
    _report(
        "same_class_names",
        "info",
        twice,
        f"{because}{', '.join(map(repr, twice[:LISTED]))}",
        "",
        True,
    )


def _report(
    check: str,
    severity: Severity,
    names: Sequence[str],
    because: str,
    remedy: str,
    fixed: bool = False,
) -> None:
    if names:
        notify(Finding(check, severity, 0.0, len(names), (), because, remedy, fixed))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def printable_name(name: str) -> str:
    """A file's name as it can be told: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "replace").decode()


def _folders(folder: Path) -> list[Path]:
    return [p for p in _entries(folder) if p.is_dir() and not _hidden(p.name)]


def _entries(folder: Path) -> list[Path]:
    with reading_errors(str(folder), DataError, "cannot be listed", "Check who may read it."):
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
            with reading_errors(
                str(place), DataError, remedy="Check the folder and its permissions."
            ):
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
    # ``__MACOSX`` of archives, and what Windows puts beside images.
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def _has_images(folder: Path) -> bool:
    return any(is_image_name(entry.name) for entry in _entries(folder) if entry.is_file())


def _holds_images(folder: Path) -> bool:
    # Links count here, so that a folder of them is taken for what it is and they are named.
    return any(is_image_name(path.name) for path in _Walk(follow=True).files(folder))
