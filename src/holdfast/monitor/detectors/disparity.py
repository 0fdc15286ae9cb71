"""Disparity: the metric itself differs between training and validation rows."""

from __future__ import annotations

from holdfast.monitor import limits
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.history import History
from holdfast.monitor.symptom import Symptom, item
from holdfast.stats.rates import rate_gap


def disparity(history: History) -> Symptom | None:
    """Says by how much more often the train probe is answered rightly than validation, with
    Newcombe's interval, where even its lower limit is 5 points or more.

    A gap alone is no fault, since every model that learns has one; so this only speaks as evidence
    beside the label of another, and never of a cause.
    """
    if not history.enough or history.valid_hits is None or history.probe_hits is None:
        return None
    train, valid = history.probe_hits[:, -1], history.valid_hits[:, -1]
    low, high = rate_gap(int(train.sum()), len(train), int(valid.sum()), len(valid))
    if low < limits.DISPARITY:
        return None
    gap = float(train.mean() - valid.mean())
    return Symptom(
        because=f"accuracy is {train.mean():.1%} on training rows and {valid.mean():.1%} on "
        "validation rows",
        evidence=(item("accuracy_train_probe_above_valid", gap, low, high, history.now),),
    )


DETECTORS.add("disparity", disparity)
