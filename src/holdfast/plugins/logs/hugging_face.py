"""The Hugging Face Trainer and what stands on it (TRL, Axolotl): ``trainer_state.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.core.curves import TRANSFORMERS
from holdfast.core.records import Decision
from holdfast.plugins.logs import LOGS, Log, LogReader, not_a_log
from holdfast.plugins.logs.table import from_rows, number
from holdfast.plugins.logs.text import LARGEST_DOCUMENT, document, head

STATE = "trainer_state.json"
# The last entry sums the run up: its train_loss is the mean over all steps, not a point.
SUMMARY = ("train_runtime", "total_flos", "train_samples_per_second")


def read(path: Path) -> Log:
    """A state file, a checkpoint's folder, or a trainer's output folder: there the checkpoint with
    the largest step, which holds the whole history. Entries of old versions without ``step`` take
    their epoch as position."""
    file, chosen = _find(path)
    state = document(file)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise not_a_log(str(file), "has no list log_history")
    entries = [entry for entry in history if isinstance(entry, dict)]
    rows = [entry for entry in entries if not _sums_up(entry)]
    if not rows:
        raise not_a_log(str(file), "has an empty log_history")
    return from_rows(
        rows,
        TRANSFORMERS,
        str(file),
        planned=_planned(state, rows),
        decisions=chosen,
        seconds=next((number(e["train_runtime"]) for e in entries if "train_runtime" in e), None),
    )


def accepts(path: Path) -> bool:
    """Whether this looks like such a log; never raises."""
    if path.is_dir():
        return bool(_states(path))
    start = head(path, (".json",))
    return start is not None and start.startswith("{") and '"log_history"' in _whole(path, start)


def _whole(path: Path, start: str) -> str:
    """``log_history`` stands after the arguments, which may be long."""
    # Larger ones are refused by the reader; nobody waits for them to be recognised.
    if '"log_history"' in start or path.stat().st_size > LARGEST_DOCUMENT:
        return start
    return path.read_text("utf-8", errors="replace")


def _find(path: Path) -> tuple[Path, tuple[Decision, ...]]:
    if path.is_file():
        return path, ()
    found = _states(path)
    latest = max(found, key=_step)
    if len(found) == 1:
        return latest, ()
    because = f"the latest of {len(found)} states in the folder; it holds the whole history"
    return latest, (Decision("trainer state", str(latest.relative_to(path)), because),)


def _states(folder: Path) -> list[Path]:
    return [
        p for p in (folder / STATE, *sorted(folder.glob(f"checkpoint-*/{STATE}"))) if p.exists()
    ]


def _step(state: Path) -> float:
    """The state beside the checkpoints is written at the end of training."""
    number_of = re.fullmatch(r"checkpoint-(\d+)", state.parent.name)
    return float(number_of[1]) if number_of else float("inf")


def _sums_up(entry: Mapping[str, Any]) -> bool:
    return any(name in entry for name in SUMMARY) and "loss" not in entry


def _planned(state: Mapping[str, Any], rows: list[dict[str, Any]]) -> float | None:
    planned = number(state.get("max_steps"))
    # The plan counts steps; entries of old versions have epochs alone.
    return planned if planned and planned > 0 and "step" in rows[-1] else None


LOGS.add(
    TRANSFORMERS,
    LogReader(accepts, read, "a Hugging Face trainer_state.json or checkpoint folder", 5),
)
