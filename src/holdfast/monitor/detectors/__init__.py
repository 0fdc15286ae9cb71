"""The detectors, one per file, found by discovery.

A detector is a function ``History -> Symptom | None``: silent unless a difference is beyond chance
*and* large enough to matter. It is pure, and silent where the history is too short, broken, or
lacks what it reads. Which of several symptoms becomes the verdict is no detector's business: that
is ``monitor/precedence.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.core.discovery import Registry, modules_of
from holdfast.monitor.history import History
from holdfast.monitor.symptom import Symptom

Detector = Callable[[History], Symptom | None]

DETECTORS: Registry[Detector] = Registry("detector", "monitor")


def all_detectors() -> Registry[Detector]:
    """The registry after every file of this room has been imported."""
    modules_of(__name__)
    return DETECTORS
