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
from holdfast.data.images.decode import SUFFIXES, is_image_name
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
    that is named ``train`` contains images, not two or more such folders.
    """
    parts = {
        name: next((f for f in _folders(folder) if f.name.lower() in names), None)
        for name, names in SPLIT_FOLDERS.items()
    }
    train = parts["train"]
    inside = [] if train is None else list(filter(_holds_images, _folders(train)))
    if train is None or not inside or (_has_images(train) and len(inside) < 2):
        return None
    return parts[split]


def given_splits(source: str | Path) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """The folder's own validation and test images."""
    folder = source_path(source)
    if not folder.is_dir():
        return {}, ()
    parts = {split: split_folder(folder, split) for split in ("valid", "test")}
    split_paths = {side: str(part) for side, part in parts.items() if part is not None}
    because = "the folder has a subfolder of this name next to its training folder"
    return split_paths, tuple(
        Decision(f"{side} rows", part, because) for side, part in split_paths.items()
    )


def list_images(
    folder: Path, by_class: bool, links: Links = "skip", *, training: bool = True
) -> ImageList:
    """Every image below ``folder``, sorted by path; for ``training``, below the training folder of
    one that is split.

    Hidden files and folders are skipped. Other files are logged. Links may lead out of the folder
    or repeat an image: they are logged and skipped, or with ``follow`` read, each folder once.

    Raises ``DataError`` where there are no images; for ``training`` ``by_class`` where there are
    fewer than two classes; and otherwise for a folder that is split.
    """
    training_folder = split_folder(folder, "train")
    if training_folder is not None and not training:
        raise _split_error(folder)
    if training_folder is not None:
        _report_unread_folders(folder)
        folder = training_folder
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
    hidden = sorted(printable_name(p.relative_to(folder).as_posix()) for p in walk.hidden)
    because = (
        f"images whose names begin with a dot are not read: {list_phrase(hidden, LISTED, *_MORE)}"
    )
    _report("hidden_images", "info", hidden, because, "Rename them to have them read.")
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
    if len(set(classes)) < (2 if training else 1):
        raise DataError(
            str(folder),
            "needs at least two subfolders of images, one for each class"
            if training
            else "needs at least one subfolder of images, named after its class",
            sorted(set(classes)) or None,
            f"Follow its {len(left)} links with --set {FOLLOW}."
            if left
            else "Put each image into the folder of its class.",
        )
    _report_other_files(folder, files, within, classes)
    return ImageList(folder, within, classes)


def _split_error(folder: Path) -> DataError:
    """The error for a folder with splits where one set of rows is read."""
    found = [split_folder(folder, split) for split in ("test", "valid", "train")]
    parts = [part for part in found if part is not None]
    return DataError(
        str(folder),
        "has subfolders of training and other images, and one set of rows is read here",
        ", ".join(sorted(part.name for part in parts)),
        f"Name the subfolder: {parts[0]}.",
    )


def _report_unread_folders(folder: Path) -> None:
    """Log subfolders of a split folder that are none of its splits."""
    known = {split_folder(folder, split) for split in SPLIT_FOLDERS}
    unread = [f.name for f in _folders(folder) if f not in known and _holds_images(f)]
    because = "folders of images that are not read, since they are none of the splits: "
    shown = list_phrase([printable_name(name) for name in unread], LISTED, *_MORE)
    remedy = "Name validation images with --set data.valid=…, test images with --test."
    _report("unread_folders", "warn", unread, f"{because}{shown}", remedy)


def _report_other_files(
    folder: Path, files: Sequence[str], within: Sequence[str], classes: Sequence[str]
) -> None:
    """Log files that are not an image of a class, folders without images, and folders with equal
    names whose accents are stored differently."""
    inside, known = set(within), set(classes)
    unread = [printable_name(name) for name in files if name not in inside]
    stray = list(filter(is_image_name, unread))
    shown = list_phrase(stray, LISTED, *_MORE)
    because = f"images that are not read because they are in the folder of no class: {shown}"
    _report("stray_images", "warn", stray, because, "Move them into the folder of their class.")
    others = [name for name in unread if not is_image_name(name)]
    shown = list_phrase(others, LISTED, *_MORE)
    because = f"files that are not read because their ending is not that of an image: {shown}"
    remedy = f"Save images among them in a format that is read: {', '.join(SUFFIXES)}."
    _report("other_files", "info", others, because, remedy)
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
    folder is entered twice, so that a link to a parent folder does not loop. ``hidden`` are images
    whose names begin with a dot."""

    follow: bool
    links: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)

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
                    # macOS puts a file ``._NAME`` beside each file.
                    if is_image_name(entry.name) and not entry.name.startswith(("._", "__")):
                        self.hidden.append(entry)
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
