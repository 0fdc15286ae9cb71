"""The files of a run folder as one frozen value. No other module of this package opens them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict

from holdfast.core.branches import snapshot_events_on_branch
from holdfast.core.errors import RunError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Estimate
from holdfast.core.run_files import UNFINISHED_REMEDY, check_files, read_events, read_result
from holdfast.core.yaml_values import from_yaml
from holdfast.report.numbers import estimate

if TYPE_CHECKING:
    import pyarrow as pa


SEALED_FILES = (
    "recipe.yaml",
    "events.jsonl",
    "splits.parquet",
    "predictions.parquet",
    "examples.parquet",
)
EXAMPLE_TYPES = frozenset({"easy", "memorized", "relearned", "forgotten", "unlearnable", "unclear"})
INTEGER, NUMBER, TEXT, NUMBERS, ANY = "whole numbers", "numbers", "texts", "lists of numbers", "any"
MAX_NOTES = 40
EVENT_TYPES = ("snapshot", "action", "note")
# Files whose absence the page names.
EXPECTED_FILES = ("recipe.yaml", "splits.parquet", "predictions.parquet")


@dataclass(frozen=True, slots=True)
class NotedRows:
    """Rows of one split that carry the same note: how many, and the first of them."""

    split: str
    note: str
    count: int
    first: int


class ExampleRow(TypedDict):
    """One row of ``examples.parquet``: statistics of its predictions over the epochs."""

    row: int
    split: str
    label: object
    confidence: float
    variability: float
    aum: float | None
    passes: float
    kind: str


@dataclass(frozen=True, slots=True)
class TestPrediction:
    """One test row as ``predictions.parquet`` holds it; ``confidence`` is the largest
    probability, or ``None`` where none was written."""

    row: int
    label: str
    prediction: str
    loss: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The content of a run folder. ``noted`` and ``predictions`` are empty without their file;
    ``absent`` names such files, for the page. ``snapshots`` are the evaluations of the final
    branch; ``left`` are those that a rollback discarded."""

    result: Mapping[str, Any]
    snapshots: tuple[Mapping[str, Any], ...] = ()
    actions: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[Mapping[str, Any], ...] = ()
    timeline: tuple[Mapping[str, Any], ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    split_counts: Mapping[str, int] = field(default_factory=dict)
    noted: tuple[NotedRows, ...] = ()
    noted_left_out: int = 0
    predictions: tuple[TestPrediction, ...] = ()
    absent: tuple[str, ...] = ()
    examples: tuple[ExampleRow, ...] = ()
    left: tuple[Mapping[str, Any], ...] = ()

    def part(self, *keys: str) -> Block:
        """The object at ``keys`` of result.json, empty where absent; without keys, all of it."""
        return Block(self.result).block(*keys)


def read_run(run: Path) -> RunFiles:
    """Read every file of the run folder ``run``.

    ``result.json`` and ``events.jsonl`` are required; the other files may be absent (an older or
    partial run). Raises ``RunError``, with file and line, for a file that is broken or was changed
    after the run ended.
    """
    result = read_result(run)
    check_files(run, result, SEALED_FILES)
    events = read_events(run / "events.jsonl")
    recipe = _optional(run / "recipe.yaml", _yaml, {})
    counts, noted, left_out = _optional(run / "splits.parquet", _splits, ({}, (), 0))
    predictions = _optional(run / "predictions.parquet", _predictions, ())
    events_by_type = {
        kind: tuple(e for e in events if e.get("event") == kind) for kind in EVENT_TYPES
    }
    alive = snapshot_events_on_branch(events)
    living_ids = set(map(id, alive))
    return RunFiles(
        result=MappingProxyType(result),
        snapshots=tuple(alive),
        left=tuple(e for e in events_by_type["snapshot"] if id(e) not in living_ids),
        actions=events_by_type["action"],
        # What a policy saw at each evaluation is stored for replay, not for readers.
        notes=tuple(note for note in events_by_type["note"] if "sight" not in note),
        timeline=tuple(e for e in events if e.get("event") in ("verdict", "action")),
        recipe=recipe,
        split_counts=counts,
        noted=noted,
        noted_left_out=left_out,
        predictions=predictions,
        absent=tuple(name for name in EXPECTED_FILES if not (run / name).is_file()),
        examples=_optional(run / "examples.parquet", _examples, ()),
    )


def _optional(path: Path, read: Callable[[Path], object], default: object) -> Any:
    with reading_errors(str(path), RunError, "is broken", UNFINISHED_REMEDY):
        if not path.exists() and not path.is_symlink():
            return default
        if path.exists() and not path.is_file():
            raise RunError(str(path), "is not a file", None, UNFINISHED_REMEDY)
        return read(path)


def _yaml(path: Path) -> dict[str, Any]:
    # Read as a recipe is: PyYAML reads YAML 1.1, in which ``off`` is a boolean.
    value = from_yaml(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError("a recipe must be a mapping of keys to values")
    return value


def _splits(path: Path) -> tuple[dict[str, int], tuple[NotedRows, ...], int]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["row", "split", "note"])
    _check_columns(table, {"row": INTEGER, "split": TEXT, "note": TEXT})
    split_counts = table.group_by("split").aggregate([("row", "count")]).to_pylist()
    counts = {str(line["split"]): int(line["row_count"]) for line in split_counts}
    # Without the numbers of the rows that they name, so that like notes are one line.
    notes = pc.replace_substring_regex(pc.fill_null(table["note"], ""), r" \(first: row \d+\)", "")
    notes = pc.replace_substring_regex(notes, r"\brow \d+", "another row")
    table = table.set_column(table.column_names.index("note"), "note", notes)
    noted = table.filter(pc.greater(pc.utf8_length(table["note"]), 0))
    groups = noted.group_by(["split", "note"]).aggregate([("row", "count"), ("row", "min")])
    groups_ = [
        NotedRows(g["split"], g["note"], g["row_count"], g["row_min"]) for g in groups.to_pylist()
    ]
    # Ties in a fixed order: the same files give the same page.
    groups_.sort(key=lambda group: (-group.count, group.split, group.first, group.note))
    return counts, tuple(groups_[:MAX_NOTES]), max(0, len(groups_) - MAX_NOTES)


def _examples(path: Path) -> tuple[ExampleRow, ...]:
    import pyarrow.parquet as pq

    columns = ["row", "split", "label", "confidence", "variability", "aum", "passes", "kind"]
    table = pq.read_table(path, columns=columns)
    types = (INTEGER, TEXT, ANY, NUMBER, NUMBER, NUMBER, NUMBER, TEXT)
    _check_columns(table, dict(zip(columns, types, strict=True)))
    rows = table.to_pylist()
    for line in rows:
        passes = line["passes"]
        counted = passes is not None and math.isfinite(passes) and passes >= 0
        if line["kind"] not in EXAMPLE_TYPES or line["row"] is None or not counted:
            raise ValueError(f"it has a row of an unknown type: {line['kind']!r:.40}")
    return tuple(rows)


def _predictions(path: Path) -> tuple[TestPrediction, ...]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    _check_columns(table, {"row": INTEGER, "label": ANY, "prediction": ANY})
    optional = {"loss": NUMBER, "probabilities": NUMBERS}
    _check_columns(
        table,
        {name: value_type for name, value_type in optional.items() if name in table.column_names},
    )
    return tuple(
        TestPrediction(
            row=int(line["row"]),
            label=str(line["label"]),
            prediction=str(line["prediction"]),
            loss=line.get("loss"),
            confidence=max(
                (p for p in line.get("probabilities") or () if p is not None), default=None
            ),
        )
        for line in table.to_pylist()
    )


def _check_columns(table: pa.Table, column_types: Mapping[str, str]) -> None:
    """Raise ``ValueError`` unless the table has these columns, of these types."""
    import pyarrow.types as types

    numeric = {
        NUMBER: lambda t: types.is_integer(t) or types.is_floating(t) or types.is_null(t),
        INTEGER: types.is_integer,
        ANY: lambda _: True,
        TEXT: lambda t: types.is_string(t) or types.is_large_string(t) or types.is_null(t),
        NUMBERS: lambda t: (
            types.is_null(t)
            or ((types.is_list(t) or types.is_large_list(t)) and types.is_floating(t.value_type))
        ),
    }
    for name, column_type in column_types.items():
        if name not in table.column_names:
            raise ValueError(f"the column {name!r} is missing")
        actual_type = table.schema.field(name).type
        if not numeric[column_type](actual_type):
            raise ValueError(
                f"the column {name!r} must hold {column_type}, but holds {actual_type}"
            )


class Block(dict[str, Any]):
    """A JSON object. A value that is absent, null (older runs) or of another type (other tools) is
    read as the empty value of the requested type."""

    def block(self, *keys: str) -> Block:
        """The object at ``keys``, the second inside the first."""
        value: Any = self
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return Block(value) if isinstance(value, Mapping) else Block()

    def blocks(self, key: str) -> list[Block]:
        """The objects of a list."""
        value = self.get(key)
        return [Block(one) for one in _as_items(value) if isinstance(one, Mapping)]

    def table(self, *keys: str) -> dict[str, Block]:
        """The objects of an object, by their names."""
        items = self.block(*keys).items()
        return {str(key): Block(one) for key, one in items if isinstance(one, Mapping)}

    def texts(self, key: str) -> list[str]:
        """The items of a list, as texts."""
        return list(map(str, _as_items(self.get(key))))

    def text(self, key: str, default: str = "") -> str:
        """A text; any other value as text."""
        return str(self.get(key) or default)

    def number(self, key: str) -> float | None:
        """A number of either type."""
        value = self.get(key)
        known = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value if known else None

    def whole(self, key: str) -> int | None:
        """A whole number."""
        value = self.get(key)
        return value if isinstance(value, int) else None

    def estimate(self, key: str) -> Estimate:
        """An estimate, from its object or a bare number; without a value it says why."""
        return estimate(self.get(key))


def _as_items(value: object) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, (list, tuple)) else ()
