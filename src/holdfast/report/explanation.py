"""The page of ``holdfast explain``, built from its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from markupsafe import Markup, escape

from holdfast.core.wording import about, count_phrase, signed
from holdfast.report.document import Document, Items, Passage
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import NBSP
from holdfast.report.page import standalone
from holdfast.report.section import PagePart
from holdfast.report.view.headline import HeadlineView

# Shares of a row's largest value from which a word is marked weakly, clearly, strongly.
STRENGTHS = (0.1, 1 / 3, 2 / 3)
MAX_WORDS_NAMED = 5
NAMES = {"leave_one_out": "leave-one-out", "integrated_gradients": "integrated gradients"}
WHY_NOT = {
    "not better than random": "not shown to be better than random: removing words in the order of "
    "this map does not lower the prediction's score significantly faster than random orders do",
    "too few words": "with so few words, no order can be shown to be better than a random one",
    "hardly moves": "the prediction's score hardly changes, whichever words are removed",
}
EXPLANATION_CAVEAT = (
    "The contribution of a word is measured for this model and this row. It says why the model "
    "predicts this, not whether the prediction is correct."
)
JOINT_CAVEAT = "the maps of all rows together are not shown to be better than random"


class MapJson(TypedDict):
    """The map of one method for a prediction, as in ``explain --json``; one of ``values`` for each
    unit."""

    values: list[float]
    naopc: float | None
    naopc_random: float | None
    sufficiency: float | None
    p: float | None
    orders: int
    worth: str


class ReasonJson(TypedDict):
    """An explained prediction of a row, as in ``explain --json``; ``maps`` by method."""

    target: str
    measure: str
    score: float
    empty: float
    maps: dict[str, MapJson]
    agreement: float | None
    probability_without: list[float] | None
    shown: bool
    worth: str


class RowJson(TypedDict):
    """One row as in ``explain --json``; only images have a ``grid``."""

    row: int
    prediction: object
    confidence: float | None
    label: object
    texts: list[str]
    units: list[str]
    spans: list[tuple[int, int, int]]
    unread_words: int
    words_a_unit: int
    because: str | None
    reasons: list[ReasonJson]
    grid: NotRequired[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ReasonView:
    """An explained prediction: the row with marked words (``shaded``), or without marks and why
    (``why_not``)."""

    target: str
    shaded: Markup
    supports: tuple[tuple[str, str, str], ...]
    against: tuple[tuple[str, str, str], ...]
    why_not: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowView:
    """A row with its explained predictions; ``because`` says why it has none."""

    place: str
    said: str
    because: str
    reasons: tuple[ReasonView, ...]
    notes: tuple[str, ...]


def strength(value: float | None, strongest: float) -> int:
    """0 for a value that is not marked, else 1, 2 or 3; negative if against the prediction."""
    if value is None or strongest <= 0:
        return 0
    level = sum(abs(value) >= share * strongest for share in STRENGTHS)
    return level if value > 0 else -level


def rank_marked(values: Sequence[float | None], sign: int) -> list[int]:
    """The positions of the marked values of this sign, largest first."""
    strongest = max((abs(v) for v in values if v is not None), default=0.0)
    levels = [strength(value, strongest) for value in values]
    marked = [place for place, level in enumerate(levels) if level * sign > 0]
    return sorted(marked, key=lambda place: -abs(values[place] or 0.0))


def explanation_answer(document: Mapping[str, Any]) -> str:
    """The result of the explanation in one sentence."""
    reasons = [one for row in document["rows"] for one in row["reasons"]]
    shown = sum(bool(one["shown"]) for one in reasons)
    if not reasons:
        empty = any("generates no text" in str(row["because"]) for row in document["rows"])
        why = "the generated text is empty" if empty else "the rows contain no text"
        return f"Nothing was explained: {why}."
    if _untested(document):
        return f"No words are marked: {WHY_NOT['too few words']}."
    if not document["worth_showing"] or not shown:
        return "No words are marked: the explanations are not shown to be better than random."
    of = count_phrase(len(reasons), "prediction")
    if shown == len(reasons):
        every = "all " if shown > 1 else ""
        return f"The words that support the prediction are marked for {every}{of}."
    return (
        f"The words that support the prediction are marked for {shown} of {of}. The other maps are "
        "not shown to be better than random, or have too little effect."
    )


def _untested(document: Mapping[str, Any]) -> bool:
    """Whether every row has too few words for a test."""
    reasons = [one for row in document["rows"] for one in row["reasons"]]
    return bool(reasons) and all(one["worth"] == "too few words" for one in reasons)


def render_explained(document: Mapping[str, Any], pictures: Sequence[str | None] = ()) -> str:
    """A self-contained page from the JSON of ``explain --json``; ``pictures`` are thumbnails of the
    rows as data URIs. The same explanation gives the same bytes."""
    words = Glossary()
    rows = [
        _row_view(document, row, pictures[place] if place < len(pictures) else None)
        for place, row in enumerate(document["rows"])
    ]
    trusted = Document(
        (Items(tuple(summary_lines(document))), Passage(EXPLANATION_CAVEAT, "remark"))
    )
    sections = [
        PagePart("explained", "Explanations by row", rows),
        PagePart("trusted", "Faithfulness of the explanations", trusted),
    ]
    return standalone(
        _headline(document),
        sections,
        words,
        str(document["task"]),
        more_style="explained.css",
        pictures=any(pictures),
    )


def row_view(document: Mapping[str, Any], picture: str | None = None) -> RowView:
    """The first row of the JSON of ``explain --json``, for its template."""
    return _row_view(document, document["rows"][0], picture)


def why_not(document: Mapping[str, object], reason: ReasonJson) -> str:
    """Why no word is marked; empty where words are marked."""
    if reason["shown"]:
        return ""
    worth = str(reason["worth"])
    if worth in WHY_NOT:
        return WHY_NOT[worth]
    return worth if document["worth_showing"] else JOINT_CAVEAT


def faithfulness_line(reason: ReasonJson) -> str:
    """The faithfulness of the map that is shown, as one line."""
    first = next(iter(reason["maps"].values()))
    if first["naopc"] is None:
        return "all orders of its words have the same effect"
    line = f"faithfulness {first['naopc']:.2f} of 1, random order {first['naopc_random']:.2f}"
    line += f" (p{NBSP}={NBSP}{first['p']:.2g})"
    if reason["agreement"] is not None:
        line += f"; rank correlation of the two methods {signed(reason['agreement'], '+.2f')}"
    return line


def _method_title(method: str) -> str:
    name = NAMES.get(method, method)
    return f"{name[:1].upper()}{name[1:]}"


def summary_lines(document: Mapping[str, Any]) -> list[str]:
    """The faithfulness of all maps, the false alarm rate and the cost; empty without maps."""
    if not any(row["reasons"] for row in document["rows"]):
        return []
    lines = []
    for method, one in document["faithfulness"].items():
        if not one["n"]:
            lines.append(f"{_method_title(method)}: no row has enough words for a test.")
            continue
        line = (
            f"{_method_title(method)}: {one['better_than_random']} of {one['n']} maps are better "
            "than random"
        )
        if one["n"] > 1 and one["naopc"] is not None:
            gap = one["difference"]
            line += (
                f"; mean faithfulness {one['naopc']:.2f}, random order {one['naopc_random']:.2f}"
            )
            if gap["low"] is not None:
                line += (
                    f" (difference {signed(gap['value'], '+.2f')}, 95 % CI "
                    f"{signed(gap['low'], '+.2f')} to "
                    f"{signed(gap['high'], '+.2f')})"
                )
            line += f", p = {one['p']:.2g} for all rows together (permutation test)"
        if one["rows_to_settle"]:
            line += f"; {about(one['rows_to_settle'])} rows like these would decide it"
        lines.append(line + ".")
    if document["agreement"] is not None:
        lines.append(
            "Median rank correlation of the two methods' word rankings: "
            f"{signed(document['agreement'], '+.2f')}."
        )
    alarms = document["false_alarms"]
    lines.append(
        f"False alarms: a map of random numbers passed this test in {100 * alarms['share']:.1f} % "
        f"of {alarms['of']:,} cases."
    )
    passes = document["passes"]
    lines.append(
        f"Cost: {passes['forward']:,} forward passes, {passes['backward']:,} of them with a "
        f"backward pass. How a word is removed: {document['taken_away']}."
    )
    return lines


def _headline(document: Mapping[str, Any]) -> HeadlineView:
    shown = any(one["shown"] for row in document["rows"] for one in row["reasons"])
    tone = "good" if shown else "unsure"
    facts = [("Rows", f"{document['n']:,}"), ("Task", str(document["task"]))]
    if document["not_explained"]:
        facts.append(("Not explained", f"{document['not_explained']:,} more rows"))
    return HeadlineView(
        title=str(document["source"]),
        tone=tone,
        tone_word="Faithfulness test",
        label="better than random"
        if shown
        else "not tested"
        if _untested(document)
        else "not shown to be better than random",
        sentence=explanation_answer(document),
        because="Words are marked only where removing them, strongest first, lowers the "
        "prediction's score faster than removing words in random order.",
        facts=tuple(facts),
    )


def _row_view(document: Mapping[str, Any], row: RowJson, picture: str | None) -> RowView:
    return RowView(
        f"Row {row['row']:,}",
        prediction_text(row),
        str(row["because"] or ""),
        tuple(_reason_view(document, row, one, picture) for one in row["reasons"]),
        tuple(row_notes(row)),
    )


def prediction_text(row: RowJson) -> str:
    """The prediction, its confidence, and the label where the row has one."""
    prediction = row["prediction"]
    if isinstance(prediction, float):
        prediction = f"{prediction:.4g}"
    if isinstance(prediction, list):
        prediction = " ".join(map(str, prediction)) or "no label"
    text = "" if prediction is None else str(prediction)
    if row["confidence"] is not None:
        text += f" ({100 * row['confidence']:.0f} %)"
    if row["label"] not in (None, ""):
        text += f", labelled {row['label']}"
    return text


def row_notes(row: RowJson) -> list[str]:
    """Notes on words of a row that were not read or were joined."""
    notes = []
    if row["unread_words"]:
        words = count_phrase(row["unread_words"], "word")
        notes.append(f"{words} beyond the model's maximum length were not read or explained")
    if row["words_a_unit"] > 1:
        notes.append(f"long text: {row['words_a_unit']} neighbouring words form one unit")
    return notes


def _reason_view(
    document: Mapping[str, Any], row: RowJson, reason: ReasonJson, picture: str | None
) -> ReasonView:
    values = next(iter(reason["maps"].values()))["values"]
    levels = [0] * len(values)
    if reason["shown"]:
        top = max(abs(value) for value in values)
        levels = [strength(value, top) for value in values]
    shaded = _marked_grid(row, levels, picture) if "grid" in row else _marked_text(row, levels)
    details = [
        f"{reason['measure']} {signed(reason['score'], '+.2f')}; with all words removed "
        f"{signed(reason['empty'], '+.2f')}"
    ]
    for method, one in reason["maps"].items():
        if one["naopc"] is not None:
            details.append(
                f"{NAMES.get(method, method)}: faithfulness {one['naopc']:.2f}, random order "
                f"{one['naopc_random']:.2f}, reversed order {one['sufficiency']:.2f}, "
                f"p = {one['p']:.2g} (permutation test, {one['orders']} orders): {one['worth']}"
            )
    supports, against = (
        tuple(marked_words(row, reason, sign)[:MAX_WORDS_NAMED]) if reason["shown"] else ()
        for sign in (1, -1)
    )
    return ReasonView(
        str(reason["target"]), shaded, supports, against, why_not(document, reason), tuple(details)
    )


def marked_words(row: RowJson, reason: ReasonJson, sign: int) -> list[tuple[str, str, str]]:
    """The marked words of a sign: the word, its contribution, and the probability without it."""
    values = next(iter(reason["maps"].values()))["values"]
    without = reason["probability_without"]
    return [
        (
            row["units"][place],
            signed(values[place], "+.2f"),
            "" if without is None else f"{100 * without[place]:.0f} %",
        )
        for place in rank_marked(values, sign)
    ]


def _marked_text(row: RowJson, levels: Sequence[int]) -> Markup:
    """The texts, with an element around each marked word."""
    parts = []
    for number, text in enumerate(row["texts"]):
        at, pieces = 0, []
        for (part, start, stop), level in zip(row["spans"], levels, strict=True):
            if part != number:
                continue
            pieces.append(str(escape(text[at:start])))
            word = escape(text[start:stop])
            if level:
                direction = "for" if level > 0 else "against"
                pieces.append(f'<span class="{direction} s{abs(level)}">{word}</span>')
            else:
                pieces.append(str(word))
            at = stop
        parts.append("".join(pieces) + str(escape(text[at:])))
    return Markup("<br>".join(parts))


def _marked_grid(row: RowJson, levels: Sequence[int], picture: str | None) -> Markup:
    """A thumbnail of the image with the marked squares drawn over it."""
    down, across = row["grid"]
    size = 160
    high, wide = size / down, size / across
    squares = []
    for place, level in enumerate(levels):
        if level:
            direction = "for" if level > 0 else "against"
            x, y = (place % across) * wide, (place // across) * high
            squares.append(
                f'<rect class="{direction} s{abs(level)}" x="{x:.1f}" y="{y:.1f}" '
                f'width="{wide:.1f}" height="{high:.1f}"/>'
            )
    image = ""
    if picture:
        image = f'<image href="{escape(picture)}" width="{size}" height="{size}" \
preserveAspectRatio="none"/>'
    return Markup(
        f'<svg class="squares" viewBox="0 0 {size} {size}" width="{size}" height="{size}" '
        f'role="img" aria-label="The image with its marked squares">{image}{"".join(squares)}'
        "</svg>"
    )
