"""``holdfast explain``: which words or squares a finished run's predictions depend on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from holdfast.analyses.explain.classifiers import (
    TextQuery,
    class_cases,
    identity,
    image_cases,
    label_cases,
    number_cases,
    read_image,
    read_row,
    read_sentence,
    tag_cases,
)
from holdfast.analyses.explain.explanation import ExplainedRow, Explanation, reason_of
from holdfast.analyses.explain.generation import (
    GeneratedRow,
    GeneratorSource,
    causal_model,
    generation_cases,
    read_generated_row,
    seq2seq_model,
)
from holdfast.analyses.explain.masking import Case, RowUnits
from holdfast.contract.inference import Data, InferenceOptions, TaskPredictions, run_recipe
from holdfast.contract.inference import PredictionRequest as Rows
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.data.chats.chat import read_row_turns
from holdfast.data.chats.turns import prompt_text as last_question
from holdfast.data.images.decode import thumbnail
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes.answers import TextPredictor, TextWithExtraFeatures
from holdfast.tasks.classes.encoding import TextModel
from holdfast.tasks.images.task import ImagePredictor
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.lm.chat_tokens import render
from holdfast.tasks.lm.generation import LONGEST_ANSWER
from holdfast.tasks.seq2seq.task import Seq2SeqPredictor
from holdfast.tasks.tags.answers import TagPredictor

if TYPE_CHECKING:
    from holdfast.core.records import Floats
    from holdfast.data.raw import Raw


ROWS = 50
MASKED = "its tokens are replaced by the tokenizer's mask token"
LEFT_OUT = "its tokens are left out, since the tokenizer has no mask token"
COVERED = "the square is covered with the mean colour of the model's image processor"
NOTHING_READ = "the model reads no word of it"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class RowToExplain:
    """A row to explain: the row without its reasons, its cases, and the generated text, if there is
    one, to attribute afterwards."""

    row: ExplainedRow
    cases: list[Case]
    generated: GeneratedRow | None = None


def explain(
    run: Path,
    data: Data,
    options: InferenceOptions | None = None,
    *,
    rows: int = ROWS,
    progress: Progress = lambda done, of: None,
) -> Explanation:
    """Explain the predictions of a finished run for the rows of a file or a list, at most ``rows``
    of them, in their order.

    ``progress`` is called with the number of finished rows. Raises as ``predict`` does;
    ``RecipeError`` for fewer than one row, ``ModelError`` for a tokenizer that does not report
    which tokens belong to which word.
    """
    if rows < 1:
        raise RecipeError("--rows", "must be at least 1", rows, "E.g. --rows 50.")
    if isinstance(data, str):
        refuse_missing(data)
    predictor = Predictor.load(run)
    source = data if isinstance(data, str) else "the list"
    request = predictor.read_rows(data, options)
    return explain_rows(predictor, request, str(run), source, rows=rows, progress=progress)


def explain_rows(
    predictor: Predictor,
    request: Rows,
    run: str,
    source: str,
    *,
    rows: int = ROWS,
    progress: Progress = lambda done, of: None,
) -> Explanation:
    """``explain`` for a loaded predictor and rows that are already read; ``run`` and ``source`` are
    their names in the result."""
    started = time.perf_counter()
    table = request.table
    places = table.column("row")
    n_rows = min(rows, len(request.raw))
    explained_table, n_left = (
        table.take(np.flatnonzero(np.asarray(places) < n_rows)),
        len(request.raw) - n_rows,
    )
    decisions = [*predictor.decisions, *request.decisions]
    if n_left:
        because = (
            f"an explanation takes many forward passes; --rows {len(request.raw)} explains all rows"
        )
        decisions.append(Decision("rows", f"the first {rows:,} of {len(request.raw):,}", because))
    notify(*decisions)
    labels = _labels(request.raw, predictor.part.label)
    answers = predictor.predict_table(explained_table) if len(explained_table) else None
    read_row_at, removal = row_reader(predictor, explained_table, answers)
    explained_rows = {}
    for place in range(len(explained_table)):
        with predictor.alone():
            explained = explain_row(read_row_at(place))
        explained_rows[int(explained_table.column("row")[place])] = explained
        progress(place + 1, len(explained_table))
    rows_in_order = []
    for row in range(n_rows):
        one = explained_rows.get(row)
        if one is None:
            why = request.because.get(row, "it has no text")
            one = ExplainedRow(row, because=why)
        rows_in_order.append(replace(one, label=labels(row)))
    return Explanation(
        run,
        source,
        _task(predictor),
        tuple(rows_in_order),
        n_left,
        removal,
        time.perf_counter() - started,
    )


def explain_row(prepared: RowToExplain) -> ExplainedRow:
    """The row with a reason for each of its cases; independent of the other rows."""
    row = prepared.row
    if row.because or not row.words:
        return replace(row, because=row.because or NOTHING_READ)
    key = "\x1f".join(row.texts)
    reasons = tuple(reason_of(case, key, case.target) for case in prepared.cases)
    by_target = prepared.generated.by_target(row.words) if prepared.generated is not None else []
    return replace(row, reasons=reasons, by_target=tuple(by_target))


def row_reader(
    predictor: Predictor, table: Table, answers: TaskPredictions | None
) -> tuple[Callable[[int], RowToExplain], str]:
    """A function that prepares the row at a position of ``table``, and how a unit is removed there.

    Raises ``RecipeError`` for a type of model that cannot be explained.
    """
    use = predictor.model
    predictions = list(answers.predictions) if answers else []
    confidences = list(answers.confidence) if answers else []

    def new_row(place: int, texts: tuple[str, ...]) -> ExplainedRow:
        row = int(table.column("row")[place])
        return ExplainedRow(
            row, texts, prediction=predictions[place], confidence=confidences[place]
        )

    if isinstance(use, TextPredictor):
        masks = use.models[0].tokenizer.mask_token_id is not None
        return lambda at: _read_text(use, table, at, new_row), MASKED if masks else LEFT_OUT
    if isinstance(use, TagPredictor):
        return lambda at: _read_tagged(use.models[0], table, at, new_row), MASKED
    if isinstance(use, ImagePredictor):
        return lambda at: _read_picture(use, table, at, new_row), COVERED
    if isinstance(use, (CausalLMPredictor, Seq2SeqPredictor)):
        return lambda at: _read_generation(use, table, at, new_row, str(predictions[at])), LEFT_OUT
    raise RecipeError(
        "holdfast explain", "cannot explain this type of model", type(use).__name__, ""
    )


RowFactory = Callable[[int, tuple[str, ...]], ExplainedRow]


def text_cases(use: TextPredictor, table: Table, place: int) -> tuple[TextQuery, list[Case]]:
    """The row at ``place`` as the first model reads it, and the cases of its prediction."""
    query = text_query(use, table, place)
    make_cases = {"class": class_cases, "several": label_cases, "number": number_cases}[
        use.label_kind
    ]
    return query, make_cases(query) if query.read.words else []


def text_query(use: TextPredictor, table: Table, place: int) -> TextQuery:
    """The row at ``place`` as the first model reads it."""
    model = use.models[0]
    texts = texts_at(table, place)
    adjust_outputs = identity
    if isinstance(model, TextWithExtraFeatures):
        row, layer, classes = table.take([place]), model.layer, model.classes
        column_output = layer.add(np.zeros((1, len(classes))), row, classes)

        def adjust_outputs(logits: Floats) -> Floats:
            # The contribution of the other columns does not depend on the words.
            return layer.scale * logits + column_output

    return TextQuery(model, read_row(model, texts), adjust_outputs)


def texts_at(table: Table, place: int) -> tuple[str, ...]:
    """The text of a row, or both of a pair."""
    row = table.rows.select_columns(_text_columns(table))[int(place)]
    return tuple(map(str, row.values()))


def texts_of(table: Table) -> list[tuple[str, ...]]:
    """The text of each row, or both of each pair."""
    return list(zip(*map(table.column, _text_columns(table)), strict=True))


def _text_columns(table: Table) -> list[str]:
    return [name for name in ("text", "text_pair") if name in table.rows.column_names]


def with_units(row: ExplainedRow, parts: RowUnits) -> ExplainedRow:
    """The row with the words that its model reads."""
    return replace(row, units=parts.units, unread=parts.unread, joined=parts.words_per_unit)


def _read_text(use: TextPredictor, table: Table, place: int, new_row: RowFactory) -> RowToExplain:
    query, cases = text_cases(use, table, place)
    return RowToExplain(
        with_units(new_row(place, texts_at(table, place)), query.read.row_units), cases
    )


def _read_tagged(model: TextModel, table: Table, place: int, new_row: RowFactory) -> RowToExplain:
    sentence = read_sentence(model, list(table.column("tokens")[place]))
    row = with_units(new_row(place, (sentence.text,)), sentence.read.row_units)
    return RowToExplain(row, tag_cases(sentence) if row.units else [])


def _read_picture(
    use: ImagePredictor, table: Table, place: int, new_row: RowFactory
) -> RowToExplain:
    path = str(table.column("path")[place])
    squares = read_image(use.models[0], path)
    row = replace(
        new_row(place, (path,)), grid=(squares.down, squares.across), picture=thumbnail(path)
    )
    return RowToExplain(row, image_cases(squares))


def _read_generation(
    use: CausalLMPredictor | Seq2SeqPredictor,
    table: Table,
    place: int,
    new_row: RowFactory,
    answer: str,
) -> RowToExplain:
    tokenizer, network = use.tokenizer, use.network.plain
    if isinstance(use, Seq2SeqPredictor):
        source = str(table.column("text")[place])
        inside, writer, special = (0, len(source)), seq2seq_model(network), True
        shown = source
    else:
        turns = read_row_turns(table.take([place]))[0]
        if turns:
            before = turns[:-1] if turns[-1]["role"] == "assistant" else turns
            shown = last_question(before)
            source = render(tokenizer, before, answer_next=True)
            start = max(0, source.rfind(shown))
            inside = (start, start + len(shown))
        else:
            shown = source = str(table.column("text")[place])
            inside = (0, len(source))
        writer, special = causal_model(network), False
    longest = use.recipe.model.max_length or LONGEST_ANSWER
    generator_source = GeneratorSource(source, inside, special, longest)
    generated = read_generated_row(
        writer, network.get_input_embeddings(), tokenizer, generator_source, answer
    )
    row = new_row(place, (shown,))
    if generated is None:
        return RowToExplain(replace(row, because="the model generates no text for it"), [])
    row = with_units(row, generated.row_units)
    return RowToExplain(row, generation_cases(generated, answer) if row.units else [], generated)


def _labels(raw: Raw, name: str | None) -> Callable[[int], object]:
    """The label of a row as the source writes it; ``None`` without a label column."""
    if name is None or name not in raw.names:
        return lambda row: None
    column = raw.table[name]
    return lambda row: column[row].as_py()


def _task(predictor: Predictor) -> str:
    return str(run_recipe(predictor.runs[0]).task)
