"""``holdfast explain``: why a finished run says what it says of these rows."""

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
    covered,
    label_cases,
    number_cases,
    picture_cases,
    read_row,
    read_sentence,
    same,
    tag_cases,
)
from holdfast.analyses.explain.explanation import ExplainedRow, Explanation, reason_of
from holdfast.analyses.explain.generation import (
    GeneratedRow,
    GeneratorSource,
    causal_writer,
    pair_writer,
    written,
    written_cases,
)
from holdfast.analyses.explain.masking import Case, Parted
from holdfast.contract.inference import TaskPredictions, Data, InferenceOptions
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
from holdfast.tasks.classes.answers import TextWithExtraFeatures, TextPredictor
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
MASKED = "its pieces are replaced by the tokenizer's mask token"
LEFT_OUT = "its pieces are left out, since the tokenizer has no mask token"
COVERED = "the square is covered with the mean colour that the model's processor states"
NOTHING_READ = "the model reads no word of it"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Opened:
    """A row as it is to be explained: what is known of it without a reason, its cases, and what is
    asked for once they are explained."""

    row: ExplainedRow
    cases: list[Case]
    after: GeneratedRow | None = None


def explain(
    run: Path,
    data: Data,
    options: InferenceOptions | None = None,
    *,
    rows: int = ROWS,
    progress: Progress = lambda done, of: None,
) -> Explanation:
    """Explain the answers of a finished run to the rows of a file or a list, at most ``rows`` of
    them, in their order.

    ``progress`` hears how many are done. Raises as ``predict`` does; ``RecipeError`` for fewer than
    one row, ``ModelError`` where the tokenizer does not tell which pieces are of which word.
    """
    if rows < 1:
        raise RecipeError("--rows", "must be at least 1", rows, "Name how many rows to explain.")
    if isinstance(data, str):
        refuse_missing(data)
    predictor = Predictor.load(run)
    source = data if isinstance(data, str) else "the list"
    asked = predictor.ask(data, options)
    return explain_asked(predictor, asked, str(run), source, rows=rows, progress=progress)


def explain_asked(
    predictor: Predictor,
    asked: Rows,
    run: str,
    source: str,
    *,
    rows: int = ROWS,
    progress: Progress = lambda done, of: None,
) -> Explanation:
    """The same of a predictor that is loaded, and of rows that are read; ``run`` and ``source`` are
    how the two are called."""
    started = time.perf_counter()
    table = asked.table
    places = table.column("row")
    reach = min(rows, len(asked.raw))
    chosen, left = table.take(np.flatnonzero(np.asarray(places) < reach)), len(asked.raw) - reach
    decisions = [*predictor.decisions, *asked.decisions]
    if left:
        because = f"an explanation takes hundreds of passes a row; --rows {len(asked.raw)} for all"
        decisions.append(Decision("rows", f"the first {rows:,} of {len(asked.raw):,}", because))
    notify(*decisions)
    labels = _labels(asked.raw, predictor.part.label)
    answers = predictor.answer(chosen) if len(chosen) else None
    open_one, taken_away = opener(predictor, chosen, answers)
    found = {}
    for place in range(len(chosen)):
        with predictor.alone():
            found[int(chosen.column("row")[place])] = explained(open_one(place))
        progress(place + 1, len(chosen))
    told = []
    for row in range(reach):
        one = found.get(row)
        if one is None:
            why = asked.because.get(row, "it has no text")
            one = ExplainedRow(row, because=why)
        told.append(replace(one, label=labels(row)))
    return Explanation(
        run, source, _task(predictor), tuple(told), left, taken_away, time.perf_counter() - started
    )


def explained(opened: Opened) -> ExplainedRow:
    """The row with a reason for each of its cases; the same whatever rows stand beside it."""
    row = opened.row
    if row.because or not row.words:
        return replace(row, because=row.because or NOTHING_READ)
    key = "\x1f".join(row.texts)
    reasons = tuple(reason_of(case, key, case.target) for case in opened.cases)
    after = opened.after.by_target(row.words) if opened.after is not None else []
    return replace(row, reasons=reasons, by_target=tuple(after))


def opener(
    predictor: Predictor, table: Table, answers: TaskPredictions | None
) -> tuple[Callable[[int], Opened], str]:
    """What opens the row at a place of ``table``, and how a unit is taken away there.

    Raises ``RecipeError`` for a kind of model that cannot be explained.
    """
    use = predictor.model
    said = list(answers.predictions) if answers else []
    sure = list(answers.confidence) if answers else []

    def begun(place: int, texts: tuple[str, ...]) -> ExplainedRow:
        row = int(table.column("row")[place])
        return ExplainedRow(row, texts, prediction=said[place], confidence=sure[place])

    if isinstance(use, TextPredictor):
        masks = use.models[0].tokenizer.mask_token_id is not None
        return lambda at: _text(use, table, at, begun), MASKED if masks else LEFT_OUT
    if isinstance(use, TagPredictor):
        return lambda at: _sentence(use.models[0], table, at, begun), MASKED
    if isinstance(use, ImagePredictor):
        return lambda at: _picture(use, table, at, begun), COVERED
    if isinstance(use, (CausalLMPredictor, Seq2SeqPredictor)):
        return lambda at: _written(use, table, at, begun, str(said[at])), LEFT_OUT
    raise RecipeError(
        "holdfast explain", "cannot explain this kind of model", type(use).__name__, ""
    )


Begun = Callable[[int, tuple[str, ...]], ExplainedRow]


def text_cases(use: TextPredictor, table: Table, place: int) -> tuple[TextQuery, list[Case]]:
    """The row at ``place`` as the first model reads it, and the cases of its answer."""
    asked = asked_text(use, table, place)
    make = {"class": class_cases, "several": label_cases, "number": number_cases}[use.label_kind]
    return asked, make(asked) if asked.read.words else []


def asked_text(use: TextPredictor, table: Table, place: int) -> TextQuery:
    """The row at ``place`` as the first model reads it."""
    model = use.models[0]
    texts = texts_at(table, place)
    beside = same
    if isinstance(model, TextWithExtraFeatures):
        one, layer, classes = table.take([place]), model.layer, model.classes
        nothing = layer.add(np.zeros((1, len(classes))), one, classes)

        def beside(logits: Floats) -> Floats:
            # What the other columns add is the same whatever words are left.
            return layer.scale * logits + nothing

    return TextQuery(model, read_row(model, texts), beside)


def texts_at(table: Table, place: int) -> tuple[str, ...]:
    """The text of a row, or both of a pair."""
    row = table.rows.select_columns(_text_columns(table))[int(place)]
    return tuple(map(str, row.values()))


def texts_of(table: Table) -> list[tuple[str, ...]]:
    """The text of each row, or both of each pair."""
    return list(zip(*map(table.column, _text_columns(table)), strict=True))


def _text_columns(table: Table) -> list[str]:
    return [name for name in ("text", "text_pair") if name in table.rows.column_names]


def in_words(row: ExplainedRow, parts: Parted) -> ExplainedRow:
    """The row with the words that its model reads."""
    return replace(row, units=parts.units, unread=parts.unread, joined=parts.joined)


def _text(use: TextPredictor, table: Table, place: int, begun: Begun) -> Opened:
    asked, cases = text_cases(use, table, place)
    return Opened(in_words(begun(place, texts_at(table, place)), asked.read.parted), cases)


def _sentence(model: TextModel, table: Table, place: int, begun: Begun) -> Opened:
    sentence = read_sentence(model, list(table.column("tokens")[place]))
    row = in_words(begun(place, (sentence.text,)), sentence.read.parted)
    return Opened(row, tag_cases(sentence) if row.units else [])


def _picture(use: ImagePredictor, table: Table, place: int, begun: Begun) -> Opened:
    path = str(table.column("path")[place])
    seen = covered(use.models[0], path)
    row = replace(begun(place, (path,)), grid=(seen.down, seen.across), picture=thumbnail(path))
    return Opened(row, picture_cases(seen))


def _written(
    use: CausalLMPredictor | Seq2SeqPredictor, table: Table, place: int, begun: Begun, answer: str
) -> Opened:
    tokenizer, plain = use.tokenizer, use.network.plain
    if isinstance(use, Seq2SeqPredictor):
        source = str(table.column("text")[place])
        inside, writer, special = (0, len(source)), pair_writer(plain), True
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
        writer, special = causal_writer(plain), False
    longest = use.recipe.model.max_length or LONGEST_ANSWER
    read = GeneratorSource(source, inside, special, longest)
    made = written(writer, plain.get_input_embeddings(), tokenizer, read, answer)
    row = begun(place, (shown,))
    if made is None:
        return Opened(replace(row, because="the model writes nothing to it"), [])
    row = in_words(row, made.parted)
    return Opened(row, written_cases(made, answer) if row.units else [], made)


def _labels(raw: Raw, name: str | None) -> Callable[[int], object]:
    """The label of a row as the source writes it; ``None`` where it has no such column."""
    if name is None or name not in raw.names:
        return lambda row: None
    column = raw.table[name]
    return lambda row: column[row].as_py()


def _task(predictor: Predictor) -> str:
    from holdfast.contract.run_folder import RECIPE
    from holdfast.recipe import read_recipe

    return str(read_recipe(predictor.runs[0] / RECIPE).task)
