"""Predictions with their rows, part by part, and the files they are written to.

Columns keep the types of the input's values.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.contract.inference import (
    GenerativePredictor,
    PredictionRequest,
    TaskPredictions,
    TaskPredictor,
    TextPredictions,
)
from holdfast.core.errors import DataError
from holdfast.core.input_errors import reading_errors
from holdfast.core.outputs import OutputFile, open_output
from holdfast.core.printable import printable_json
from holdfast.core.records import Decision, Floats, Ints
from holdfast.data.cells import write_delimited, write_json_cell
from holdfast.data.raw import Raw
from holdfast.data.table import Table
from holdfast.runs.threshold import ThresholdRule

ENDINGS = (".jsonl", ".csv", ".parquet")
DIGITS = 6
SLICES = "slices"
TYPES = {"text": pa.string(), "number": pa.float64(), "list": pa.list_(pa.string())}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one row: ``row`` is its position in the source; ``prediction`` a class or
    a text, a number, or a list of labels, depending on the task, and empty for a row without text;
    ``probabilities`` by name, where they were requested; ``because`` why there is no prediction,
    for reasons other than a missing text, such as a threshold; ``cut`` whether a generated text was
    stopped before its end."""

    row: int
    prediction: object
    confidence: float | None
    probabilities: Mapping[str, float] | None
    because: str | None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class PredictedPart:
    """Some consecutive rows: the first is row ``start`` of the source; ``columns`` are those of the
    input in their own types; ``probabilities`` [rows, names], NaN where a row has no prediction;
    ``cut`` [rows] for generative models, else ``None``; ``slices`` [rows] where they were
    requested."""

    start: int
    columns: pa.Table
    predictions: Sequence[object]
    confidence: Sequence[float | None]
    probabilities: Floats | None
    because: Sequence[str | None]
    cut: Sequence[bool] | None = None
    slices: Sequence[Sequence[str]] | None = None


# Gives the slices of each row of a table, with the other columns of the source by name.
NameSlices = Callable[[Table, Mapping[str, Sequence[Any]]], Sequence[Sequence[str]]]


class Predicted:
    """Every row of the input with its prediction, in order, in bounded memory.

    A row without a text (for images: one that cannot be read) has an empty prediction; such rows
    are counted in ``without_text`` once their part was read. A row below the threshold of ``rule``
    has none (``None``), and is counted in ``below``. A generated text that was stopped before its
    end is counted in ``cut``. With ``name_slices`` each row has the slices that it is in.
    """

    def __init__(
        self,
        request: PredictionRequest,
        model: TaskPredictor,
        answer: Callable[[Table], TaskPredictions],
        names: tuple[str, ...],
        file: Path | None,
        rule: ThresholdRule | None,
        name_slices: NameSlices | None = None,
    ) -> None:
        self._request = request
        self._answer = answer
        self._file = file
        self.prediction_type = model.prediction_type
        self.names = names
        self._rule = rule
        self._name_slices = name_slices
        self._is_generative = isinstance(model, GenerativePredictor)
        self.without_text = 0
        self.below = 0
        self.cut = 0
        added_columns = (
            "row",
            "prediction",
            "confidence",
            "because",
            *(("cut",) if self._is_generative else ()),
            *((SLICES,) if name_slices else ()),
        )
        self.column_names, renaming = _renamed_columns(
            request.raw.names, (*added_columns, *map(_probability_column, names))
        )
        self.decisions: tuple[Decision, ...] = (*request.decisions, *renaming)

    def __len__(self) -> int:
        return len(self._request.raw)

    def __iter__(self) -> Iterator[Prediction]:
        """One record per row, each part as it is made."""
        for part in self.parts():
            for place in range(part.columns.num_rows):
                probabilities: Mapping[str, float] | None = None
                if part.probabilities is not None and part.confidence[place] is not None:
                    probabilities = dict(
                        zip(self.names, part.probabilities[place].tolist(), strict=True)
                    )
                yield Prediction(
                    part.start + place,
                    part.predictions[place],
                    part.confidence[place],
                    probabilities,
                    part.because[place],
                    part.cut is not None and part.cut[place],
                )

    def parts(self) -> Iterator[PredictedPart]:
        """The rows, at most ``input_columns.ROWS`` at a time."""
        table, rows = self._request.table, self._request.table.column("row")
        start = 0
        for columns in typed_parts(self._request.raw, self._file):
            stop = start + columns.num_rows
            first, last = np.searchsorted(rows, [start, stop])
            positions = np.arange(first, last)
            piece = table.take(positions)
            answers = self._answer(piece) if len(positions) else None
            slices = self._slices(piece) if len(positions) and self._name_slices else ()
            columns = columns.rename_columns(
                [self.column_names[name] for name in columns.column_names]
            )
            yield self._part(start, columns, rows[positions] - start, answers, slices)
            start = stop

    def _part(
        self,
        start: int,
        columns: pa.Table,
        places: Ints,
        answers: TaskPredictions | None,
        slices: Sequence[Sequence[str]],
    ) -> PredictedPart:
        count = columns.num_rows
        self.without_text += count - len(places)
        because: list[str | None] = [
            self._request.because.get(start + row, "it has no text") for row in range(count)
        ]
        empty = "" if self.prediction_type == "text" and not self._request.because else None
        predictions: list[object] = [empty] * count
        confidence: list[float | None] = [None] * count
        probabilities = np.full((count, len(self.names)), np.nan) if self.names else None
        cut = [False] * count if self._is_generative else None
        if answers is not None:
            raw_answers = answers.predictions, answers.confidence
            ruled: tuple[Sequence[object], Sequence[float | None], Sequence[str | None]]
            ruled = (*raw_answers, [None] * len(places))
            if self._rule is not None:
                ruled = self._rule.apply(*raw_answers, answers.probabilities)
            for place, prediction, certainty, reason in zip(places, *ruled, strict=True):
                predictions[place], because[place] = prediction, reason
                confidence[place] = None if certainty is None else round(certainty, DIGITS)
                self.below += reason is not None
            if probabilities is not None and answers.probabilities is not None:
                probabilities[places] = answers.probabilities
            if cut is not None and isinstance(answers, TextPredictions):
                for place in places[answers.cut]:
                    cut[place] = True
        self.cut += sum(cut or ())
        named = dict(zip(places.tolist(), slices, strict=True)) if slices else {}
        slices_of_rows = [named.get(row, ()) for row in range(count)] if self._name_slices else None
        return PredictedPart(
            start, columns, predictions, confidence, probabilities, because, cut, slices_of_rows
        )

    def _slices(self, table: Table) -> Sequence[Sequence[str]]:
        """The slices of the rows of a part, which all have a text."""
        assert self._name_slices is not None
        return self._name_slices(
            table, self._request.raw.table.take(table.column("row")).to_pydict()
        )


def write_predictions(predicted: Predicted, out: OutputFile, *, csv_safe: bool = False) -> None:
    """Write the table as JSON lines, CSV or Parquet, by the ending of ``out``, completely or not at
    all. With ``csv_safe``, no text of a CSV is a formula to a spreadsheet."""
    write_csv = partial(_write_csv, safe=csv_safe)
    write: Mapping[str, Callable[[Predicted, io.RawIOBase], None]] = {
        ".jsonl": _write_lines,
        ".csv": write_csv,
        ".parquet": _write_parquet,
    }
    with open_output(out) as stream:
        write[out.path.suffix.lower()](predicted, stream)


def write_lines(predicted: Predicted, stream: IO[str]) -> None:
    """Write one JSON object per line, each part as soon as it is predicted."""
    for part in predicted.parts():
        stream.writelines(
            printable_json(json.dumps(row, ensure_ascii=False)) + "\n"
            for row in json_object(predicted, part)
        )
        stream.flush()


def json_object(predicted: Predicted, part: PredictedPart) -> Iterator[dict[str, Any]]:
    """``row``, ``prediction``, ``confidence``, probabilities where they are requested, then every
    column of the input."""
    nested = predicted_nested(predicted)
    for place, cells in enumerate(part.columns.to_pylist()):
        line: dict[str, Any] = {
            "row": part.start + place,
            "prediction": part.predictions[place],
            "confidence": part.confidence[place],
        }
        if part.because[place] is not None:
            line["because"] = part.because[place]
        if part.cut is not None and part.cut[place]:
            line["cut"] = True
        if part.slices is not None:
            line[SLICES] = list(part.slices[place])
        if part.probabilities is not None:
            line |= zip(
                map(_probability_column, predicted.names),
                _rounded(part.probabilities[place]),
                strict=True,
            )
        for name, cell in cells.items():
            line[name] = json.loads(cell) if name in nested and cell is not None else _plain(cell)
        yield line


def predicted_nested(predicted: Predicted) -> set[str]:
    """The columns of lists and objects in a JSON source, which are written as JSON again."""
    raw = predicted._request.raw
    if is_parquet(predicted._file):
        return set()
    return {
        predicted.column_names[name]
        for name, types in raw.column_types.items()
        if types == {"nested"}
    }


def _write_lines(predicted: Predicted, stream: io.RawIOBase) -> None:
    with _as_text(stream) as text:
        write_lines(predicted, text)


@contextlib.contextmanager
def _as_text(stream: io.RawIOBase) -> Iterator[io.TextIOWrapper]:
    """A text stream in UTF-8 on top of a binary stream, which stays open."""
    # A raw stream whose writes are complete is enough for the wrapper.
    text = io.TextIOWrapper(cast("IO[bytes]", stream), encoding="utf-8", newline="")
    yield text
    text.flush()
    text.detach()


def _write_csv(predicted: Predicted, stream: io.RawIOBase, safe: bool) -> None:
    tables = (_full_table(predicted, part) for part in predicted.parts())
    first = next(tables)
    rows = (row.values() for table in chain([first], tables) for row in table.to_pylist())
    with _as_text(stream) as text:
        write_delimited(text, first.column_names, rows, safe=safe)


def _write_parquet(predicted: Predicted, stream: io.RawIOBase) -> None:
    import pyarrow.parquet as parquet

    with contextlib.ExitStack() as stack:
        sink: Any = None
        for part in predicted.parts():
            table = _full_table(predicted, part)
            if sink is None:
                sink = stack.enter_context(parquet.ParquetWriter(stream, table.schema))
            sink.write_table(table)


def _full_table(predicted: Predicted, part: PredictedPart) -> pa.Table:
    """The columns of the input, then the prediction and its columns."""
    columns = {name: part.columns[name] for name in part.columns.column_names}
    columns["prediction"] = pa.array(part.predictions, TYPES[predicted.prediction_type])
    columns["confidence"] = pa.array(part.confidence, pa.float64())
    if part.cut is not None:
        columns["cut"] = pa.array(part.cut, pa.bool_())
    if part.slices is not None:
        columns[SLICES] = pa.array([list(names) for names in part.slices], TYPES["list"])
    if part.probabilities is not None:
        for place, name in enumerate(predicted.names):
            values = _rounded(part.probabilities[:, place])
            columns[_probability_column(name)] = pa.array(values, pa.float64())
    return pa.table(columns)


def _rounded(values: Floats) -> list[float | None]:
    return [None if value != value else round(float(value), DIGITS) for value in values]


def _probability_column(name: str) -> str:
    return f"probability_{name}"


def _plain(value: object) -> object:
    """The value in a form that JSON can hold: dates, bytes and the like as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if value != value else str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, dict)):
        try:
            return json.loads(write_json_cell(value))
        except (TypeError, ValueError):
            return str(value)
    return str(value)


def _renamed_columns(
    names: Sequence[str], added: Sequence[str]
) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """The names of the input's columns next to the added ones."""
    renamed: dict[str, str] = {}
    decisions = []
    used = {*names, *added}
    for name in names:
        renamed[name] = name
        if name in added:
            new = f"input_{name}"
            while new in used:
                new = f"input_{new}"
            used.add(new)
            renamed[name] = new
            because = f"the predictions have their own column {name!r}"
            decisions.append(Decision(f"column {name}", new, because))
    return renamed, tuple(decisions)


PART_ROWS = 2_048


def is_parquet(path: Path | None) -> bool:
    """Whether a file is read with its own types."""
    return path is not None and path.is_file() and path.suffix.lower() == ".parquet"


def typed_parts(raw: Raw, file: Path | None) -> Iterator[pa.Table]:
    """The input's columns, at most ``PART_ROWS`` rows at a time and at least once: a Parquet file
    with its own types, other files with types inferred from their values."""
    if file is not None and is_parquet(file):
        yield from _parquet_parts(file, len(raw))
        return
    types = {name: _type_of(raw, name) for name in raw.names}
    for start in range(0, max(1, len(raw)), PART_ROWS):
        piece = raw.table.slice(start, PART_ROWS)
        yield pa.table({name: piece[name].cast(types[name]) for name in raw.names})


def _parquet_parts(file: Path, rows: int) -> Iterator[pa.Table]:
    """The columns of a Parquet file in their own types; it must still hold the number of ``rows``
    that was read before."""
    import pyarrow.parquet as parquet

    rule, rows_read = "changed while it was read", 0
    remedy = "Run the command again when no program is writing to the file."
    with reading_errors(str(file), DataError, rule, remedy), parquet.ParquetFile(file) as source:
        if not rows:
            yield source.schema_arrow.empty_table()
        for batch in source.iter_batches(batch_size=PART_ROWS):
            rows_read += batch.num_rows
            if rows_read > rows:
                break
            yield pa.Table.from_batches([batch])
    if rows_read != rows:
        raise DataError(str(file), rule, f"{rows} rows, then {rows_read}", remedy)


def _type_of(raw: Raw, name: str) -> pa.DataType:
    """The type of a column whose values a source wrote as numbers or booleans, where all of them
    can be read back; text otherwise."""
    types = raw.column_types.get(name, set())
    type_of_values: dict[frozenset[str], pa.DataType] = {
        frozenset({"integer"}): pa.int64(),
        frozenset({"float"}): pa.float64(),
        frozenset({"integer", "float"}): pa.float64(),
        frozenset({"boolean"}): pa.bool_(),
    }
    column_type = type_of_values.get(frozenset(types))
    if column_type is None:
        return pa.string()
    try:
        for chunk in raw.table[name].chunks:
            cells = chunk.cast(column_type)
            # JSON has no infinity: a column with one is written unchanged.
            if column_type == pa.float64() and pc.all(pc.is_finite(cells)).as_py() is False:
                return pa.string()
    except pa.ArrowException:
        return pa.string()
    return column_type
