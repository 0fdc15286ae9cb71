"""List the images of a folder with their classes, and find the folder's own splits."""

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
    first folder of each path, in Unicode NFC), or ``None`` where they are not requested."""

    folder: Path
    names: tuple[str, ...]
    classes: tuple[str, ...] | None


def is_image_folder(source: str | Path) -> bool:
    """Whether ``source`` is a folder of images by class, or contains such folders by split."""
    folder = source_path(source)
    if not folder.is_dir():
        return False
    return any(map(_holds_images, _folders(split_folder(folder, "train") or folder)))


def split_folder(folder: Path, split: str) -> Path | None:
    """The subfolder for a split; ``None`` if it does not exist or ``folder`` is not split.

    A folder is split when it has a training folder that itself contains folders of images; a class
    that is named ``train`` contains images, not folders.
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
    """The folder's own validation and test images, logged as decisions."""
    folder = source_path(source)
    if not folder.is_dir():
        return {}
    parts = {split: split_folder(folder, split) for split in ("valid", "test")}
    split_paths = {side: str(part) for side, part in parts.items() if part is not None}
    because = "the folder has a subfolder of this name next to its training folder"
    notify(*(Decision(f"{side} rows", part, because) for side, part in split_paths.items()))
    return split_paths


def list_images(folder: Path, by_class: bool, links: Links = "skip") -> ImageList:
    """Every image below ``folder`` (below its training folder, if it is split), sorted by path.

    Hidden files and folders are skipped. Other files are logged. Links may lead out of the folder
    or repeat an image: they are logged and skipped, or with ``follow`` read, each folder once.

    Raises ``DataError`` where there are no images, or ``by_class`` and fewer than two classes.
    """
    folder = split_folder(folder, "train") or folder
    walk = _Walk(links == "follow")
    files = sorted(p.relative_to(folder).as_posix() for p in walk.files(folder))
    names = tuple(name for name in files if is_image_name(name))
    # Tables store a row's file name, and only as UTF-8.
    undecodable_name = next(
        (printable_name(name) for name in names if printable_name(name) != name), None
    )
    if undecodable_name is not None:
        raise DataError(
            str(folder),
            "has images whose names are not UTF-8",
            undecodable_name,
            "Rename them, for example with convmv: they come from a system with another encoding.",
        )
    left = [printable_name(link.relative_to(folder).as_posix()) for link in sorted(walk.links)]
    _report(
        "links",
        "warn",
        left,
        f"links are skipped because they may lead out of the folder or repeat an image: "
        f"{list_phrase(left, LISTED, *_MORE)}",
        f"Copy the images into the folder, or set {FOLLOW}.",
    )
    if not names:
        raise DataError(
            str(folder),
            "contains only links, no images" if left else "contains no images",
            None,
            f"Follow the links with --set {FOLLOW}."
            if left
            else "Give a folder with one subfolder of images for each class.",
        )
    if not by_class:
        return ImageList(folder, names, None)
    within = tuple(name for name in names if "/" in name)
    # macOS stores accents separately from their letters: one class would become two.
    classes = tuple(_composed(name.partition("/")[0]) for name in within)
    if len(set(classes)) < 2:
        raise DataError(
            str(folder),
            "needs at least two subfolders of images, one for each class",
            sorted(set(classes)) or None,
            f"Follow its {len(left)} links with --set {FOLLOW}."
            if left
            else "Put each image into the folder of its class.",
        )
    _report_other_files(folder, files, within, classes)
    return ImageList(folder, within, classes)


def _report_other_files(
    folder: Path, files: Sequence[str], within: Sequence[str], classes: Sequence[str]
) -> None:
    """Log files that are not an image of a class, folders without images, and folders with equal
    names whose accents are stored differently."""
    inside, known = set(within), set(classes)
    stray = [printable_name(name) for name in files if name not in inside]
    shown = list_phrase(stray, LISTED, *_MORE)
    because = f"not read because they are not images in the folder of a class: {shown}"
    _report("other_files", "info", stray, because, "Move images into the folder of their class.")
    empty = [printable_name(p.name) for p in _folders(folder) if _composed(p.name) not in known]
    because = f"folders without images are ignored as classes: {', '.join(empty[:LISTED])}"
    _report("empty_classes", "warn", empty, because, "Add images, or remove the folders.")
    spelled: dict[str, set[str]] = {}
    for name, one in zip(within, classes, strict=True):
        spelled.setdefault(one, set()).add(name.partition("/")[0])
    twice = sorted(name for name, parts in spelled.items() if len(parts) > 1)
    because = "folders whose names differ only in how accents are stored are one class: "
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
    """A file's name for display: bytes that are not UTF-8 are replaced."""
    return name.encode("utf-8", "replace").decode()


def _folders(folder: Path) -> list[Path]:
    return [p for p in _entries(folder) if p.is_dir() and not _hidden(p.name)]


def _entries(folder: Path) -> list[Path]:
    with reading_errors(str(folder), DataError, "cannot be listed", "Check its permissions."):
        return sorted(folder.iterdir())


@dataclass(slots=True)
class _Walk:
    """The files below a folder. A link is skipped and recorded in ``links``, or followed. No
    folder is entered twice, so that a link to a parent folder does not loop."""

    follow: bool
    links: list[Path] = field(default_factory=list)

    def files(self, folder: Path) -> Iterator[Path]:
        """The files in the order of their names, folder by folder."""
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
            # A stack takes the last entry first: reversed, they come in the order of their names.
            waiting += reversed(folders)


def _hidden(name: str) -> bool:
    # ``__MACOSX`` of archives, and files that Windows puts next to images.
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def _has_images(folder: Path) -> bool:
    return any(is_image_name(entry.name) for entry in _entries(folder) if entry.is_file())


def _holds_images(folder: Path) -> bool:
    # Links count here, so that a folder of links is recognised and its links are reported.
    return any(is_image_name(path.name) for path in _Walk(follow=True).files(folder))
