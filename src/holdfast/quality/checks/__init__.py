"""The checks, one subject per file, found by discovery (contract: ``quality/check.py``)."""

from __future__ import annotations

from typing import Any

from holdfast.core.discovery import Registry, import_modules
from holdfast.quality.check import CHECKS, Check


def all_checks() -> Registry[Check[Any]]:
    """The registry after every file of this package has been imported."""
    import_modules(__name__)
    return CHECKS
