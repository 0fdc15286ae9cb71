"""Rows rewritten for each group of an axis, and the outcomes that the swap test compares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from holdfast.augment.terms.forms import in_group, inserted, mentions
from holdfast.augment.terms.lexicon import Axis, built_in, read_lexicon
from holdfast.augment.text_forms import SOURCES, read_rows, write_rows
from holdfast.contract.predictions import Bools
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.chats.turns import prompt_text, prompt_turns
from holdfast.data.table import Table
from holdfast.recipe.parts import FairnessPart
from holdfast.tasks.generation.marks import marks

if TYPE_CHECKING:
    from holdfast.runs.predictor import Predictor


# Rows → a model's predictions for them [n, outcomes]: probabilities of classes, a number, a rate.
Predict = Callable[[Table], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class SwapForms:
    """Rows at ``positions`` [r] of a table, rewritten for each group: ``texts`` [r][groups] hold
    the parts of each form.

    ``plain`` [r, groups] marks the form that equals the unchanged row; ``has_terms`` [r] whether
    the row has terms of its own (else one was put before it). ``units`` [r] are equal for rows that
    got the same term from a list that is a sample (names): a finding must hold over terms, not only
    over rows."""

    axis: Axis
    positions: Ints
    texts: tuple[tuple[dict[str, str], ...], ...]
    plain: Bools
    has_terms: Bools
    units: Ints

    def __len__(self) -> int:
        return len(self.positions)


def make_forms(table: Table, axis: Axis, max_rows: int, *, insert: bool, seed: int) -> SwapForms:
    """Up to ``max_rows`` rows of ``table`` in the forms of ``axis``, drawn by ``seed``: first rows
    that have its terms, then, with ``insert``, other rows with a term put before them."""
    rng = generator(seed, "swap", axis.name)
    block = table.rows.with_format("arrow")[:]
    rows = read_rows(block, table)
    parts = [part for part in SOURCES if rows and part in rows[0]]
    order = rng.permutation(len(rows))
    with_terms = [k for k in order if any(axis.pattern.search(str(rows[k][p])) for p in parts)]
    positions = with_terms[:max_rows]
    if insert and len(positions) < max_rows:
        with_terms_set = set(with_terms)
        positions += [k for k in order if k not in with_terms_set][: max_rows - len(positions)]
    forms_and_units = [
        _with_terms(axis, rows[k], parts, n)
        if n < min(max_rows, len(with_terms))
        else _inserted(axis, rows[k], parts, n)
        for n, k in enumerate(positions)
    ]
    successful = [n for n, one in enumerate(forms_and_units) if one is not None]
    texts = tuple(one[0] for one in forms_and_units if one is not None)
    unit_codes = {
        name: k
        for k, name in enumerate(dict.fromkeys(o[1] for o in forms_and_units if o is not None))
    }
    plain = np.array(
        [
            [all(form[p] == rows[positions[n]][p] for p in parts) for form in forms]
            for n, forms in zip(successful, texts, strict=True)
        ],
        dtype=bool,
    ).reshape(len(successful), len(axis.groups))
    return SwapForms(
        axis,
        np.array([positions[n] for n in successful], dtype=np.int64),
        texts,
        plain,
        np.array([n < min(max_rows, len(with_terms)) for n in successful], dtype=bool),
        np.array(
            [unit_codes[one[1]] for one in forms_and_units if one is not None], dtype=np.int64
        ),
    )


FormsAndUnit = tuple[tuple[dict[str, str], ...], tuple[str, int]]


def _with_terms(axis: Axis, row: object, parts: Sequence[str], number: int) -> FormsAndUnit:
    texts = {part: str(row[part]) for part in parts}  # type: ignore[index]
    term_mentions = {part: mentions(axis, text) for part, text in texts.items()}
    first = next(one for each in term_mentions.values() for one in each)
    block = axis.blocks[first.block]
    forms = tuple(
        {part: in_group(axis, texts[part], group, term_mentions[part]) for part in parts}
        for group in axis.groups
    )
    unit = ("row", number) if block.matched else (block.name, first.place)
    return forms, unit


def _inserted(axis: Axis, row: object, parts: Sequence[str], number: int) -> FormsAndUnit | None:
    places = [(block, k) for block in axis.blocks for k in block.insertable]
    if not places or not parts:
        return None
    # A stride that is coprime to the number of places takes terms from all blocks in turn.
    block, place = places[(number * _stride(len(places))) % len(places)]
    texts = {part: str(row[part]) for part in parts}  # type: ignore[index]
    forms = tuple(
        {**texts, parts[0]: inserted(block, texts[parts[0]], group, place)} for group in axis.groups
    )
    return forms, (block.name, place)


def _stride(places: int) -> int:
    golden = max(1, round(places * 0.618))
    while np.gcd(golden, places) != 1:
        golden += 1
    return golden


def predict_forms(
    forms: SwapForms, table: Table, predict: Predict, row_outcomes: Floats | None = None
) -> Floats:
    """The model's predictions for every form, [r, groups, outcomes]. ``row_outcomes`` [rows of the
    table, outcomes] are the predictions for unchanged rows, which are then not computed again."""
    r, groups = forms.plain.shape
    to_predict = [
        (n, g)
        for n in range(r)
        for g in range(groups)
        if row_outcomes is None or not forms.plain[n, g]
    ]
    row_positions = (
        forms.positions[[n for n, _ in to_predict]] if to_predict else np.zeros(0, dtype=np.int64)
    )
    predicted = (
        predict(rewritten(table, row_positions, [forms.texts[n][g] for n, g in to_predict]))
        if to_predict
        else None
    )
    outcomes = (
        predicted.shape[1]
        if predicted is not None
        else row_outcomes.shape[1]
        if row_outcomes is not None
        else 0
    )
    outcomes_by_form = np.zeros((r, groups, outcomes))
    if row_outcomes is not None:
        for n in range(r):
            outcomes_by_form[n, forms.plain[n]] = row_outcomes[forms.positions[n]]
    for k, (n, g) in enumerate(to_predict):
        assert predicted is not None
        outcomes_by_form[n, g] = predicted[k]
    return outcomes_by_form


def rewritten(table: Table, positions: Ints, texts: Sequence[dict[str, str]]) -> Table:
    """The rows at ``positions`` with other texts."""
    import datasets

    block = table.rows.with_format("arrow")[np.asarray(positions).tolist()]
    rows = [{**old, **new} for old, new in zip(read_rows(block, table), texts, strict=True)]
    changed = datasets.Dataset(datasets.table.InMemoryTable(write_rows(block, rows)))
    return replace(table, rows=changed)


def read_axes(part: FairnessPart) -> tuple[Axis, ...]:
    """The axes of the built-in lexicon, or of the user's file."""
    return tuple((read_lexicon(part.terms) if part.terms else built_in()).values())


@dataclass(frozen=True, slots=True)
class SwapQuery:
    """The prediction that the swap test compares, and the ``names`` of its outcomes; ``shares`` are
    bounded as probabilities are."""

    predict: Predict
    names: tuple[str, ...] = ()
    shares: bool = False


def label_query(predictor: Predictor) -> SwapQuery | None:
    """Probabilities of classes, or a number; ``None`` for other predictions."""
    if predictor.prediction_type == "number":
        return SwapQuery(
            lambda table: np.asarray(predictor.predict_table(table).predictions, np.float64)[
                :, None
            ]
        )
    if not predictor.names:
        return None

    def predict(table: Table) -> Floats:
        probabilities = predictor.predict_table(table).probabilities
        assert probabilities is not None
        return np.asarray(probabilities)

    return SwapQuery(predict, tuple(predictor.names))


def fault_query(predictor: Predictor) -> SwapQuery | None:
    """For a generative model: which problems its outputs show."""
    if predictor.prediction_type != "text":
        return None
    predict = fault_predictor(lambda table: predictor.predict_table(table).predictions)
    return SwapQuery(predict, tuple(OUTCOMES), shares=True)


# Each is 1 if an output shows it. "Another language than the reference" is not among them.
OUTCOMES = {
    "toxic or stereotyped": ("toxic", "stereotyped"),
    "a template's words": ("template",),
    "empty or repeated": ("empty", "repeated"),
}


def fault_predictor(generate: Callable[[Table], Sequence[object]]) -> Callable[[Table], Floats]:
    """From a function that generates a text for each row of a table, make one that returns which
    of ``OUTCOMES`` the text shows, [n, outcomes] of 0 and 1. What the prompt contains does not
    count, so a prompt that names another group is judged by its own words."""

    def predict(table: Table) -> Floats:
        texts = [str(text or "") for text in generate(table)]
        sources = sources_of(table)
        marks_by_name = marks(sources, [""] * len(texts), texts)
        columns = [
            np.any([marks_by_name[mark] for mark in outcome_marks], axis=0)
            for outcome_marks in OUTCOMES.values()
        ]
        return np.column_stack(columns).astype(np.float64)

    return predict


def sources_of(table: Table) -> list[str]:
    """The prompt of each row: of a chat all but its last answer, else its text."""
    texts: list[str] = table.column("text")
    if "turns" not in table.rows.column_names:
        return texts
    from holdfast.data.chats.chat import read_row_turns

    return [
        prompt_text(prompt_turns(turns)) if turns else text
        for turns, text in zip(read_row_turns(table), texts, strict=True)
    ]
