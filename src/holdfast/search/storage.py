"""Storage of a study: an Optuna journal file, or a database by its URL. A password in a URL is
used, but never shown or stored."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.discovery import user_path
from holdfast.core.errors import MachineError, RunError
from holdfast.core.packages import need_packages
from holdfast.data.database_url import DRIVERS, INSTALL, is_url, mask_password, without_password

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.storages.journal._file import BaseJournalFileLock

# Bytes at the end of a journal that may be one torn line.
LONGEST_LINE = 64_000_000


def open_storage(where: str) -> BaseStorage:
    """The storage at a URL or in a journal file, created if it does not exist.

    Raises ``MachineError`` if Optuna or a driver is not installed, ``RunError`` if there is no such
    database, or the file is not a journal.
    """
    require_optuna()
    import optuna

    # It reports every trial on standard error, where Holdfast does so itself.
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return _database(where) if is_url(where) else _journal(user_path(where))


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a database."""
    inner = getattr(storage, "_backend", storage)
    if hasattr(inner, "engine"):
        inner.remove_session()
        inner.engine.dispose()


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental features."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def require_optuna() -> None:
    """Raise ``MachineError`` where Optuna is not installed."""
    need_packages("a search", "optuna", install="'holdfast[tune]'")


def check_study(where: str) -> None:
    """Check whether a file can be a study, as far as possible without making or changing it, before
    rows are read and a model is loaded. Raises ``RunError``."""
    if is_url(where):
        return
    path = user_path(where)
    name = str(path)
    if path.is_dir():
        raise RunError(name, "is a folder, but a study is a file", None, "Name a file in it.")
    if not path.parent.is_dir():
        rule = "cannot be created: its folder does not exist"
        raise RunError(name, rule, str(path.parent), "Create the folder, or name another file.")
    with _study_errors(name):
        if path.exists():
            # Optuna reads nothing in a file of one strange line, and would write behind it.
            with path.open("rb") as file:
                first = file.readline(LONGEST_LINE)
            # The first write may be the one that was cut off.
            if first and not first.startswith(b'{"op_code":'):
                raise ValueError("not an operation of a journal")


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    name = str(path)
    check_study(name)
    lock = JournalFileSymlinkLock(name)
    with _study_errors(name):
        if path.exists():
            _truncate_torn_line(path, lock)
        return JournalStorage(JournalFileBackend(name, lock))


@contextmanager
def _study_errors(name: str) -> Iterator[None]:
    remedy = "Name a study file of `holdfast tune`, or a new file."
    try:
        yield
    except OSError as error:
        raise RunError(name, "cannot be opened", str(error), remedy) from error
    except Exception as error:
        # Whatever a foreign file makes of the reader: a wrong line is a KeyError there.
        raise RunError(name, "is not an Optuna study", type(error).__name__, remedy) from error


def _truncate_torn_line(path: Path, lock: BaseJournalFileLock) -> None:
    """Remove a last line that was cut off by a kill, since the next one would be appended to it."""
    from optuna.storages.journal._file import get_lock_file

    with get_lock_file(lock), path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(max(0, end - LONGEST_LINE))
        last = file.read()
        if last.endswith(b"\n"):
            return
        file.truncate(end - len(last) + last.rfind(b"\n") + 1)


def _database(url: str) -> BaseStorage:
    """Turn every database error into one message without the password."""
    name, remedy = (
        mask_password(url),
        "Check host, name and password; PGPASSWORD and ~/.pgpass are read.",
    )
    scheme, _, rest = url.partition("://")
    driver_url = f"{DRIVERS.get(scheme, scheme)}://{rest}"
    try:
        with without_experimental_warnings():
            from optuna.storages import RDBStorage

            return RDBStorage(driver_url, engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        rule = "needs a driver that is not installed"
        ours = name.partition("://")[0] in DRIVERS
        other = "Install it, or name a file or a postgresql:// URL."
        raise MachineError(name, rule, error.name, INSTALL if ours else other) from None
    except ValueError:
        # A port that is no number, say; it may be a part of the password, so it is not said.
        rule = "is not the URL of a database"
        instruction = (
            "Write postgresql://NAME:PASSWORD@HOST:PORT/DATABASE, with / @ : of a password as "
        )
        raise RunError(name, rule, None, f"{instruction}%2F %40 %3A.") from None
    except Exception as error:
        package = type(error).__module__.partition(".")[0]
        if package not in ("sqlalchemy", "psycopg", "optuna"):
            raise
        message = without_password(str(getattr(error, "orig", None) or error), url)
        # The chain of exceptions holds the URL.
        raise RunError(name, "cannot be used for a study", message[:300], remedy) from None
