"""XGBoost and LightGBM: ``{"validation_0": {"logloss": […]}}``, saved as JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from holdfast.core.records import Decision
from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.keras_history import rows_of
from holdfast.plugins.logs.names import TRAIN
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import document, head


def read(path: Path) -> Log:
    """Columns are named ``set-metric``, as XGBoost prints them.

    Where XGBoost numbered the sets (``validation_0``, ``validation_1`` …) and there are several,
    the first is taken as the training rows, which is how ``eval_set`` is given by custom.
    """
    sets = document(path)
    numbered = [name for name in sets if name.startswith(("validation_", "valid_"))]
    named = [name for name in sets if name.lower() in TRAIN]
    first = numbered[0] if len(numbered) > 1 and not named else None
    columns = {
        f"{'train, ' if name == first else ''}{name}-{metric}": values
        for name, metrics in sets.items()
        for metric, values in metrics.items()
    }
    if first is not None:
        columns = {_without_valid(name): values for name, values in columns.items()}
    log = from_rows(rows_of(columns), "boosting", str(path))
    if first is None:
        return log
    because = "several numbered sets, and by custom the first holds the training rows"
    taken = Decision("training rows", first, because)
    return replace(log, decisions=(*log.decisions, taken))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    start = head(path, (".json",))
    if not start or not start.startswith("{"):
        return False
    try:
        value = document(path)
        return (
            isinstance(value, dict)
            and bool(value)
            and all(isinstance(metrics, dict) and metrics for metrics in value.values())
            and all(
                isinstance(v, list) and v for metrics in value.values() for v in metrics.values()
            )
        )
    except Exception:  # a broken document is another reader's to refuse
        return False


def _without_valid(name: str) -> str:
    """``train, validation_0-logloss`` names both sets; the bare number is enough beside train."""
    if not name.startswith("train, "):
        return name
    return "train, set " + name.removeprefix("train, ").split("_", 1)[1]


LOGS.add("boosting", LogReader(accepts, read, "an XGBoost or LightGBM evals_result as JSON", 4))
