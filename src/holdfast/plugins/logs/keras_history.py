"""A dictionary of lists: a Keras ``History.history`` or scikit-learn curves, saved as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.plugins.logs import LOGS, Log, LogReader
from holdfast.plugins.logs.names import meaning
from holdfast.plugins.logs.table import from_rows
from holdfast.plugins.logs.text import document, head

SKLEARN = {
    "loss_curve_": "train_loss_curve",
    "loss_curve": "train_loss_curve",
    "validation_scores_": "validation_score",
    "validation_scores": "validation_score",
    "train_score_": "train_loss",
    "oob_scores_": "oob_score",
}


def lists(value: Any) -> dict[str, list[Any]]:
    """The named lists of a document; those of ``{"history": {…}}`` too."""
    if isinstance(value, dict) and isinstance(value.get("history"), dict):
        value = value["history"]
    if not isinstance(value, dict):
        return {}
    return {str(k): v for k, v in value.items() if isinstance(v, list) and v}


def rows_of(columns: dict[str, list[Any]], epochs: list[Any] | None = None) -> list[dict[str, Any]]:
    """Lists side by side; a shorter one ends earlier."""
    longest = max(map(len, columns.values()))
    return [
        {name: values[place] for name, values in columns.items() if place < len(values)}
        | ({"epoch": epochs[place]} if epochs and place < len(epochs) else {})
        for place in range(longest)
    ]


def read(path: Path) -> Log:
    """``history.history`` as ``json.dump`` writes it; ``epoch`` beside it where it was kept."""
    value = document(path)
    epochs = value.get("epoch") if isinstance(value.get("epoch"), list) else None
    columns = {k: v for k, v in lists(value).items() if k != "epoch"}
    return from_rows(rows_of(columns, epochs), "keras", str(path))


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    start = head(path, (".json", ".txt"))
    if not start or not start.startswith("{"):
        return False
    try:
        columns = lists(document(path))
    except Exception:  # a broken document is another reader's to refuse
        return False
    return bool(columns) and not SKLEARN.keys() & columns.keys() and any(map(meaning, columns))


LOGS.add("keras_history", LogReader(accepts, read, "a Keras CSVLogger file or history JSON", 2))
