"""What the linear probe of a classifier says against its labels, at the cost of no further fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.run_facts import LabelNoise
from holdfast.models.probes.curve import ProbeCurve, out_of_fold, probe_curve
from holdfast.models.probes.probe import Probe
from holdfast.monitor.limits import WRONG_LEVEL
from holdfast.stats.lapse import lapse_rate


def measured_probe(
    probe: Probe,
    features: Floats,
    labels: Ints,
    held: Floats,
    held_labels: Ints,
    *,
    classes: int,
    seed: int,
) -> ProbeCurve:
    """The probe's learning curve, and what its answers on rows it was not fitted on say against
    the labels of training and validation rows."""
    curve = probe_curve(probe, features, labels, held, held_labels, classes=classes, seed=seed)
    return replace(curve, labels=label_noise(*out_of_fold(probe, labels, held, held_labels)))


def label_noise(logits: Floats, labels: Ints) -> LabelNoise | None:
    """The lapse rate of the labels [n] against logits [n, classes]; ``None`` without rows."""
    if not len(labels):
        return None
    found = lapse_rate(logits, labels, level=WRONG_LEVEL)
    right = float((logits.argmax(axis=1) == labels).mean())
    base = float(np.bincount(labels).max() / len(labels))
    return LabelNoise(found.rate, found.low, found.high, right, base, len(labels))
