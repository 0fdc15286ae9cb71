"""Inference with a finished run's model from a page: one model in memory at a time, in a separate
thread.

The page shows that a model is being loaded. A request behind too many others is refused at once,
and an unused model is unloaded after a while.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import DataError, InputError
from holdfast.core.input_errors import reading_errors
from holdfast.core.run_files import RESULT_FILE
from holdfast.core.tasks import DECODER_TASKS, IMAGE_TASKS, TAGGING_TASKS
from holdfast.data.raw import source_path
from holdfast.plugins.dashboard.runs import file_version
from holdfast.report.numbers import number
from holdfast.runs.threshold import FILE as THRESHOLD_FILE

if TYPE_CHECKING:
    from holdfast.runs.predictor import Predictor


# Maximum waiting requests; each takes about a second, with generative models longer.
MAX_WAITING = 4
# An unused model is unloaded after this time [s].
IDLE_S = 600.0
MAX_CHARACTERS = 20_000
MAX_CLASSES = 12
IMAGE = "picture"
IMAGE_SUFFIXES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif"}


# The label type by the type of a prediction, and whether there are probabilities of classes.
LABEL_TYPES: Mapping[tuple[str, bool], str] = {
    ("text", True): "class",
    ("text", False): "text",
    ("number", True): "number",
    ("number", False): "number",
    ("list", True): "several",
    ("list", False): "tags",
}


class Busy(Exception):
    """Too many requests are already waiting."""


@dataclass(frozen=True, slots=True)
class Field:
    """An input of a row: the column's name, and whether it is a text, a short value or an image."""

    name: str
    input_type: str


@dataclass(frozen=True, slots=True)
class ClassProbability:
    """A class with its probability, as text and in percent."""

    name: str
    text: str
    share: float


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """The prediction for one row: ``reasons`` are the words that support it (the report's view of
    them), ``seconds`` its duration, ``loaded`` whether the model had to be loaded first,
    ``label_type`` the type of a label of this task."""

    prediction: Any
    answer: str
    confidence_text: str
    probabilities: tuple[ClassProbability, ...]
    because: str
    seconds: float
    loaded: bool
    reasons: Any = None
    notes: tuple[str, ...] = ()
    confidence: float | None = None
    classes: tuple[str, ...] = ()
    label_type: str = "text"


class ModelTrial:
    """Predicts rows with the runs' own models, one request after another."""

    def __init__(self, waiting: int = MAX_WAITING, idle_s: float = IDLE_S) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="try")
        self._max_waiting, self._waiting, self._idle_s = waiting, 0, idle_s
        self._loaded: tuple[tuple[object, ...], Predictor] | None = None
        self._last_used = 0.0

    async def predict(self, run: Path, row: Mapping[str, Any], with_reasons: bool) -> TrialAnswer:
        """The prediction for ``row``, a value for each field, with reasons where ``with_reasons``.

        Raises ``Busy`` at once where too many wait, ``InputError`` for a row that the model cannot
        read or a run that cannot be used.
        """
        if self._waiting >= self._max_waiting:
            raise Busy
        self._waiting += 1
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(
                self._thread, self._predict_row, run, row, with_reasons
            )
        finally:
            self._waiting -= 1
        self._last_used = time.monotonic()
        loop.call_later(self._idle_s + 1, self._unload_if_idle)
        return answer

    def close(self) -> None:
        """End the thread after the current prediction."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _unload_if_idle(self) -> None:
        if not self._waiting and time.monotonic() - self._last_used >= self._idle_s:
            self._loaded = None

    def _predict_row(self, run: Path, row: Mapping[str, Any], with_reasons: bool) -> TrialAnswer:
        from holdfast.runs.predictor import Predictor

        started = time.perf_counter()
        fields = input_fields(run)
        checked = {one.name: _value(one, row.get(one.name)) for one in fields}
        # A threshold is chosen after the run.
        version = (run, *(file_version(run / name) for name in (RESULT_FILE, THRESHOLD_FILE)))
        loaded = self._loaded is None or self._loaded[0] != version
        if loaded:
            # The old one is dropped first: two models may not fit into memory.
            self._loaded = None
            self._loaded = (version, Predictor.load(run))
        assert self._loaded is not None
        predictor = self._loaded[1]
        with tempfile.TemporaryDirectory(prefix="holdfast-try-") as folder:
            answer = _predict(predictor, _data(fields, checked, Path(folder)), with_reasons)
        return replace(answer, seconds=time.perf_counter() - started, loaded=loaded)


def input_fields(run: Path) -> tuple[Field, ...]:
    """The columns that a run's model reads: texts, extra features, or an image."""
    from holdfast.contract.extra_features import saved_layer
    from holdfast.contract.inference import read_columns, run_recipe
    from holdfast.data.columns.extra import source_columns

    recipe = run_recipe(run)
    if recipe.task in IMAGE_TASKS:
        return (Field(IMAGE, "picture"),)
    part = recipe.data
    if recipe.task in (*DECODER_TASKS, *TAGGING_TASKS):
        return (Field("text", "text"),)
    texts = tuple(Field(name, "text") for name in read_columns(part) or ("text",))
    layer = saved_layer(run) if part.features else None
    extra_features = source_columns(() if layer is None else layer.required_columns)
    return (*texts, *(Field(name, "value") for name in extra_features))


def _value(field: Field, value: object) -> Any:
    if field.input_type == "picture":
        if not isinstance(value, bytes) or not value:
            raise DataError("the image", "is missing", None, "Choose a file.")
        return value
    text = "" if value is None else str(value)
    if len(text) > MAX_CHARACTERS:
        rule = f"is longer than the limit of {MAX_CHARACTERS:,} characters on this page"
        raise DataError(field.name, rule, len(text), "Use `holdfast predict` for long texts.")
    if field.input_type == "text" and not text.strip():
        raise DataError(field.name, "is empty", None, "Enter a text.")
    return text


def _data(fields: Sequence[Field], row: Mapping[str, Any], folder: Path) -> Any:
    """The row as the model's reader accepts it: a text, a pair of texts, or a file of one row."""
    if fields[0].input_type == "picture":
        content = row[fields[0].name]
        suffix = next(
            (end for start, end in IMAGE_SUFFIXES.items() if content.startswith(start)), None
        )
        if suffix is None:
            known = "PNG, JPEG, WebP or GIF"
            raise DataError("the image", "has an unknown format", None, f"Use {known}.")
        path = folder / f"given{suffix}"
        path.write_bytes(content)
        return [str(path)]
    if len(fields) == 1:
        return [row[fields[0].name]]
    path = folder / "row.jsonl"
    path.write_text(json.dumps(dict(row), ensure_ascii=False) + "\n", encoding="utf-8")
    return str(source_path(str(path)))


def _predict(predictor: Predictor, data: Any, with_reasons: bool) -> TrialAnswer:
    predictions = predictor.predict(data, probabilities=bool(predictor.names))
    prediction = next(iter(predictions))
    probabilities = sorted((prediction.probabilities or {}).items(), key=lambda pair: -pair[1])
    reasons: Any = None
    notes: tuple[str, ...] = ()
    if with_reasons and prediction.because is None:
        with reading_errors("the reasons", InputError):
            reasons, notes = _reasons(predictor, data)
    value_predicted = prediction.prediction
    return TrialAnswer(
        prediction=value_predicted,
        answer=answer_text(value_predicted, ""),
        confidence_text=""
        if prediction.confidence is None
        else number(prediction.confidence, "accuracy"),
        probabilities=tuple(
            ClassProbability(name, number(value, "accuracy"), 100 * value)
            for name, value in probabilities[:MAX_CLASSES]
        ),
        because=prediction.because
        or ("" if value_predicted not in (None, "") else "the row has no text"),
        seconds=0.0,
        loaded=False,
        reasons=reasons,
        notes=notes,
        confidence=prediction.confidence,
        classes=predictor.names,
        label_type=LABEL_TYPES[predictor.prediction_type, bool(predictor.names)],
    )


def answer_text(prediction: object, empty: str) -> str:
    """A prediction as text; ``empty`` where there is none."""
    if prediction is None:
        return empty
    if isinstance(prediction, list):
        return ", ".join(map(str, prediction)) or "no label"
    return f"{prediction:.4g}" if isinstance(prediction, float) else str(prediction)


def _reasons(predictor: Predictor, data: Any) -> tuple[Any, tuple[str, ...]]:
    """The report's view of the words that support the prediction, tested against random orders."""
    from holdfast.analyses.explain.explain import explain_row, row_reader
    from holdfast.analyses.explain.explanation import Explanation
    from holdfast.report.explanation import row_view

    request = predictor.read_rows(data)
    if not len(request.table):
        return None, ()
    answers = predictor.predict_table(request.table)
    open_one, masking = row_reader(predictor, request.table, answers)
    with predictor.alone():
        row = explain_row(open_one(0))
    row = replace(row, texts=tuple(Path(one).name for one in row.texts) if row.grid else row.texts)
    explanation = Explanation("", "", "", (row,), 0, masking)
    return row_view(explanation.to_json(), row.picture), (
        f"How a word is removed: {masking}." if not row.grid else f"{masking}.",
    )
