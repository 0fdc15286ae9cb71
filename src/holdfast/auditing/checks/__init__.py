"""The checks, one per file, found by discovery (``auditing/check.py`` is their contract)."""

from __future__ import annotations

from typing import Any

from holdfast.auditing.check import CHECKS, Check
from holdfast.core.discovery import Registry, modules_of


def all_checks() -> Registry[Check[Any]]:
    """The registry after every file of this room has been imported."""
    modules_of(__name__)
    return CHECKS
