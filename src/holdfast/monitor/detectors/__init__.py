"""The detectors by name, one subject per file.

A detector is a function ``History -> Symptom | None``. It returns a symptom only for a difference
that is significant *and* large enough to matter. It is pure, and returns ``None`` where the history
is too short, broken, or lacks what it reads. Detectors do not decide which of several symptoms
becomes the verdict: that is ``monitor/judge.py``.
"""

from __future__ import annotations

from collections.abc import Callable

from holdfast.core.discovery import Registry
from holdfast.monitor.detectors.data import few_rows, leaking, noisy_labels, too_large
from holdfast.monitor.detectors.memory import forgetting, memorizing, outputs, primacy
from holdfast.monitor.detectors.progress import learning, plateau, underfit
from holdfast.monitor.detectors.rates import rate_high, rate_low
from holdfast.monitor.detectors.rises import disparity, miscalibrated, overfit
from holdfast.monitor.history import History
from holdfast.monitor.symptom import Symptom

Detector = Callable[[History], Symptom | None]

DETECTORS: Registry[Detector] = Registry("detector", "monitor")
for detector in (
    disparity,
    few_rows,
    forgetting,
    leaking,
    learning,
    overfit,
    memorizing,
    miscalibrated,
    noisy_labels,
    outputs,
    plateau,
    primacy,
    rate_high,
    rate_low,
    too_large,
    underfit,
):
    DETECTORS.add(detector.__name__, detector)
