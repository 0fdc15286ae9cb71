"""A finished run's model, asked from a page: one model in memory at a time, in a thread of its own.

The page says that a model is loaded. Whoever waits behind too many others is told so at once, and a
model that nobody asked for a while is let go.
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
from holdfast.report.numbers import number

if TYPE_CHECKING:
    from holdfast.runs.predictor import Predictor


# Questions that wait; each takes a second or so, a generator's more.
MOST_WAITING = 4
# A model that nobody asked so long is let go [s].
IDLE_S = 600.0
LONGEST = 20_000
MOST_NAMES = 12
PICTURE = "picture"
ENDINGS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"RIFF": ".webp", b"GIF8": ".gif"}


# By what a prediction is, and whether there are probabilities of classes.
KINDS: Mapping[tuple[str, bool], str] = {
    ("text", True): "class",
    ("text", False): "text",
    ("number", True): "number",
    ("number", False): "number",
    ("list", True): "several",
    ("list", False): "tags",
}


class Busy(Exception):
    """Too many questions wait already."""


@dataclass(frozen=True, slots=True)
class Field:
    """Something that a row needs: a column's name, and whether it is a text, a short value or a
    picture."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Chance:
    """A class with its probability, as text and as a width of 100."""

    name: str
    text: str
    share: float


@dataclass(frozen=True, slots=True)
class TrialAnswer:
    """The answer to one row: ``model`` is who gave it, ``reasons`` the words that carry it (the
    report's own view of them), ``seconds`` what it took, ``loaded`` whether the model had to be
    loaded first, ``kind`` what a label of this task is."""

    prediction: Any
    said: str
    sure: str
    chances: tuple[Chance, ...]
    because: str
    seconds: float
    loaded: bool
    reasons: Any = None
    notes: tuple[str, ...] = ()
    confidence: float | None = None
    classes: tuple[str, ...] = ()
    kind: str = "text"


class Trier:
    """Answers for rows by the runs' own models, one question after another."""

    def __init__(self, waiting: int = MOST_WAITING, idle_s: float = IDLE_S) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="try")
        self._most, self._waiting, self._idle_s = waiting, 0, idle_s
        self._kept: tuple[tuple[Path, int], Predictor] | None = None
        self._asked = 0.0

    async def ask(self, run: Path, row: Mapping[str, Any], why: bool) -> TrialAnswer:
        """The answer to ``row``, a value for each field, with reasons where ``why``.

        Raises ``Busy`` at once where too many wait, ``InputError`` for a row that the model cannot
        read or a run that cannot be used.
        """
        if self._waiting >= self._most:
            raise Busy
        self._waiting += 1
        loop = asyncio.get_running_loop()
        try:
            tried = await loop.run_in_executor(self._thread, self._ask, run, row, why)
        finally:
            self._waiting -= 1
        self._asked = time.monotonic()
        loop.call_later(self._idle_s + 1, self._let_go)
        return tried

    def close(self) -> None:
        """End the thread once it has answered."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _let_go(self) -> None:
        if not self._waiting and time.monotonic() - self._asked >= self._idle_s:
            self._kept = None

    def _ask(self, run: Path, row: Mapping[str, Any], why: bool) -> TrialAnswer:
        from holdfast.runs.predictor import Predictor

        started = time.perf_counter()
        fields = fields_of(run)
        checked = {one.name: _value(one, row.get(one.name)) for one in fields}
        mark = (run, (run / RESULT_FILE).stat().st_mtime_ns)
        loaded = self._kept is None or self._kept[0] != mark
        if loaded:
            # The old one goes first: two models may be more than the machine holds.
            self._kept = None
            self._kept = (mark, Predictor.load(run))
        assert self._kept is not None
        predictor = self._kept[1]
        with tempfile.TemporaryDirectory(prefix="holdfast-try-") as folder:
            tried = _answered(predictor, _data(fields, checked, Path(folder)), why)
        return replace(tried, seconds=time.perf_counter() - started, loaded=loaded)


def fields_of(run: Path) -> tuple[Field, ...]:
    """The columns that a run's model reads: its texts, those beside them, or a picture."""
    from holdfast.contract.inference import data_part, read_columns
    from holdfast.recipe import read_recipe

    recipe = read_recipe(run / "recipe.yaml")
    if recipe.task in IMAGE_TASKS:
        return (Field(PICTURE, "picture"),)
    part = data_part(run)
    if recipe.task in (*DECODER_TASKS, *TAGGING_TASKS):
        return (Field("text", "text"),)
    texts = tuple(Field(name, "text") for name in read_columns(part) or ("text",))
    beside = part.features if isinstance(part.features, tuple) else ()
    return (*texts, *(Field(name, "value") for name in beside))


def _value(field: Field, given: object) -> Any:
    if field.kind == "picture":
        if not isinstance(given, bytes) or not given:
            raise DataError("the picture", "is missing", None, "Choose a file.")
        return given
    text = "" if given is None else str(given)
    if len(text) > LONGEST:
        rule = f"is longer than the {LONGEST:,} characters that are tried here"
        raise DataError(field.name, rule, len(text), "Use `holdfast predict` for long texts.")
    if field.kind == "text" and not text.strip():
        raise DataError(field.name, "is empty", None, "Write a text.")
    return text


def _data(fields: Sequence[Field], row: Mapping[str, Any], folder: Path) -> Any:
    """The row as the model's reader takes it: a text, a pair of texts, a file of one row."""
    if fields[0].kind == "picture":
        content = row[fields[0].name]
        ending = next((end for start, end in ENDINGS.items() if content.startswith(start)), None)
        if ending is None:
            known = "PNG, JPEG, WebP or GIF"
            raise DataError("the picture", "is of no kind that is read", None, f"Give {known}.")
        path = folder / f"given{ending}"
        path.write_bytes(content)
        return [str(path)]
    if len(fields) == 1:
        return [row[fields[0].name]]
    path = folder / "row.jsonl"
    path.write_text(json.dumps(dict(row), ensure_ascii=False) + "\n", encoding="utf-8")
    return str(source_path(str(path)))


def _answered(predictor: Predictor, data: Any, why: bool) -> TrialAnswer:
    predicted = predictor.predict(data, probabilities=bool(predictor.names))
    found = next(iter(predicted))
    chances = sorted((found.probabilities or {}).items(), key=lambda pair: -pair[1])
    reasons: Any = None
    notes: tuple[str, ...] = ()
    if why and found.because is None:
        with reading_errors("the reasons", InputError):
            reasons, notes = _reasons(predictor, data)
    said = found.prediction
    return TrialAnswer(
        prediction=said,
        said=answer_text(said, ""),
        sure="" if found.confidence is None else number(found.confidence, "accuracy"),
        chances=tuple(
            Chance(name, number(value, "accuracy"), 100 * value)
            for name, value in chances[:MOST_NAMES]
        ),
        because=found.because or ("" if said not in (None, "") else "the row has no text"),
        seconds=0.0,
        loaded=False,
        reasons=reasons,
        notes=notes,
        confidence=found.confidence,
        classes=predictor.names,
        kind=KINDS[predictor.answered, bool(predictor.names)],
    )


def answer_text(prediction: object, nothing: str) -> str:
    """What a model said, in words; ``nothing`` where it said nothing."""
    if prediction is None:
        return nothing
    if isinstance(prediction, list):
        return ", ".join(map(str, prediction)) or "no label"
    return f"{prediction:.4g}" if isinstance(prediction, float) else str(prediction)


def _reasons(predictor: Predictor, data: Any) -> tuple[Any, tuple[str, ...]]:
    """The report's view of what carries the answer, tested against random orders."""
    from holdfast.analyses.explain.explain import explain_row, row_reader
    from holdfast.analyses.explain.explanation import Explanation
    from holdfast.report.explanation import row_view

    asked = predictor.ask(data)
    if not len(asked.table):
        return None, ()
    answers = predictor.answer(asked.table)
    open_one, taken_away = row_reader(predictor, asked.table, answers)
    with predictor.alone():
        row = explain_row(open_one(0))
    row = replace(row, texts=tuple(Path(one).name for one in row.texts) if row.grid else row.texts)
    found = Explanation("", "", "", (row,), 0, taken_away)
    return row_view(found.to_json(), row.picture), (
        f"A word is taken away thus: {taken_away}." if not row.grid else f"{taken_away}.",
    )
