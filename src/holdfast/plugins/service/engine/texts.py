"""Rows of a text classifier: parsed as ``predict`` parses them, and predicted in batches by tokens.

``Predictor.read_rows`` writes what it reads to disk, since a file may be larger than memory. For a
request that would take longer than the model does. A row whose cells are plain texts is parsed here
by the same functions; any other takes the slower path, which also reports its errors.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from holdfast.contract.inference import ClassPredictions, TaskPredictions, read_columns
from holdfast.core.records import Floats, Outputs
from holdfast.core.tasks import TEXT_TASKS
from holdfast.data.columns.profile import is_missing
from holdfast.data.columns.roles import fill_template
from holdfast.data.limits import current_limits
from holdfast.models.loading.tokenizer import text_beginnings
from holdfast.plugins.service.engine.precision import Graph
from holdfast.plugins.service.engine.request_queue import EngineTurn, WaitingRequest
from holdfast.plugins.service.engine.rows import (
    fill_rows,
    request_by_file,
    request_predictions,
    row_predictions,
)
from holdfast.plugins.service.records import RowPredictions
from holdfast.plugins.store.records import Row
from holdfast.quality.clean.apply import clean_text, plan_cleaning
from holdfast.recipe import Recipe
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes.answers import TextPredictor
from holdfast.tasks.labels.base import answers_of

# Requests up to this size are parsed on the event loop; larger ones in a separate thread.
LIGHT_ROWS, LIGHT_CHARACTERS = 16, 20_000
# The fixed cost of a pass in tokens, where it was not measured.
OVERHEAD_TOKENS = 24.0
# The shapes of passes that are run once before the first request, the maximum time for it, and the
# shape of a typical large pass.
LENGTHS, ROWS, MAX_WARM_TOKENS = (8, 16, 24, 32, 48, 64, 128, 256), (1, 2, 4, 8, 16, 32), 1024
USUAL_SHAPE = (16, 32)
WARM_SECONDS = 6.0


@dataclass(slots=True, eq=False)
class ReadTexts:
    """A request: ``ids`` and ``types`` of its rows with a text, longest first, and their ``places``
    [n] in the request. ``because`` is the reason why another row has no prediction. ``outputs`` and
    ``vectors`` receive the model's outputs, in the order of ``ids``."""

    rows: int
    ids: list[Any]
    types: list[Any] | None
    places: list[int]
    because: Mapping[int, str]
    outputs: Floats
    vectors: Floats | None = None

    @property
    def costs(self) -> list[int]:
        """Tokens of each row."""
        return [len(one) for one in self.ids]


@dataclass(eq=False)
class TextHandler:
    """How requests to a text classifier are parsed, predicted and returned. ``network`` computes
    them, in passes whose length is a ``multiple`` of tokens."""

    predictor: Predictor
    use: TextPredictor
    recipe: Recipe
    network: Graph
    multiple: int = 1
    overhead: float = OVERHEAD_TOKENS
    turn_tokens: int = 0

    def __post_init__(self) -> None:
        self._cleaning_steps = (
            plan_cleaning(self.recipe.treat)
            if self.recipe.task in TEXT_TASKS
            else plan_cleaning({})
        )
        self._columns = read_columns(self.recipe.data)
        model: Any = self.use.models[0]
        # A separate copy: a tokenizer keeps its padding as state, and others use the model's.
        self._tokenizer, self._max_length = copy.deepcopy(model.tokenizer), model.max_length
        self._has_token_types = "token_type_ids" in self._tokenizer("a")
        self._output_width = len(model.classes)
        self._pad_id = int(self._tokenizer.pad_token_id)

    def is_light(self, rows: Sequence[Row]) -> bool:
        """Whether parsing is fast enough for the event loop."""
        if len(rows) > LIGHT_ROWS:
            return False
        cells = [cell for row in rows for cell in row.values()]
        texts = all(isinstance(cell, str) for cell in cells)
        return texts and sum(map(len, cells)) <= LIGHT_CHARACTERS

    def read(self, rows: Sequence[Row]) -> ReadTexts:
        """Raises ``InputError`` where they cannot be read."""
        plain_texts = self._read_plain(rows)
        because: Mapping[int, str] = {}
        if plain_texts is None:
            request = request_by_file(self.predictor, rows)
            table, because = request.table, request.because
            names = [n for n in ("text", "text_pair") if n in table.rows.column_names]
            columns = [table.column(name) for name in names]
            places = table.column("row")
        else:
            places, columns = plain_texts
        ids, types = [], None
        if len(places):
            texts = [
                text_beginnings(self._tokenizer, column, self._max_length) for column in columns
            ]
            encoded = self._tokenizer(
                *texts, truncation="longest_first", max_length=self._max_length, padding=False
            )
            ids, types = encoded["input_ids"], encoded.get("token_type_ids")
        order = sorted(range(len(ids)), key=lambda place: -len(ids[place]))
        return ReadTexts(
            len(rows),
            [ids[i] for i in order],
            None if types is None else [types[i] for i in order],
            [int(places[i]) for i in order],
            because,
            np.zeros((len(order), self._output_width), dtype=np.float32),
        )

    def _read_plain(self, rows: Sequence[Row]) -> tuple[list[int], list[list[str]]] | None:
        """The positions of the rows with texts and their texts, a list a column; ``None`` where a
        cell cannot be parsed here."""
        names, template = self._columns, self.recipe.data.template
        if not names or (len(names) > 2 and not template):
            return None
        max_characters = min(
            current_limits().cell, int(self.recipe.data.limits.cell_mb * 1_000_000)
        )
        cells: list[list[Any]] = [[row.get(name) for row in rows] for name in names]
        for cell in itertools.chain(*cells):
            if (
                not isinstance(cell, str)
                or "\0" in cell
                or len(cell) > max_characters
                or _has_lone_surrogate(cell)
            ):
                return None
        if template:
            arrays = {n: _nulled(c) for n, c in zip(names, cells, strict=True)}
            cells = [fill_template(template, arrays).to_pylist()]
        else:
            cells = [_nulled(some).to_pylist() if _may_be_missing(some) else some for some in cells]
        places = [
            i for i, row_texts in enumerate(zip(*cells, strict=True)) if None not in row_texts
        ]
        texts = [[column[i] for i in places] for column in cells]
        if self._cleaning_steps.row:
            texts = [
                [clean_text(one, self._cleaning_steps)[0] for one in column] for column in texts
            ]
        return places, texts

    def predict(self, turn: EngineTurn) -> int:
        """Predict the rows of a turn; return the number of tokens in the passes, padding
        included."""
        owners = [(one.parsed, place) for one, places in turn.parts for place in places]
        lengths = [_round_up(len(read.ids[place]), self.multiple) for read, place in owners]
        padded = 0
        with torch.inference_mode():
            for pass_rows in plan_passes(lengths, self.overhead):
                members = [owners[i] for i in pass_rows]
                batch = self._batch(members)
                padded += batch["input_ids"].numel()
                with self.network.capturing_features() as features:
                    logits = self.network(**batch).float().numpy()
                vectors = features[0].float().numpy() if features else None
                for at, (read, place) in enumerate(members):
                    read.outputs[place] = logits[at]
                    if vectors is not None:
                        vector = vectors[at : at + 1]
                        read.vectors = fill_rows(read.vectors, len(read.ids), vector, place)
        return padded

    def _batch(self, members: Sequence[tuple[ReadTexts, int]]) -> dict[str, torch.Tensor]:
        longest = max(len(read.ids[place]) for read, place in members)
        # At most the model's maximum length.
        longest = max(longest, min(_round_up(longest, self.multiple), self._max_length))
        ids = np.full((len(members), longest), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(members), longest), dtype=np.int64)
        types = np.zeros((len(members), longest), dtype=np.int64)
        for i, (read, place) in enumerate(members):
            end = len(read.ids[place])
            ids[i, :end], mask[i, :end] = read.ids[place], 1
            if read.types is not None:
                types[i, :end] = read.types[place]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if members[0][0].types is not None:
            batch["token_type_ids"] = torch.from_numpy(types)
        return batch

    def collect(self, requests: Sequence[ReadTexts], model: str) -> list[RowPredictions]:
        """The predictions of ``model`` for complete requests."""
        answers = self._to_answers(np.concatenate([request.outputs for request in requests]))
        predictions = iter(row_predictions(answers, self.predictor))
        empty_prediction = "" if self.predictor.prediction_type == "text" else None
        return [
            request_predictions(
                request,
                list(itertools.islice(predictions, len(request.ids))),
                model,
                empty_prediction,
            )
            for request in requests
        ]

    def _to_answers(self, logits: Floats) -> TaskPredictions:
        names, labels = self.use.models[0].classes, self.use.label_kind
        if labels != "class":
            return answers_of(names, [logits], sets=labels == "several")
        no_labels = np.full(len(logits), -1, dtype=np.int64)
        outputs = Outputs(no_labels, no_labels, logits, np.full(len(logits), np.nan))
        return ClassPredictions(names, outputs.probabilities, outputs)

    def warm(self, run_on_model: Callable[[Callable[[], float]], float]) -> tuple[int, float]:
        """Run passes of every usual shape once, each with exclusive use of the model; return the
        tokens and seconds of a large one. The fixed cost of a pass is measured on the way."""
        began = time.perf_counter()
        for length in (size for size in LENGTHS if size <= self._max_length):
            for rows in (n for n in ROWS if n * length <= MAX_WARM_TOKENS):
                run_on_model(partial(self._seconds_of, rows, length))
                if time.perf_counter() - began > WARM_SECONDS:
                    break
        rows, shortest = USUAL_SHAPE[0], min(LENGTHS[0], self._max_length)
        length = min(USUAL_SHAPE[1], self._max_length)
        short = min(run_on_model(partial(self._seconds_of, 1, shortest)) for _ in range(3))
        large = min(run_on_model(partial(self._seconds_of, rows, length)) for _ in range(2))
        per_token = max(large - short, 1e-9) / (rows * length - shortest)
        self.overhead = max(0.0, short / per_token - shortest)
        return rows * length, large

    def _seconds_of(self, rows: int, length: int) -> float:
        """Seconds that a pass of artificial rows takes."""
        ids = [int(self._pad_id)] * length
        request = ReadTexts(
            rows,
            [ids] * rows,
            [[0] * length] * rows if self._has_token_types else None,
            list(range(rows)),
            {},
            np.zeros((rows, self._output_width), dtype=np.float32),
        )
        before = time.perf_counter()
        self.predict(EngineTurn.of_request(WaitingRequest(request, request.costs), range(rows)))
        return time.perf_counter() - before


def _round_up(length: int, multiple: int) -> int:
    """The next multiple from ``length`` on."""
    return -(-length // multiple) * multiple


def _nulled(column: Sequence[Any]) -> pa.Array:
    """The texts of a column, null where one is missing as a file's would be."""
    values = pa.array(column, pa.string())
    return pa.compute.if_else(is_missing(values), pa.scalar(None, pa.string()), values)


def _may_be_missing(column: Sequence[Any]) -> bool:
    """Whether a text may be only white space, which Arrow and Python may define differently."""
    return any(not (left := one.lstrip()) or not left[0].isascii() for one in column)


def _has_lone_surrogate(text: str) -> bool:
    """Whether the text contains half of a surrogate pair, which no valid text has."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def plan_passes(lengths: Sequence[int], overhead: float) -> list[list[int]]:
    """Rows of many lengths → passes through the model, each padded to its longest row: the
    positions of the rows [n] of each, the longest rows first.

    A pass costs ``overhead`` tokens, and then every position it has, filled or padded. Few passes
    pad much, many passes cost much overhead; the cheapest plan is found exactly. Over the different
    lengths l₁ < … < l_m, with n_i rows each, the least cost of the first j is C(j) = min over i < j
    of C(i) + overhead + l_j · (n_{i+1} + … + n_j), since only neighbours in length need share a
    pass.
    """
    # In plain Python: for so few rows NumPy is slower, most of all because it releases the
    # interpreter's lock and has to wait for it.
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    counts = Counter(lengths)
    widths = sorted(counts)
    ends = [0, *itertools.accumulate(counts[width] for width in widths)]
    best, starts = [0.0], [0]
    for j, width in enumerate(widths, 1):
        costs = [best[i] + overhead + width * (ends[j] - ends[i]) for i in range(j)]
        starts.append(min(range(j), key=costs.__getitem__))
        best.append(costs[starts[j]])
    plan: list[list[int]] = []
    j = len(widths)
    while j > 0:
        i = starts[j]
        plan.append(order[ends[i] : ends[j]])
        j = i
    return plan
