"""A temporary folder for Arrow files, removed when the process ends."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

_NUMBERS = itertools.count()


def scratch_file(stem: str, suffix: str = ".arrow") -> Path:
    """A path that no one has used yet. It lies in the system's temporary folder (``TMPDIR``), never
    beside the user's file, and goes when this process ends normally or by an error."""
    return _folder(os.getpid()) / f"{stem}-{next(_NUMBERS)}{suffix}"


@cache
def _folder(process: int) -> Path:
    # Keyed by the process: a forked child must not remove its parent's files.
    folder = Path(tempfile.mkdtemp(prefix=f"holdfast-{process}-"))
    atexit.register(_remove, folder, process)
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
