"""Logs in JSON: Hugging Face Trainer, LLaMA-Factory, Keras, scikit-learn, XGBoost and LightGBM, and
any file with one object a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.core.curves import TRANSFORMERS
from holdfast.core.decisions import notify
from holdfast.core.records import Decision
from holdfast.plugins.logs import Log, not_a_log
from holdfast.plugins.logs.choose import TRAIN, parse_name
from holdfast.plugins.logs.table import file_decision, from_rows, parse_duration, parse_number
from holdfast.plugins.logs.text import (
    MAX_DOCUMENT_BYTES,
    first_line_holds,
    flatten,
    read_document,
    read_head,
    read_objects,
)

STATE = "trainer_state.json"
# The last entry summarises the run: its train_loss is the mean over all steps, not a point.
SUMMARY = ("train_runtime", "total_flos", "train_samples_per_second")
LLAMA_FACTORY = "trainer_log.jsonl"
PROGRESS = ("percentage", "total_steps", "elapsed_time", "remaining_time")
# The attributes of an estimator: losses of its training, scores of held-out rows.
SKLEARN_TRAIN = ("loss_curve_", "train_score_")
SKLEARN_VALID = ("validation_scores_", "oob_scores_")
SKLEARN = {*SKLEARN_TRAIN, *SKLEARN_VALID, "loss_curve", "validation_scores"}


def is_trainer_state(path: Path) -> bool:
    """Whether the file has a ``log_history``; it comes after the arguments, which may be long."""
    if path.is_dir():
        return bool(_states(path))
    start = read_head(path, (".json",))
    if start is None or not start.startswith("{"):
        return False
    # The reader refuses larger files, so they need not be recognised quickly.
    if '"log_history"' not in start and path.stat().st_size <= MAX_DOCUMENT_BYTES:
        start = path.read_text("utf-8", errors="replace")
    return '"log_history"' in start


def read_trainer_state(path: Path) -> Log:
    """The Hugging Face Trainer's ``trainer_state.json``, and that of trainers built on it (TRL,
    Axolotl).

    Accepts a state file, a checkpoint's folder, or a trainer's output folder: there the checkpoint
    with the largest step, which holds the full history. Entries of old versions without ``step``
    take their epoch as position.
    """
    states = [path] if path.is_file() else _states(path)
    file = max(states, key=_step)
    if len(states) > 1:
        because = f"the latest of {len(states)} states in the folder; it holds the full history"
        notify(file_decision("trainer state", file.relative_to(path), because))
    state = read_document(file)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise not_a_log(str(file), "has no list log_history")
    entries = [entry for entry in history if isinstance(entry, dict)]
    rows = [one for one in entries if "loss" in one or not any(name in one for name in SUMMARY)]
    if not rows:
        raise not_a_log(str(file), "has an empty log_history")
    planned = parse_number(state.get("max_steps"))
    return from_rows(
        rows,
        TRANSFORMERS,
        str(file),
        # The plan counts steps; entries of old versions have only epochs.
        planned=planned if planned and planned > 0 and "step" in rows[-1] else None,
        seconds=next(
            (parse_number(e["train_runtime"]) for e in entries if "train_runtime" in e), None
        ),
    )


def _states(folder: Path) -> list[Path]:
    places = (folder / STATE, *sorted(folder.glob(f"checkpoint-*/{STATE}")))
    return [place for place in places if place.exists()]


def _step(state: Path) -> float:
    """The state next to the checkpoints is written at the end of training."""
    match = re.fullmatch(r"checkpoint-(\d+)", state.parent.name)
    return float(match[1]) if match else float("inf")


def is_llama_factory(path: Path) -> bool:
    """Whether its first line counts ``current_steps``."""
    if path.is_dir():
        return (path / LLAMA_FACTORY).is_file()
    return first_line_holds(path, '"current_steps"')


def read_llama_factory(path: Path) -> Log:
    """``trainer_log.jsonl`` (``current_steps``, ``total_steps``, ``loss``, ``eval_loss``), or the
    output folder that holds it."""
    file = path / LLAMA_FACTORY if path.is_dir() else path
    planned: float | None = None
    elapsed: float | None = None

    def logged() -> Iterator[dict[str, Any]]:
        nonlocal planned, elapsed
        for row in read_objects(file):
            planned = parse_number(row.get("total_steps")) or planned
            if "elapsed_time" in row:
                elapsed = parse_duration(str(row["elapsed_time"]))
            yield {k: v for k, v in row.items() if k not in PROGRESS}

    log = from_rows(logged(), "llama_factory", str(file))
    return replace(log, planned=planned, seconds=elapsed)


def is_lines(path: Path) -> bool:
    """Whether this may be objects, by its name or by how it begins."""
    start = read_head(path, (".jsonl", ".ndjson", ".json", ".log", ".txt"))
    by_name = path.suffix.lower() in (".jsonl", ".ndjson")
    return bool(start) and (by_name or str(start).startswith(("{", "[")))


def read_lines(path: Path) -> Log:
    """An object a line, or a list of objects; names are recognised as in a CSV.

    Nested objects are flattened: ``{"train": {"loss": 1}}`` is the column ``train/loss``.
    """
    start = read_head(path) or ""
    entries: Iterable[Any] = read_document(path) if start.startswith("[") else read_objects(path)
    if isinstance(entries, list) and not all(isinstance(row, dict) for row in entries):
        raise not_a_log(str(path), "is a list, but not a list of objects")
    return from_rows((flatten(row, str(path)) for row in entries), "jsonl", str(path))


def is_history(path: Path) -> bool:
    """Whether this is a dictionary of lists, of which at least one has the name of a loss or a
    metric.
    """
    columns = _lists(_object(path, (".json", ".txt")))
    return bool(columns) and not SKLEARN & columns.keys() and any(map(parse_name, columns))


def read_history(path: Path) -> Log:
    """A Keras ``history.history`` as ``json.dump`` writes it, with ``epoch`` where it was saved."""
    value = read_document(path)
    epochs = value.get("epoch")
    columns = {k: v for k, v in _lists(value).items() if k != "epoch"}
    rows = _rows(columns, epochs if isinstance(epochs, list) else [])
    return from_rows(rows, "keras", str(path))


def is_sklearn(path: Path) -> bool:
    """Whether the file begins with the name of an estimator's curve."""
    start = read_head(path, (".json",))
    if not start or not start.startswith("{"):
        return False
    known = (*SKLEARN_TRAIN, *SKLEARN_VALID)
    return any(f'"{name}"' in start or f'"{name[:-1]}"' in start for name in known)


def read_sklearn(path: Path) -> Log:
    """``loss_curve_`` and ``validation_scores_`` of an MLP, ``train_score_`` of gradient boosting.

    An attribute's name says neither split nor kind, so each column gets both words before it:
    scikit-learn's scores rise, its training curves are losses.
    """
    columns = {}
    for name, values in _lists(read_document(path)).items():
        attribute = name if name.endswith("_") else f"{name}_"
        prefix = "train loss: " if attribute in SKLEARN_TRAIN else ""
        prefix = "valid score: " if attribute in SKLEARN_VALID else prefix
        columns[prefix + name] = values
    log = from_rows(_rows(columns), "sklearn", str(path))
    because = "the names of an estimator's attributes contain no split"
    notify(Decision("names", ", ".join(columns), because))
    return log


def is_boosting(path: Path) -> bool:
    """Whether this is a dictionary of dictionaries of lists, none of them empty."""
    sets = _object(path, (".json",))
    if not isinstance(sets, dict) or not all(isinstance(one, dict) for one in sets.values()):
        return False
    lists = [values for metrics in sets.values() for values in metrics.values()]
    return bool(sets) and all(sets.values()) and all(isinstance(v, list) and v for v in lists)


def read_boosting(path: Path) -> Log:
    """``{"validation_0": {"logloss": […]}}`` of XGBoost and LightGBM. Columns are named
    ``set-metric``, as XGBoost prints them.

    Where XGBoost numbered the sets (``validation_0``, ``validation_1`` …) and there are several,
    the first is assumed to be the training rows, which is the convention for ``eval_set``.
    """
    sets = read_document(path)
    numbered = [name for name in sets if name.startswith(("validation_", "valid_"))]
    named = [name for name in sets if name.lower() in TRAIN]
    first = numbered[0] if len(numbered) > 1 and not named else None
    # ``train, validation_0`` would name both splits; the bare number is enough after train.
    titles = {name: name for name in sets}
    if first is not None:
        titles[first] = "train, set " + first.split("_", 1)[1]
    columns = {
        f"{titles[name]}-{metric}": values
        for name, metrics in sets.items()
        for metric, values in metrics.items()
    }
    log = from_rows(_rows(columns), "boosting", str(path))
    if first is not None:
        because = "there are several numbered sets; by convention the first is the training set"
        notify(Decision("training rows", first, because))
    return log


def _object(path: Path, suffixes: tuple[str, ...]) -> Any:
    """The document of a file that begins as an object; ``None`` for any other file."""
    start = read_head(path, suffixes)
    if not start or not start.startswith("{"):
        return None
    try:
        return read_document(path)
    except Exception:  # another reader refuses a broken document
        return None


def _lists(value: object) -> dict[str, list[Any]]:
    """The named lists of a document; also those of ``{"history": {…}}``."""
    if isinstance(value, dict) and isinstance(value.get("history"), dict):
        value = value["history"]
    if not isinstance(value, dict):
        return {}
    return {str(k): v for k, v in value.items() if isinstance(v, list) and v}


def _rows(columns: dict[str, list[Any]], epochs: list[Any] | None = None) -> list[dict[str, Any]]:
    """Lists as columns; a shorter one ends earlier."""
    if epochs:
        columns = {**columns, "epoch": epochs[: max(map(len, columns.values()))]}
    return [
        {name: values[place] for name, values in columns.items() if place < len(values)}
        for place in range(max(map(len, columns.values())))
    ]
