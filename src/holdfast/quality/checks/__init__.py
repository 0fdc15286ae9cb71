"""The checks, one subject a file, found by discovery (``quality/check.py`` is their contract)."""

from __future__ import annotations

from typing import Any

from holdfast.core.discovery import Registry, import_modules
from holdfast.quality.check import CHECKS, Check


def all_checks() -> Registry[Check[Any]]:
    """The registry after every file of this room has been imported."""
    import_modules(__name__)
    return CHECKS
