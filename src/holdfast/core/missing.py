"""What to say of a path where nothing lies: the nearest name beside it, or where to look."""

from __future__ import annotations

import difflib
from pathlib import Path

ALIKE = 0.7


def where(folder: Path) -> str:
    """A folder as a sentence names it: ``.`` is the current folder, never ``in ..``."""
    return "the current folder" if folder == Path() else f"the folder {folder}"


def missing_remedy(path: Path, folders: bool = False) -> str:
    """What to do about a missing path: the folder that is missing too, the nearest file beside it
    (``folders``: or folder), else the folder that was looked into."""
    parent = path.parent
    if not parent.is_dir():
        return f"There is no folder {parent} either."
    beside = [e.name for e in parent.iterdir() if folders or e.is_file()]
    close = difflib.get_close_matches(path.name, sorted(beside), n=1, cutoff=ALIKE)
    if close:
        return f"Did you mean {parent / close[0]}?"
    return f"Check the name: {where(parent)} holds nothing that is named like it."
