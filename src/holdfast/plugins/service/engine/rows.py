"""The rows of a request: what a model reads of them, and what it answers."""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from holdfast.contract.inference import TaskPredictions, PredictionRequest, read_columns, within_limits
from holdfast.core.errors import DataError, InputError, MachineError
from holdfast.core.records import Floats
from holdfast.data.cells import too_deep_error
from holdfast.data.images.decode import open_header
from holdfast.data.limits import current_limits
from holdfast.data.scratch import remove_with, scratch_file
from holdfast.plugins.service.records import RowPrediction, RowPredictions
from holdfast.plugins.store.records import Row
from holdfast.runs.prediction_file import DIGITS
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes.answers import TextPredictor
from holdfast.tasks.images.task import ImagePredictor
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.seq2seq.task import Seq2SeqPredictor
from holdfast.tasks.tags.answers import TagPredictor

REQUEST = "the request"
MILLION = 1_000_000
# Of all pictures of a request: sixteen of a phone's camera, or four thousand of 224 × 224.
MOST_PIXELS = 200 * MILLION
HOPED = ["It", "was", "not", "what", "I", "had", "hoped", "for"]
# What an error calls pictures that no file lists.
LISTED = "list"
WHOLE_FILES = "Send the bytes of whole picture files (PNG, JPEG, GIF, BMP, WebP, TIFF) in base64."
PICTURE, TOKENS, PROMPT, TEXT = "image", "tokens", "prompt", "text"
NO_TEXT = "there is nothing to read in this row"


def columns_of(predictor: Predictor) -> tuple[str, ...]:
    """The columns that a row must have, the first that of a plain text; a picture's holds the file
    itself, as base64."""
    use, part = predictor.model, predictor.part
    if isinstance(use, ImagePredictor):
        return (PICTURE,)
    if isinstance(use, TagPredictor):
        return (part.text or (TOKENS,))[:1]
    if isinstance(use, CausalLMPredictor):
        found = None if part.messages else part.text
        return found or (TEXT if use.of_text else PROMPT,)
    side = [one.name for one in use.extra_feature_columns()] if isinstance(use, TextPredictor) else []
    return (*(read_columns(part) or (TEXT,)), *side)


def made_row(predictor: Predictor, place: int) -> Row:
    """A row that nobody asked, for a model that is to be warm."""
    columns = columns_of(predictor)
    if isinstance(predictor.model, ImagePredictor):
        from PIL import Image

        grey = io.BytesIO()
        Image.new("RGB", (64, 64), (127, 127, 127)).save(grey, "PNG")
        return {PICTURE: base64.b64encode(grey.getvalue()).decode()}
    words = HOPED[: 2 + place]
    if isinstance(predictor.model, TagPredictor):
        return {columns[0]: words}
    return dict.fromkeys(columns, " ".join(words))


def asked_of(predictor: Predictor, rows: Sequence[Row]) -> PredictionRequest:
    """The rows as a model of any task reads them. Raises ``InputError`` where they cannot be."""
    use, first = predictor.model, columns_of(predictor)[0]
    if isinstance(use, ImagePredictor):
        return _asked_pictures(predictor, rows)
    cells = [row.get(first) for row in rows]
    if isinstance(use, TagPredictor) and all(isinstance(one, str | list) for one in cells):
        return predictor.ask(cells)
    listed = isinstance(use, Seq2SeqPredictor) or (isinstance(use, CausalLMPredictor) and first in (TEXT, PROMPT))
    texts = all(isinstance(one, str) and "\0" not in one for one in cells)
    if listed and texts and len(columns_of(predictor)) == 1 and all(len(row) == 1 for row in rows):
        return predictor.ask(cells)
    return asked_rows(predictor, rows)


def asked_rows(predictor: Predictor, rows: Sequence[Row]) -> PredictionRequest:
    """The rows as a file of them would be read."""
    path = scratch_file("request", ".jsonl")
    try:
        try:
            lines = [json.dumps(row) for row in rows]
        except RecursionError:
            raise DataError(REQUEST, str(too_deep_error()), None, "Write plain values.") from None
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return predictor.ask(str(path))
    except InputError as error:
        raise _of_request(error, {str(path): REQUEST, path.name: REQUEST}) from None
    finally:
        path.unlink(missing_ok=True)


def _of_request(error: InputError, places: dict[str, str]) -> InputError:
    """The error without the names of files that nobody knows."""

    def told(text: Any) -> Any:
        for place, name in places.items():
            text = text.replace(place, name) if isinstance(text, str) else text
        return text

    return type(error)(told(error.what), told(error.rule), told(error.value), told(error.remedy))


def _asked_pictures(predictor: Predictor, rows: Sequence[Row]) -> PredictionRequest:
    files: list[Path] = []
    asked = None
    try:
        for place, row in enumerate(rows):
            files.append(_picture_file(row.get(PICTURE), place))
        _refuse_pixels(predictor, files)
        asked = predictor.ask([str(path) for path in files])
    except InputError as error:
        names: dict[str, str] = {}
        for place, path in enumerate(files):
            # An error may tell a path from the current folder, too; the longer one holds the other.
            told = (str(path), os.path.relpath(path), path.name)
            names |= dict.fromkeys(sorted(told, key=len, reverse=True), f"row {place}")
        named = _of_request(error, names)
        if named.what == LISTED:
            named = DataError(REQUEST, named.rule, named.value, WHOLE_FILES)
        raise named from None
    finally:
        for path in files:
            if asked is None:
                path.unlink(missing_ok=True)
            else:
                # The model opens it when it comes to the row. A service that kept the pictures
                # until it ends would fill the disk.
                remove_with(asked.table.rows, path)
    return asked


def _refuse_pixels(predictor: Predictor, files: Sequence[Path]) -> None:
    """Refuse, before one is decoded, pictures that are too much together: a few kilobytes hold
    thirty million pixels of one colour, and nobody else is read for while they are decoded."""
    if len(files) == 1:
        return
    with within_limits(predictor.part):
        # What is larger than one may be is refused by itself, undecoded.
        sizes = [size for size in map(_pixels, files) if size <= current_limits().pixels]
    if sum(sizes) > MOST_PIXELS:
        raise DataError(
            REQUEST,
            f"holds pictures of more than {MOST_PIXELS // MILLION} million pixels together",
            f"{sum(sizes) // MILLION} million",
            "Send fewer pictures a request, or smaller ones.",
        )


def _pixels(path: Path) -> int:
    """Width by height as the file's head says; 0 where it is no picture, which is told later."""
    try:
        with open_header(path) as source:
            return int(source.width * source.height)
    except MachineError:
        raise
    # A damaged head brings any error, as in ``read_picture``.
    except Exception:
        return 0


def _picture_file(cell: Any, place: int) -> Path:
    """A picture in a file of its own, which the caller removes."""
    remedy = f'Send {{"{PICTURE}": "…"}} with the bytes of a picture file in base64.'
    if not isinstance(cell, str):
        raise DataError(f"row {place}", f"has no picture in {PICTURE!r}", None, remedy)
    given = cell.partition(",")[2] if cell.startswith("data:") else cell
    try:
        found = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise DataError(f"row {place}", "holds no picture in base64", cell[:40], remedy)
    path = scratch_file("picture", ".img")
    path.write_bytes(found)
    return path


class ReadRows(Protocol):
    """A request as it was read: ``places`` [n] is where the rows that can be read stand among its
    ``rows``, ``because`` why another has no answer, ``vectors`` [n, width] what the model's last
    layer read."""

    rows: int
    places: list[int]
    because: Mapping[int, str]
    vectors: Floats | None


def row_predictions(answers: TaskPredictions, predictor: Predictor) -> list[RowPrediction]:
    """One answer a row: certainties and probabilities to six digits, nothing where the run's
    threshold leaves a row to a person."""
    chances, names = answers.probabilities, predictor.names
    said, sure = answers.predictions, answers.confidence
    why: Sequence[str | None] = [None] * len(said)
    if predictor.rule is not None:
        said, sure, why = predictor.rule.apply(said, sure, chances)
    rows: Sequence[Mapping[str, float] | None] = [None] * len(said)
    if names and chances is not None:
        rows = [dict(zip(names, row, strict=True)) for row in chances.round(DIGITS).tolist()]
    return [
        RowPrediction(one, None if p is None else round(p, DIGITS), row, because)
        for one, p, row, because in zip(said, sure, rows, why, strict=True)
    ]


def whole_answer(
    read: ReadRows, said: Sequence[RowPrediction], model: str, empty: str | None
) -> RowPredictions:
    """The answers to a request in the order of its rows, ``empty`` to one without anything to read;
    and its vectors [rows, width], NaN where nothing was read."""
    rows: list[Any] = [None] * read.rows
    for place, answer in zip(read.places, said, strict=True):
        rows[place] = answer
    for place, one in enumerate(rows):
        if one is None:
            because = read.because.get(place) or NO_TEXT
            rows[place] = RowPrediction(empty, None, None, because)
    vectors = None
    if read.vectors is not None:
        vectors = np.full((read.rows, read.vectors.shape[1]), np.nan, dtype=np.float32)
        vectors[read.places] = read.vectors
    return RowPredictions(tuple(rows), model, vectors)


def filled(kept: Floats | None, rows: int, found: Floats, first: int) -> Floats:
    """``kept`` [rows, width] with the rows from ``first`` on as found; made where there is none."""
    made = np.full((rows, found.shape[1]), np.nan, dtype=found.dtype) if kept is None else kept
    made[first : first + len(found)] = found
    return made
