"""Baselines of a classifier: most frequent class and linear probe, the better of the two, and the
label noise that the probe's predictions show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from holdfast.core.errors import Defect
from holdfast.core.records import Decision, Floats, Ints, Outputs
from holdfast.core.run_facts import LabelNoise
from holdfast.models.probes.head_fit import ProbeCurve, out_of_fold_logits, probe_curve
from holdfast.models.probes.probe import Probe
from holdfast.monitor.limits import WRONG_LEVEL
from holdfast.stats.lapse import lapse_rate

MAJORITY = "majority class"
PROBE = "linear probe"


def majority_outputs(train_labels: Ints, classes: int, target: Outputs) -> Outputs:
    """The baseline that never reads a text, for the rows of ``target``.

    Fitted on the training labels only: every row gets the logits ln((n_c + 1) ÷ (n + classes)), the
    training shares with one pseudo-row per class (Laplace). Its loss is therefore finite for a
    class without training rows. It predicts the most frequent training class (the lower index on a
    tie). Of ``target`` only rows, labels and groups are used.
    """
    counts = np.bincount(train_labels, minlength=classes).astype(np.float64)
    logs = np.log((counts + 1) / (counts.sum() + classes))
    logits = np.tile(logs.astype(np.float32), (len(target.labels), 1))
    return Outputs(target.rows, target.labels, logits, -logs[target.labels], target.groups)


def choose_baseline(validation: Mapping[str, Outputs]) -> Decision:
    """Choose the baseline to compare the model with, on validation rows, never on test rows.

    ``validation`` maps each baseline's name to its outputs for the same validation rows. The
    highest accuracy wins, then the lowest loss, then the earlier name of the mapping. Without
    validation rows the linear probe is chosen, since it can express the most frequent class as
    well.
    """
    if not validation:
        raise Defect("choosing a baseline", "needs at least one")
    if not len(next(iter(validation.values())).labels):
        selected = PROBE if PROBE in validation else next(iter(validation))
        return Decision("baseline", selected, "there are no validation rows to choose on")
    ranked = sorted(validation, key=lambda name: _merit(validation[name]))
    best = ranked[0]
    shown = ", ".join(f"{name} {-_merit(validation[name])[0]:.3f}" for name in ranked)
    return Decision("baseline", best, f"accuracy on the validation rows: {shown}")


def _merit(outputs: Outputs) -> tuple[float, float]:
    accuracy = float(np.mean(outputs.predictions == outputs.labels))
    # Sorted ascending: highest accuracy first, then lowest loss.
    return -accuracy, float(np.mean(outputs.losses))


def measured_probe(
    probe: Probe,
    features: Floats,
    labels: Ints,
    held_out: Floats,
    held_out_labels: Ints,
    *,
    classes: int,
    seed: int,
) -> ProbeCurve:
    """The probe's learning curve, and the label noise of training and validation rows that the
    probe's predictions show on rows it was not fitted on.
    """
    curve = probe_curve(
        probe, features, labels, held_out, held_out_labels, classes=classes, seed=seed
    )
    return replace(
        curve, labels=label_noise(*out_of_fold_logits(probe, labels, held_out, held_out_labels))
    )


def label_noise(logits: Floats, labels: Ints) -> LabelNoise | None:
    """The lapse rate of the labels [n] against logits [n, classes]; ``None`` without rows."""
    if not len(labels):
        return None
    rate = lapse_rate(logits, labels, level=WRONG_LEVEL)
    right = float((logits.argmax(axis=1) == labels).mean())
    base = float(np.bincount(labels).max() / len(labels))
    return LabelNoise(rate.rate, rate.low, rate.high, right, base, len(labels))
