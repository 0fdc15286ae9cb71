"""scikit-learn's curves, saved as JSON: ``loss_curve_`` and ``validation_scores_`` of an MLP,
``train_score_`` of gradient boosting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from holdfast.core.records import Decision
from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.keras_history import lists, rows_of
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import document, head

TRAIN = ("loss_curve_", "train_score_")
VALID = ("validation_scores_", "oob_scores_")


def read(path: Path) -> Log:
    """An attribute's name says neither set nor kind, so each column gets both words before it:
    scikit-learn's scores rise, its training curves are losses."""
    columns = {}
    for name, values in lists(document(path)).items():
        ended = name if name.endswith("_") else f"{name}_"
        prefix = "train loss" if ended in TRAIN else "valid score" if ended in VALID else ""
        columns[f"{prefix}: {name}" if prefix else name] = values
    log = from_rows(rows_of(columns), "sklearn", str(path))
    because = "the attributes of an estimator are not named after a set"
    renamed = Decision("names", ", ".join(columns), because)
    return replace(log, decisions=(*log.decisions, renamed))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    start = head(path, (".json",))
    if not start or not start.startswith("{"):
        return False
    known = [f'"{name.rstrip("_")}{end}"' for name in (*TRAIN, *VALID) for end in ("", "_")]
    return any(name in start for name in known)


LOGS.add("sklearn", LogReader(accepts, read, "scikit-learn's loss_curve_ as JSON", 4))
