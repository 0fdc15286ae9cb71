"""Cleaning steps, found by discovery (contract: ``treatment.py``)."""

from __future__ import annotations

from holdfast.core.discovery import Registry, import_modules
from holdfast.quality.clean.treatment import TREATMENTS, Treatment


def all_treatments() -> Registry[Treatment]:
    """The registry of cleaning steps after every file of this folder has been imported."""
    import_modules(__name__)
    return TREATMENTS
