"""Logs that other programs write; one format a file, found here by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.core.discovery import Registry

if TYPE_CHECKING:
    from holdfast.integrations.logs.table import Log


@dataclass(frozen=True, slots=True)
class LogReader:
    """How one kind of log is recognised and read.

    ``accepts`` looks at the name, the folder or the first lines, and never raises. ``read`` hands
    on everything numeric and raises ``DataError`` where the file breaks its format. Of several
    readers that accept a log the one with the largest ``priority`` reads it: a special format
    before the general one. ``looks`` says in a few words what such a log is, for the error message.
    """

    accepts: Callable[[Path], bool]
    read: Callable[[Path], Log]
    looks: str
    priority: int = 1


LOGS: Registry[LogReader] = Registry("log reader", "the log")


def all_log_readers() -> Registry[LogReader]:
    """Every reader, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return LOGS
