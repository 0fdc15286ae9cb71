"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.core.errors import MachineError
from holdfast.core.records import to_json


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` on a file beside ``path``, sync it, then rename it into place."""
    beside = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        try:
            write(beside)
            _sync(beside)
            beside.replace(path)
            _sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def replace_folder(beside: Path, folder: Path) -> None:
    """Sync every file of ``beside``, then put it where ``folder`` is."""
    with disk_errors(folder):
        for path in sorted(beside.rglob("*")):
            if path.is_file():
                _sync(path)
        _sync(beside)
        if folder.exists():
            shutil.rmtree(folder)
        beside.replace(folder)
        _sync(folder.parent)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda beside: _write(beside, text))


def write_json(path: Path, value: Any) -> None:
    """One JSON document, two-space indented, keys in the order given, NaN as ``null``."""
    write_text(path, dump_json(value) + "\n")


def dump_json(value: Any) -> str:
    return json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one clear message."""
    try:
        yield
    except Exception as error:
        translated = _translate(path, _number(error))
        if translated is None:
            raise
        raise translated from error


def _number(error: Exception) -> int | None:
    """The operating system's error number; safetensors gives it in its sentence only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None


def _translate(path: Path, number: int | None) -> MachineError | None:
    if number is None:
        return None
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return MachineError(
            str(path), "could not be written: the disk, or what you may use of it, is full", None,
            "Free some space, then run the same command with --resume; what is there is whole.",
        )  # fmt: skip
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG):
        return MachineError(
            str(path), f"could not be written: {os.strerror(number).lower()}", None,
            "Choose a folder that you may write to with --out.",
        )  # fmt: skip
    return None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise
    finally:
        os.close(descriptor)
