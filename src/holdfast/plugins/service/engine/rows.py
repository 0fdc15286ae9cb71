"""The rows of a request: the model's inputs and its predictions."""

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

from holdfast.contract.inference import PredictionRequest, TaskPredictions, within_limits
from holdfast.core.errors import DataError, InputError, MachineError
from holdfast.core.records import Floats
from holdfast.data.cells import too_deep_error
from holdfast.data.images.decode import open_header
from holdfast.data.limits import current_limits
from holdfast.data.scratch import remove_with, scratch_file
from holdfast.plugins.service.engine.columns import (
    IMAGE,
    PROMPT,
    TEXT,
    prompt_columns,
    text_columns,
    token_columns,
)
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
# Of all images of a request: sixteen of a phone's camera, or four thousand of 224 × 224.
MAX_PIXELS = 200 * MILLION
SAMPLE_WORDS = ["It", "was", "not", "what", "I", "had", "hoped", "for"]
# How an error refers to images that no file lists.
FILE_LIST = "list"
IMAGE_REMEDY = "Send the bytes of complete image files (PNG, JPEG, GIF, BMP, WebP, TIFF) in base64."
NO_TEXT = "this row has no text"


def required_columns(predictor: Predictor) -> tuple[str, ...]:
    """The columns that a row must have; the first is that of a plain text. An image column holds
    the file itself in base64."""
    use, part = predictor.model, predictor.part
    if isinstance(use, ImagePredictor):
        return (IMAGE,)
    if isinstance(use, TagPredictor):
        return token_columns(part)
    if isinstance(use, CausalLMPredictor):
        return prompt_columns(part) or (TEXT if use.of_text else PROMPT,)
    return text_columns(part, use.extra_feature_columns() if isinstance(use, TextPredictor) else ())


def sample_row(predictor: Predictor, number: int) -> Row:
    """An artificial row, to warm the model up."""
    columns = required_columns(predictor)
    if isinstance(predictor.model, ImagePredictor):
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), (127, 127, 127)).save(buffer, "PNG")
        return {IMAGE: base64.b64encode(buffer.getvalue()).decode()}
    words = SAMPLE_WORDS[: 2 + number]
    if isinstance(predictor.model, TagPredictor):
        return {columns[0]: words}
    return dict.fromkeys(columns, " ".join(words))


def prediction_request(predictor: Predictor, rows: Sequence[Row]) -> PredictionRequest:
    """The rows as a model of any task reads them. Raises ``InputError`` where it cannot."""
    use, first = predictor.model, required_columns(predictor)[0]
    if isinstance(use, ImagePredictor):
        return _image_request(predictor, rows)
    cells = [row.get(first) for row in rows]
    if isinstance(use, TagPredictor) and all(isinstance(one, str | list) for one in cells):
        return predictor.read_rows(cells)
    texts = all(isinstance(one, str) and "\0" not in one for one in cells)
    # A text for a model of chats is the user's turn; JSON is meant as a list of turns.
    plain_list = isinstance(use, Seq2SeqPredictor) or (
        isinstance(use, CausalLMPredictor)
        and (
            first in (TEXT, PROMPT) or not any(str(one).lstrip()[:1] in ("[", "{") for one in cells)
        )
    )
    if (
        plain_list
        and texts
        and len(required_columns(predictor)) == 1
        and all(len(row) == 1 for row in rows)
    ):
        return predictor.read_rows(cells)
    return request_by_file(predictor, rows)


def request_by_file(predictor: Predictor, rows: Sequence[Row]) -> PredictionRequest:
    """The rows, read as from a file."""
    path = scratch_file("request", ".jsonl")
    try:
        try:
            lines = [json.dumps(row) for row in rows]
        except RecursionError:
            raise DataError(REQUEST, str(too_deep_error()), None, "Write plain values.") from None
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return predictor.read_rows(str(path))
    except InputError as error:
        raise _without_file_names(error, {str(path): REQUEST, path.name: REQUEST}) from None
    finally:
        path.unlink(missing_ok=True)


def _without_file_names(error: InputError, places: dict[str, str]) -> InputError:
    """The error without the names of temporary files."""

    def renamed(text: Any) -> Any:
        for place, name in places.items():
            text = text.replace(place, name) if isinstance(text, str) else text
        return text

    return type(error)(
        renamed(error.what), renamed(error.rule), renamed(error.value), renamed(error.remedy)
    )


def _image_request(predictor: Predictor, rows: Sequence[Row]) -> PredictionRequest:
    files: list[Path] = []
    request = None
    try:
        for place, row in enumerate(rows):
            files.append(_image_file(row.get(IMAGE), place))
        _refuse_total_pixels(predictor, files)
        request = predictor.read_rows([str(path) for path in files])
    except InputError as error:
        names: dict[str, str] = {}
        for place, path in enumerate(files):
            # An error may show a path relative to the current folder, too; the longer spelling
            # contains the other.
            spellings = (str(path), os.path.relpath(path), path.name)
            names |= dict.fromkeys(sorted(spellings, key=len, reverse=True), f"row {place}")
        named_error = _without_file_names(error, names)
        if named_error.what == FILE_LIST:
            named_error = named_error.reworded(what=REQUEST, remedy=IMAGE_REMEDY)
        raise named_error from None
    finally:
        for path in files:
            if request is None:
                path.unlink(missing_ok=True)
            else:
                # The model opens the file when it comes to the row. Keeping images until the
                # service ends would fill the disk.
                remove_with(request.table.rows, path)
    return request


def _refuse_total_pixels(predictor: Predictor, files: Sequence[Path]) -> None:
    """Refuse images that are too large together, before one is decoded: a few kilobytes can hold
    thirty million pixels of one colour, and decoding them delays all other requests."""
    if len(files) == 1:
        return
    with within_limits(predictor.part):
        # An image that is too large by itself is refused later, also before decoding.
        sizes = [size for size in map(_pixels, files) if size <= current_limits().pixels]
    if sum(sizes) > MAX_PIXELS:
        rule = f"contains images of more than {MAX_PIXELS // MILLION} million pixels in total"
        remedy = "Send fewer or smaller images per request."
        raise DataError(REQUEST, rule, f"{sum(sizes) // MILLION} million", remedy)


def _pixels(path: Path) -> int:
    """Width by height from the file's header; 0 for other files, which are reported later."""
    try:
        with open_header(path) as source:
            return int(source.width * source.height)
    except MachineError:
        raise
    # A damaged header raises any error, as in ``read_image``.
    except Exception:
        return 0


def _image_file(cell: Any, place: int) -> Path:
    """An image in its own file, which the caller removes."""
    remedy = f'Send {{"{IMAGE}": "…"}} with the bytes of an image file in base64.'
    if not isinstance(cell, str):
        raise DataError(f"row {place}", f"has no image in {IMAGE!r}", None, remedy)
    encoded = cell.partition(",")[2] if cell.startswith("data:") else cell
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise DataError(f"row {place}", "contains no base64-encoded image", cell[:40], remedy)
    path = scratch_file("picture", ".img")
    path.write_bytes(content)
    return path


class ReadRows(Protocol):
    """A parsed request: ``places`` [n] are the positions of the readable rows among its ``rows``,
    ``because`` says why another row has no prediction, ``vectors`` [n, width] are the inputs of the
    model's last layer."""

    rows: int
    places: list[int]
    because: Mapping[int, str]
    vectors: Floats | None


def row_predictions(answers: TaskPredictions, predictor: Predictor) -> list[RowPrediction]:
    """One prediction a row: confidences and probabilities to six digits, no prediction where the
    run's threshold leaves the row to an annotator."""
    probabilities, names = answers.probabilities, predictor.names
    predictions, confidence = answers.predictions, answers.confidence
    reasons: Sequence[str | None] = [None] * len(predictions)
    if predictor.rule is not None:
        predictions, confidence, reasons = predictor.rule.apply(
            predictions, confidence, probabilities
        )
    rows: Sequence[Mapping[str, float] | None] = [None] * len(predictions)
    if names and probabilities is not None:
        rows = [dict(zip(names, row, strict=True)) for row in probabilities.round(DIGITS).tolist()]
    return [
        RowPrediction(prediction, None if p is None else round(p, DIGITS), row, because)
        for prediction, p, row, because in zip(predictions, confidence, rows, reasons, strict=True)
    ]


def request_predictions(
    parsed: ReadRows, predictions: Sequence[RowPrediction], model: str, empty_prediction: str | None
) -> RowPredictions:
    """The predictions for a request in the order of its rows, ``empty_prediction`` for a row
    without anything to read; and its vectors [rows, width], NaN for such a row."""
    rows: list[Any] = [None] * parsed.rows
    for place, answer in zip(parsed.places, predictions, strict=True):
        rows[place] = answer
    for place, row in enumerate(rows):
        if row is None:
            because = parsed.because.get(place) or NO_TEXT
            rows[place] = RowPrediction(empty_prediction, None, None, because)
    vectors = None
    if parsed.vectors is not None:
        vectors = np.full((parsed.rows, parsed.vectors.shape[1]), np.nan, dtype=np.float32)
        vectors[parsed.places] = parsed.vectors
    return RowPredictions(tuple(rows), model, vectors)


def fill_rows(array: Floats | None, rows: int, values: Floats, first: int) -> Floats:
    """``array`` [rows, width] with ``values`` from row ``first`` on; created where it is
    ``None``."""
    filled = (
        np.full((rows, values.shape[1]), np.nan, dtype=values.dtype) if array is None else array
    )
    filled[first : first + len(values)] = values
    return filled
