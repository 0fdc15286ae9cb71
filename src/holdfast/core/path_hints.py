"""What to say of a path where nothing lies: the nearest name beside it, or where to look."""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path

ALIKE = 0.7
MOST = 2000  # names that are compared with the one that is missing
# Bytes that a name may have on most file systems.
LONGEST = 255


def where(folder: Path) -> str:
    """A folder as a sentence names it: ``.`` is the current folder, never ``in ..``."""
    return "the current folder" if folder == Path() else f"the folder {folder}"


def lies_there(path: Path) -> bool:
    """Whether something is at ``path``. Differs from ``Path.exists`` in that a name too long for
    the system, or one in a folder that may not be entered, is nothing that lies there."""
    try:
        return path.exists()
    except OSError:
        return False


def missing_remedy(path: Path, folders: bool = False) -> str:
    """What to do about a missing path: the folder that is missing too, the nearest file beside it
    (``folders``: or folder), else the folder that was looked into."""
    parent = path.parent
    if not lies_there(parent):
        return f"There is no folder {parent} either."
    beside = _beside(parent, folders)
    close = difflib.get_close_matches(path.name[:LONGEST], sorted(beside), n=1, cutoff=ALIKE)
    if close:
        return f"Did you mean {parent / close[0]}?"
    return f"Check the name: {where(parent)} holds nothing that is named like it."


def _beside(folder: Path, folders: bool) -> list[str]:
    """The first names in a folder; none of one that may not be read."""
    try:
        return [e.name for e in itertools.islice(folder.iterdir(), MOST) if folders or e.is_file()]
    except OSError:
        return []
