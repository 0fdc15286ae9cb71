"""Treatments: what can be done about rows, one a file, found by discovery (``treatment.py``)."""

from __future__ import annotations

import importlib
import pkgutil

from holdfast.auditing.treat.treatment import TREATMENTS, Treatment
from holdfast.core.discovery import Registry


def all_treatments() -> Registry[Treatment]:
    """The registry after every file of this folder has been imported."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        importlib.import_module(f"{__name__}.{module.name}")
    return TREATMENTS
