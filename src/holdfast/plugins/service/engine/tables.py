"""Rows of other tasks (tags, images, generated text, extra columns): read into tables by
``Predictor.read_rows``; the tables of several requests are predicted as one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from holdfast.analyses.vectors import model_with_vectors
from holdfast.contract.inference import TaskPredictor
from holdfast.core.errors import InputError
from holdfast.core.records import Floats
from holdfast.data.table import Table
from holdfast.plugins.service.engine.request_queue import EngineTurn, WaitingRequest
from holdfast.plugins.service.engine.rows import (
    fill_rows,
    prediction_request,
    request_predictions,
    row_predictions,
    sample_row,
)
from holdfast.plugins.service.records import RowPredictions
from holdfast.plugins.store.records import Row
from holdfast.runs.predictor import Predictor
from holdfast.tasks.images.task import ImagePredictor
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.seq2seq.task import Seq2SeqPredictor

# The cost of an image in tokens, and of a generated token in tokens that are read.
IMAGE_TOKENS, WRITTEN_TOKENS = 200, 8
CHARACTERS_A_TOKEN = 4
# Generating eight texts takes little longer than generating one.
BATCH_ROWS = 8
MAX_ANSWER_TOKENS = 64


@dataclass(slots=True)
class CollectedPredictions:
    """The predictions for some rows, collected turn by turn, in the form of
    ``contract.inference.Answers``."""

    predictions: list[Any]
    confidence: list[float | None]
    probabilities: Floats | None = None


@dataclass(slots=True, eq=False)
class ReadTable:
    """A request: the ``table`` of its readable rows, their ``places`` [n] in the request, and
    ``costs`` [n], about how many tokens each is."""

    rows: int
    table: Table
    places: list[int]
    because: Mapping[int, str]
    costs: list[int]
    collected: CollectedPredictions
    vectors: Floats | None = None


@dataclass(eq=False)
class TableHandler:
    """How requests of a task are parsed, predicted and returned. ``use`` is the model: the
    predictor's, or the same with another network."""

    predictor: Predictor
    use: TaskPredictor
    turn_tokens: int = field(init=False)
    _answer_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self._answer_tokens = 0
        # Generated answers, token by token.
        if isinstance(self.use, Seq2SeqPredictor | CausalLMPredictor):
            self._answer_tokens = WRITTEN_TOKENS * int(
                self.use.recipe.generate.max_new_tokens or MAX_ANSWER_TOKENS
            )
        self.turn_tokens = BATCH_ROWS * self._answer_tokens

    def is_light(self, rows: Sequence[Row]) -> bool:
        """Never: parsing goes through the disk."""
        return False

    def read(self, rows: Sequence[Row]) -> ReadTable:
        """Raises ``InputError`` where they cannot be read."""
        request = prediction_request(self.predictor, rows)
        places = [int(place) for place in request.table.column("row")]
        empty = CollectedPredictions([None] * len(places), [None] * len(places))
        return ReadTable(
            len(rows), request.table, places, request.because, self._costs(request.table), empty
        )

    def _costs(self, table: Table) -> list[int]:
        if isinstance(self.use, ImagePredictor):
            return [IMAGE_TOKENS] * len(table)
        names = [n for n in ("text", "text_pair", "tokens") if n in table.rows.column_names]
        sizes = [[len(cell) for cell in table.column(name)] for name in names]
        characters_per_token = 1 if "tokens" in names else CHARACTERS_A_TOKEN
        return [
            2 + sum(row) // characters_per_token + self._answer_tokens
            for row in zip(*sizes, strict=True)
        ]

    def predict(self, turn: EngineTurn) -> int:
        """Predict the rows of a turn; return their tokens."""
        for parts in _parts_by_columns(turn):
            self._predict_table(parts)
        return turn.tokens

    def _predict_table(self, parts: Sequence[tuple[ReadTable, range]]) -> None:
        table = concatenated([parsed.table.take(list(places)) for parsed, places in parts])
        with self.predictor.alone():
            answers, vectors = model_with_vectors(self.use, table)
        predictions, confidence, probabilities = (
            answers.predictions,
            answers.confidence,
            answers.probabilities,
        )
        start = 0
        for parsed, places in parts:
            stop, collected = start + len(places), parsed.collected
            first, last = places.start, places.stop
            collected.predictions[first:last] = predictions[start:stop]
            collected.confidence[first:last] = confidence[start:stop]
            rows = len(parsed.table)
            if probabilities is not None:
                collected.probabilities = fill_rows(
                    collected.probabilities, rows, probabilities[start:stop], first
                )
            if vectors is not None:
                parsed.vectors = fill_rows(parsed.vectors, rows, vectors[start:stop], first)
            start = stop

    def warm(self, run_on_model: Callable[[Callable[[], float]], float]) -> tuple[int, float]:
        """Predict sample rows, one and several, with exclusive use of the model; return the tokens
        and seconds of the last pass."""
        tokens, seconds = 0, 0.0
        for rows in (1, BATCH_ROWS):
            samples = [sample_row(self.predictor, place) for place in range(rows)]
            try:
                parsed = self.read(samples)
            except InputError:
                # Extra columns that no sample row can fill.
                return 1, 0.0
            tokens = sum(parsed.costs)
            seconds = run_on_model(partial(self._seconds_of, parsed)) if parsed.costs else 0.0
        return max(1, tokens), seconds

    def _seconds_of(self, parsed: ReadTable) -> float:
        """Seconds that the rows of a request take."""
        before = time.perf_counter()
        self.predict(
            EngineTurn.of_request(WaitingRequest(parsed, parsed.costs), range(len(parsed.costs)))
        )
        self.collect([parsed], "")
        return time.perf_counter() - before

    def collect(self, requests: Sequence[ReadTable], model: str) -> list[RowPredictions]:
        """The predictions of ``model`` for complete requests."""
        texts = self.predictor.prediction_type == "text" and not isinstance(
            self.use, ImagePredictor
        )
        results = []
        for request in requests:
            predictions = (
                row_predictions(request.collected, self.predictor) if len(request.table) else []
            )
            results.append(request_predictions(request, predictions, model, "" if texts else None))
        return results


def _parts_by_columns(turn: EngineTurn) -> list[list[tuple[ReadTable, range]]]:
    """The parts of a turn grouped by the columns of their tables, and chats by their form."""
    from holdfast.data.chats.chat import form_of

    parts: dict[Any, list[tuple[ReadTable, range]]] = {}
    for request, places in turn.parts:
        names = tuple(request.parsed.table.rows.column_names)
        form = form_of(request.parsed.table) if "turns" in names else ""
        parts.setdefault((names, form), []).append((request.parsed, places))
    return list(parts.values())


def concatenated(tables: Sequence[Table]) -> Table:
    """Tables of the same columns as one."""
    if len(tables) == 1:
        return tables[0]
    import datasets

    return replace(tables[0], rows=datasets.concatenate_datasets([one.rows for one in tables]))
