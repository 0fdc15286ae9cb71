"""The checks, one per file, found by discovery.

A check is a function ``Table -> Finding | None``. It states its rule with the numbers, stays silent
where it cannot tell, and must not report anything silly on clean data.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from holdfast.core.discovery import Registry
from holdfast.core.records import Finding
from holdfast.data.table import Table

Check = Callable[[Table], Finding | None]

CHECKS: Registry[Check] = Registry("audit check", "audit")


def all_checks() -> Registry[Check]:
    """The registry after every file of this room has been imported."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return CHECKS
