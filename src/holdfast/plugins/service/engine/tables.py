"""Rows of any other task (tags, pictures, written texts, columns beside a text): read into tables
by ``Predictor.ask``, and the tables of several requests asked as one."""

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
from holdfast.plugins.service.engine.line import EngineTurn, Waiting
from holdfast.plugins.service.engine.rows import (
    asked_of,
    filled,
    made_row,
    row_predictions,
    whole_answer,
)
from holdfast.plugins.service.records import RowPredictions
from holdfast.plugins.store.records import Row
from holdfast.runs.predictor import Predictor
from holdfast.tasks.images.task import ImagePredictor
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.seq2seq.task import Seq2SeqPredictor

# What a picture counts beside words, and a word that is written beside one that is read.
PICTURE_TOKENS, WRITTEN = 200, 8
CHARACTERS_A_TOKEN = 4
# Writing eight texts takes little longer than writing one.
TOGETHER = 8
LONGEST_ANSWER = 64


@dataclass(slots=True)
class Collected:
    """The answers to some rows, as they come, in the form of ``using.Answers``."""

    predictions: list[Any]
    confidence: list[float | None]
    probabilities: Floats | None = None


@dataclass(slots=True, eq=False)
class ReadTable:
    """A request: the ``table`` of its rows that can be read, ``places`` [n] where they stand in the
    request, ``costs`` [n] about how many tokens each is."""

    rows: int
    table: Table
    places: list[int]
    because: Mapping[int, str]
    costs: list[int]
    collected: Collected
    vectors: Floats | None = None


@dataclass(eq=False)
class TableForm:
    """How requests of a task are read, asked and said. ``use`` is what answers them: the
    predictor's, or the same with another network."""

    predictor: Predictor
    use: TaskPredictor
    turn_tokens: int = field(init=False)
    _more: int = field(init=False)

    def __post_init__(self) -> None:
        self._more = 0
        # Answers that are written, word by word.
        if isinstance(self.use, Seq2SeqPredictor | CausalLMPredictor):
            self._more = WRITTEN * int(self.use.recipe.generate.max_new_tokens or LONGEST_ANSWER)
        self.turn_tokens = TOGETHER * self._more

    def light(self, rows: Sequence[Row]) -> bool:
        """Reading goes through the disk."""
        return False

    def read(self, rows: Sequence[Row]) -> ReadTable:
        """Raises ``InputError`` where they cannot be read."""
        asked = asked_of(self.predictor, rows)
        places = [int(place) for place in asked.table.column("row")]
        empty = Collected([None] * len(places), [None] * len(places))
        return ReadTable(
            len(rows), asked.table, places, asked.because, self._costs(asked.table), empty
        )

    def _costs(self, table: Table) -> list[int]:
        if isinstance(self.use, ImagePredictor):
            return [PICTURE_TOKENS] * len(table)
        names = [n for n in ("text", "text_pair", "tokens") if n in table.rows.column_names]
        sizes = [[len(cell) for cell in table.column(name)] for name in names]
        each = 1 if "tokens" in names else CHARACTERS_A_TOKEN
        return [2 + sum(row) // each + self._more for row in zip(*sizes, strict=True)]

    def ask(self, turn: EngineTurn) -> int:
        """Let the model answer the rows of a turn; their tokens."""
        for parts in _alike(turn):
            self._ask_table(parts)
        return turn.tokens

    def _ask_table(self, parts: Sequence[tuple[ReadTable, range]]) -> None:
        table = joined([read.table.take(list(places)) for read, places in parts])
        with self.predictor.alone():
            answers, vectors = model_with_vectors(self.use, table)
        said, sure, chances = answers.predictions, answers.confidence, answers.probabilities
        start = 0
        for read, places in parts:
            stop, kept = start + len(places), read.collected
            first, last = places.start, places.stop
            kept.predictions[first:last] = said[start:stop]
            kept.confidence[first:last] = sure[start:stop]
            rows = len(read.table)
            if chances is not None:
                kept.probabilities = filled(kept.probabilities, rows, chances[start:stop], first)
            if vectors is not None:
                read.vectors = filled(read.vectors, rows, vectors[start:stop], first)
            start = stop

    def warm(self, alone: Callable[[Callable[[], float]], float]) -> tuple[int, float]:
        """Answer made rows, one and several, ``alone`` with the model; their tokens, and how long
        the last took [s]."""
        tokens, seconds = 0, 0.0
        for rows in (1, TOGETHER):
            made = [made_row(self.predictor, place) for place in range(rows)]
            try:
                read = self.read(made)
            except InputError:
                # Columns beside the text that no made row can fill.
                return 1, 0.0
            tokens = sum(read.costs)
            seconds = alone(partial(self._time, read)) if read.costs else 0.0
        return max(1, tokens), seconds

    def _time(self, read: ReadTable) -> float:
        """Seconds that the rows of a request take."""
        before = time.perf_counter()
        self.ask(EngineTurn.of(Waiting(read, read.costs), range(len(read.costs))))
        self.say([read], "")
        return time.perf_counter() - before

    def say(self, reads: Sequence[ReadTable], model: str) -> list[RowPredictions]:
        """The answers of ``model`` to whole requests."""
        texts = self.predictor.answered == "text" and not isinstance(self.use, ImagePredictor)
        made = []
        for one in reads:
            said = row_predictions(one.collected, self.predictor) if len(one.table) else []
            made.append(whole_answer(one, said, model, "" if texts else None))
        return made


def _alike(turn: EngineTurn) -> list[list[tuple[ReadTable, range]]]:
    """The parts of a turn whose tables have the same columns, and of chats the same form."""
    from holdfast.data.chats.chat import form_of

    found: dict[Any, list[tuple[ReadTable, range]]] = {}
    for one, places in turn.parts:
        names = tuple(one.read.table.rows.column_names)
        form = form_of(one.read.table) if "turns" in names else ""
        found.setdefault((names, form), []).append((one.read, places))
    return list(found.values())


def joined(tables: Sequence[Table]) -> Table:
    """Tables of the same columns as one."""
    if len(tables) == 1:
        return tables[0]
    import datasets

    return replace(tables[0], rows=datasets.concatenate_datasets([one.rows for one in tables]))
