"""The files of a run folder as one frozen value; the only file of this room that opens them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from holdfast.core.errors import RunError

REPEAT = "Give the folder of a finished run; `holdfast train … --resume` finishes one."
NOTES_KEPT = 40
KINDS = ("snapshot", "verdict", "action", "note")


@dataclass(frozen=True, slots=True)
class NotedRows:
    """Rows of one split that carry the same note: how many, and the first of them."""

    split: str
    note: str
    count: int
    first: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """One test row as ``predictions.parquet`` holds it; ``confidence`` is the largest
    probability, or ``None`` where none was written."""

    row: int
    label: str
    prediction: str
    loss: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run folder says. ``noted`` and ``predictions`` are empty where their file is absent;
    ``absent`` names such files, so that the page can say so."""

    result: Mapping[str, Any]
    snapshots: tuple[Mapping[str, Any], ...]
    verdicts: tuple[Mapping[str, Any], ...]
    actions: tuple[Mapping[str, Any], ...]
    notes: tuple[Mapping[str, Any], ...]
    timeline: tuple[Mapping[str, Any], ...]
    recipe: Mapping[str, Any]
    split_counts: Mapping[str, int]
    noted: tuple[NotedRows, ...]
    noted_left_out: int
    predictions: tuple[Prediction, ...]
    absent: tuple[str, ...]
    examples: tuple[Mapping[str, Any], ...] = ()

    def part(self, *keys: str) -> Mapping[str, Any]:
        """The object at ``keys`` of result.json, empty where it is absent or null."""
        found: Any = self.result
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def records(self, *keys: str) -> tuple[Mapping[str, Any], ...]:
        """The objects of the list at ``keys`` of result.json; empty where it is absent."""
        found = self.part(*keys[:-1]).get(keys[-1]) if keys[:-1] else self.result.get(keys[-1])
        return tuple(item for item in found or () if isinstance(item, Mapping))

    def table(self, *keys: str) -> dict[str, Mapping[str, Any]]:
        """The objects by name at ``keys`` of result.json; empty where it is absent."""
        found = self.part(*keys).items()
        return {str(name): item for name, item in found if isinstance(item, Mapping)}


def read_run(run: Path) -> RunFiles:
    """Read every file of the run folder ``run``.

    ``result.json`` and ``events.jsonl`` are needed, and a broken file of any kind is refused with
    a ``RunError`` that names the line; the other files may be absent (an older or partial run).
    """
    result = _object(run / "result.json")
    events = _events(run / "events.jsonl")
    recipe = _optional(run / "recipe.yaml", _yaml, {})
    counts, noted, left_out = _optional(run / "splits.parquet", _splits, ({}, (), 0))
    predictions = _optional(run / "predictions.parquet", _predictions, ())
    by_kind = {kind: tuple(e for e in events if e.get("event") == kind) for kind in KINDS}
    return RunFiles(
        result=MappingProxyType(result), snapshots=by_kind["snapshot"],
        verdicts=by_kind["verdict"], actions=by_kind["action"], notes=by_kind["note"],
        timeline=tuple(e for e in events if e.get("event") in ("verdict", "action")),
        recipe=recipe, split_counts=counts, noted=noted, noted_left_out=left_out,
        predictions=predictions, absent=_absent(run),
        examples=_optional(run / "examples.parquet", _examples, ()),
    )  # fmt: skip


def _absent(run: Path) -> tuple[str, ...]:
    names = ("recipe.yaml", "splits.parquet", "predictions.parquet")
    return tuple(name for name in names if not (run / name).is_file())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RunError(str(path), "is missing", None, REPEAT) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(str(path), f"cannot be read: {error}", None, REPEAT) from error


def _object(path: Path) -> dict[str, Any]:
    value = _parse(_text(path), str(path))
    schema = value.get("schema")
    if schema != 1:
        raise RunError(
            str(path), "has a schema that this version cannot read", schema,
            "Make the report with the version of Holdfast that made the run.",
        )  # fmt: skip
    return value


def _events(path: Path) -> tuple[dict[str, Any], ...]:
    lines = _text(path).split("\n")
    return tuple(
        _parse(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    )


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise RunError(what, f"is not JSON: {error}", None, REPEAT) from error
    if not isinstance(value, dict):
        raise RunError(what, "must hold a JSON object", type(value).__name__, REPEAT)
    return value


def _optional(path: Path, read: Callable[[Path], Any], default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        return read(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(str(path), f"is broken: {error}", None, REPEAT) from error


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("a recipe is a mapping of keys to values")
    return value


def _splits(path: Path) -> tuple[dict[str, int], tuple[NotedRows, ...], int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["row", "split", "note"])
    tally = table.group_by("split").aggregate([("row", "count")]).to_pylist()
    counts = {str(line["split"]): int(line["row_count"]) for line in tally}
    noted = table.filter(pc.greater(pc.utf8_length(pc.fill_null(table["note"], "")), 0))
    groups = noted.group_by(["split", "note"]).aggregate([("row", "count"), ("row", "min")])
    found = [
        NotedRows(g["split"], g["note"], g["row_count"], g["row_min"]) for g in groups.to_pylist()
    ]
    found.sort(key=lambda group: (-group.count, group.split, group.first, group.note))
    return counts, tuple(found[:NOTES_KEPT]), max(0, len(found) - NOTES_KEPT)


def _examples(path: Path) -> tuple[Mapping[str, Any], ...]:
    import pyarrow.parquet as pq

    columns = ["row", "split", "label", "confidence", "variability", "aum", "passes", "kind"]
    return tuple(pq.read_table(path, columns=columns).to_pylist())


def _predictions(path: Path) -> tuple[Prediction, ...]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = [name for name in ("row", "label", "prediction") if name not in table.column_names]
    if columns:
        raise ValueError(f"it lacks the column {columns[0]!r}")
    return tuple(_prediction(line) for line in table.to_pylist())


def _prediction(line: Mapping[str, Any]) -> Prediction:
    probabilities = line.get("probabilities")
    known = isinstance(probabilities, list) and len(probabilities) > 0
    return Prediction(
        row=int(line["row"]), label=str(line["label"]), prediction=str(line["prediction"]),
        loss=line.get("loss"), confidence=max(probabilities) if known else None,  # type: ignore[arg-type]
    )  # fmt: skip
