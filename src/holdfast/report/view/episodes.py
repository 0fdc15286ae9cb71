"""What a start that was learned from many tasks is worth on new ones, beside the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from holdfast.report.numbers import count, estimate, interval
from holdfast.report.run_files import RunFiles

NAMES = {
    "frozen": "the model as it is, a head fitted anew",
    "tuned": "features tuned on all training classes, a head fitted anew",
    "prototypes": "prototypical network",
    "anil": "ANIL",
    "maml": "first-order MAML",
    "reptile": "Reptile",
}
HARDEST = 40


@dataclass(frozen=True, slots=True)
class MethodRow:
    """A method: validation accuracy, its difference from the baseline with interval."""

    name: str
    accuracy: str
    difference: str
    kept: bool


@dataclass(frozen=True, slots=True)
class EpisodesView:
    """One sentence, the scores on test episodes, what was tried, and the tasks, hardest first."""

    sentence: str
    scores: tuple[tuple[str, str, str], ...]
    tried: tuple[MethodRow, ...]
    tasks: tuple[tuple[str, str, str], ...]
    hidden: int
    what: str


def episodes(run: RunFiles) -> EpisodesView | None:
    """``None`` where the run is none of ``holdfast meta``."""
    meta = run.part("meta")
    if not meta:
        return None
    kept = str(meta.get("kept"))
    told = run.part("meta", "interval")
    unit = str(told.get("over") or "class")
    units = f"{count(told.get('units'))} {unit}{'es' if unit == 'class' else 's'}"
    plain, found = told.get("plain_half"), estimate(meta.get("accuracy"))
    sentence = (
        f"{NAMES.get(kept, kept)} was kept: {meta.get('because')}. Intervals know that the "
        f"{count(meta.get('episodes'))} test episodes are made of the same {units}"
    )
    if found.low is not None and found.high is not None and plain:
        wider = (found.high - found.low) / 2 / plain
        sentence += (
            f"; taken for {count(meta.get('episodes'))} tasks each of its own they would be "
        )
        sentence += f"{wider:.0f} times narrower, and wrong"
    scores = [(NAMES.get(kept, kept), *_score(meta.get("accuracy")))]
    for name, one in run.table("meta", "baselines").items():
        if name != kept:
            scores.append((NAMES.get(name, name), *_score(one.get("accuracy"))))
    tasks = sorted(
        (one for one in run.records("meta", "per_task") if one.get("accuracy") is not None),
        key=lambda one: (one["accuracy"], str(one["task"])),
    )
    return EpisodesView(
        f"{sentence[0].upper()}{sentence[1:]}.",
        tuple(scores),
        tuple(_tried(one, kept) for one in run.records("meta", "tried")),
        tuple(
            (str(t["task"]), _percent(t["accuracy"]), count(t["episodes"])) for t in tasks[:HARDEST]
        ),
        max(0, len(tasks) - HARDEST),
        "Task" if meta.get("by") == "task" else "Class",
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _score(raw: object) -> tuple[str, str]:
    found = estimate(raw)
    return _percent(found.value) if found.value is not None else "–", interval(found, "accuracy")


def _tried(one: Any, kept: str) -> MethodRow:
    gap = one.get("difference") or {}
    value, low, high = (gap.get(name) for name in ("value", "low", "high"))
    words = "–" if value is None else f"{100 * value:+.1f} points"
    if low is not None and high is not None:
        words += f" ({100 * low:+.1f} to {100 * high:+.1f})"
    name = str(one.get("method"))
    return MethodRow(NAMES.get(name, name), _percent(float(one["accuracy"])), words, name == kept)
