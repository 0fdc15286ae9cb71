"""The checks, one per file, found by discovery (``auditing/check.py`` is their contract)."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from holdfast.auditing.check import CHECKS, Check
from holdfast.core.discovery import Registry


def all_checks() -> Registry[Check[Any]]:
    """The registry after every file of this room has been imported."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return CHECKS
