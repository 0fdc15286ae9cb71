"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.core.discovery import user_path
from holdfast.core.errors import MachineError, RunError
from holdfast.core.input_errors import DISK_FULL_ERRNOS
from holdfast.core.records import to_json

CACHE = "HOLDFAST_CACHE"


def cache_folder() -> Path:
    """The user's folder for what is made once on a machine: ``HOLDFAST_CACHE``, or ``holdfast`` in
    the usual cache folder."""
    given = os.environ.get(CACHE)
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return user_path(given) if given else Path(usual) / "holdfast"


def json_digest(value: object) -> str:
    """The SHA-256 of a value's JSON, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` on a file next to ``path``, sync it, then rename it into place.

    For files that Holdfast names; files that the user names go through ``core/outputs.py``. A link
    at ``path`` is neither followed nor replaced.
    """
    partial = path.with_name(f".{path.name}.partial")
    with disk_errors(path):
        refuse_link(path)
        # A link left there by somebody else would be written through.
        partial.unlink(missing_ok=True)
        try:
            write(partial)
            # Before the rename: a power cut may else leave the new name with none of its bytes.
            sync(partial)
            partial.replace(path)
            # The rename stands in the folder's own data: unsynced, a power cut may take it back.
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def refuse_link(path: Path) -> None:
    """Raise ``RunError`` if a file or folder of a run is a link: its target may belong to
    anybody."""
    if path.is_symlink():
        rule = f"is a link (to {path.readlink()}), but a run needs a real file or folder here"
        remedy = "Replace the link by what it points to, or remove it."
        raise RunError(str(path), rule, None, remedy)


def replace_folder(partial: Path, folder: Path) -> None:
    """Sync every file of ``partial``, give each the mode of any new file (safetensors lets only the
    owner read), then move it to ``folder``."""
    with disk_errors(folder):
        refuse_link(folder)
        mode = new_file_mode(partial)
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                path.chmod(mode)
                sync(path)
        sync(partial)
        # A folder cannot be renamed over one that holds files: for a moment there is none.
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
        sync(folder.parent)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder next to ``folder`` to write into; it replaces ``folder`` at the end."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    replace_folder(partial, folder)


@contextlib.contextmanager
def new_folder(folder: Path, description: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A hidden folder next to ``folder``, and the function that moves it to ``folder``. Without
    that call it is removed, with the parent folders made for it. Raises ``RunError`` if
    ``description`` exists there; it is never overwritten."""
    partial = folder.with_name(f".{folder.name}.partial")
    new_parents = [path for path in (folder.parent, *folder.parent.parents) if not path.exists()]
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # What was left of one that was killed.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()

    def finish() -> None:
        # Another process may have been quicker.
        refuse_existing(folder, description)
        replace_folder(partial, folder)

    try:
        yield partial, finish
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for path in new_parents:
            with contextlib.suppress(OSError):
                path.rmdir()


def refuse_existing(path: Path, description: str) -> None:
    """Raise ``RunError`` if something exists at ``path``, where ``description`` would be
    written."""
    if path.is_symlink() or path.exists():
        rule = f"exists already, and {description} is never overwritten"
        raise RunError(str(path), rule, None, "Choose another --out, or remove it.")


def new_file_mode(folder: Path) -> int:
    """The mode of a new file in ``folder``, read from a file that is made and removed: reading the
    umask would change it for a moment, for other threads too."""
    trial = folder / ".mode.partial"
    try:
        with trial.open("w"):
            return trial.stat().st_mode & 0o777
    finally:
        trial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, completely or not at all (``write_atomically``)."""
    write_atomically(path, lambda beside: _write(beside, text))


def write_json(path: Path, value: object) -> None:
    """One JSON document, two-space indented, keys in the order given, NaN as ``null``."""
    write_text(path, dump_json(value) + "\n")


def dump_json(value: object) -> str:
    """One JSON document, two-space indented, keys in the order given, NaN and infinities as
    ``null``. Raises ``ValueError`` for a number that ``to_json`` did not convert."""
    # ``to_json`` made NaN null. Python would write any that is left as a bare NaN, which is no
    # JSON.
    return json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False)


# The folders of temporary files that ``data/scratch.py`` makes.
SCRATCH_FOLDER = re.compile(r"holdfast-\d+-[0-9a-f]{6}-\w+")
REFUSED_ERRNOS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.EBUSY,
    errno.ENXIO,
    errno.EIO,
    errno.ESTALE,
)


@contextlib.contextmanager
def disk_errors(path: Path, remedy: str | None = None) -> Iterator[None]:
    """Turn errors of the operating system into one clear message about ``path``. ``remedy`` is what
    to do; the default is that of a run's folder."""
    try:
        yield
    except Exception as error:
        translated = _translate(path, _error_number(error), remedy)
        if translated is None:
            raise
        raise translated from error


def _error_number(error: Exception) -> int | None:
    """The operating system's error number; safetensors gives it only in its message."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def _translate(path: Path, number: int | None, remedy: str | None) -> MachineError | None:
    if number is None:
        return None
    if remedy is None and any(SCRATCH_FOLDER.fullmatch(folder.name) for folder in path.parents):
        remedy = "It is a temporary file: free some space there, or set TMPDIR to another folder."
    if number in DISK_FULL_ERRNOS:
        return MachineError(
            str(path),
            "could not be written: the disk, or your quota, is full",
            None,
            remedy
            or "Free some space and start again (holdfast train: with --resume); the files that "
            "were written are complete.",
        )
    if number == errno.ENOENT and not path.parent.exists():
        return MachineError(
            str(path),
            "could not be written: its folder is no longer there",
            None,
            remedy or "Do not change the folder during a run; start the run again.",
        )
    if number == errno.EPIPE:
        rule = "could not be written completely: its reader has gone"
        return MachineError(str(path), rule, None, remedy or "")
    if number in REFUSED_ERRNOS:
        return MachineError(
            str(path),
            f"could not be written: {os.strerror(number).lower()}",
            None,
            remedy
            or "Make its folder writable, or name another one (--out, where the command has it).",
        )
    return None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk; does nothing on file systems that cannot."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder, and one that is read-only has nothing to sync.
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise
    finally:
        os.close(descriptor)
