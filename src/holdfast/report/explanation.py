"""The page of ``holdfast explain``, made of the JSON that it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from markupsafe import Markup, escape

from holdfast.core.wording import count_phrase
from holdfast.report.document import Document, Items, Passage
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import NBSP
from holdfast.report.page import standalone
from holdfast.report.section import PagePart
from holdfast.report.view.headline import TONES, Headline

# From which share of a row's strongest value on a word is marked faintly, clearly, strongly.
STRENGTHS = (0.1, 1 / 3, 2 / 3)
MAX_WORDS_NAMED = 5
NAMES = {"leave_one_out": "leave-one-out", "integrated_gradients": "integrated gradients"}
WHY_NOT = {
    "not better than random": "taking words away in this map's order lowers the answer no faster "
    "than taking them away at random",
    "too few words": "of so few words no order can be told from a random one",
    "hardly moves": "the answer hardly changes whatever words are taken away",
}
EXPLANATION_CAVEAT = (
    "What a word adds is measured on this model and this row. It says why the model answers so, "
    "not whether it should."
)
JOINT_CAVEAT = "the maps of all rows together are not better than random"


class MapJson(TypedDict):
    """One method's map of an answer as ``explain --json`` has it: ``values`` a unit each."""

    values: list[float]
    naopc: float | None
    naopc_random: float | None
    sufficiency: float | None
    p: float | None
    orders: int
    worth: str


class ReasonJson(TypedDict):
    """One answer of a row as ``explain --json`` has it; ``maps`` by their method."""

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
    """One row as ``explain --json`` has it; ``grid`` is that of a picture alone."""

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
    """One answer: the row with its words marked (``shaded``), or plain and why (``why_not``)."""

    target: str
    shaded: Markup
    supports: tuple[tuple[str, str, str], ...]
    against: tuple[tuple[str, str, str], ...]
    why_not: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowView:
    """A row with its answers; ``because`` where it has none."""

    place: str
    said: str
    because: str
    reasons: tuple[ReasonView, ...]
    notes: tuple[str, ...]


def strength(value: float | None, strongest: float) -> int:
    """0 where a value is not marked, then 1, 2 and 3; below 0 where it speaks against."""
    if value is None or strongest <= 0:
        return 0
    level = sum(abs(value) >= share * strongest for share in STRENGTHS)
    return level if value > 0 else -level


def rank_marked(values: Sequence[float | None], sign: int) -> list[int]:
    """The places of the values of this sign that are marked, the strongest first."""
    strongest = max((abs(v) for v in values if v is not None), default=0.0)
    levels = [strength(value, strongest) for value in values]
    marked = [place for place, level in enumerate(levels) if level * sign > 0]
    return sorted(marked, key=lambda place: -abs(values[place] or 0.0))


def explanation_answer(document: Mapping[str, Any]) -> str:
    """The whole explanation in a sentence."""
    reasons = [one for row in document["rows"] for one in row["reasons"]]
    shown = sum(bool(one["shown"]) for one in reasons)
    if not reasons:
        empty = any("generates no text" in str(row["because"]) for row in document["rows"])
        why = "what the model writes is empty" if empty else "no row has anything to read"
        return f"Nothing was explained: {why}."
    if not document["worth_showing"] or not shown:
        return "Not better than random: no words are marked."
    of = count_phrase(len(reasons), "answer")
    if shown == len(reasons):
        return f"What carries the answer is marked, for {'all ' if shown > 1 else ''}{of}."
    return f"What carries the answer is marked for {shown} of {of}; the other maps are not better \
than random, or say nothing."


def render_explained(document: Mapping[str, Any], pictures: Sequence[str | None] = ()) -> str:
    """A self-contained page of what ``explain --json`` prints; ``pictures`` are small copies of the
    rows, as data URIs. The same explanation gives the same bytes."""
    words = Glossary()
    rows = [
        _row_view(document, row, pictures[place] if place < len(pictures) else None)
        for place, row in enumerate(document["rows"])
    ]
    trusted = Document(
        (Items(tuple(summary_lines(document))), Passage(EXPLANATION_CAVEAT, "remark"))
    )
    sections = [
        PagePart("explained", "Row by row", rows),
        PagePart("trusted", "What this is worth", trusted),
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
    """The first row of what ``explain --json`` prints, as its template shows it."""
    return _row_view(document, document["rows"][0], picture)


def why_not(document: Mapping[str, object], reason: ReasonJson) -> str:
    """Why nothing is marked; empty where something is."""
    if reason["shown"]:
        return ""
    worth = str(reason["worth"])
    if worth in WHY_NOT:
        return f"{worth}: {WHY_NOT[worth]}" if worth == "not better than random" else WHY_NOT[worth]
    return f"not better than random: {JOINT_CAVEAT}" if not document["worth_showing"] else worth


def faithfulness_line(reason: ReasonJson) -> str:
    """What is known of the map that is shown, as one line."""
    first = next(iter(reason["maps"].values()))
    if first["naopc"] is None:
        return "no order of its words differs from another"
    line = f"faithfulness {first['naopc']:.2f} of 1, random orders {first['naopc_random']:.2f}"
    line += f" (p{NBSP}={NBSP}{first['p']:.2g})"
    if reason["agreement"] is not None:
        line += f"; the two methods agree {reason['agreement']:+.2f}"
    return line


def summary_lines(document: Mapping[str, Any]) -> list[str]:
    """What the maps are worth together, how often noise passes, and what it took; nothing where
    there are no maps."""
    if not any(row["reasons"] for row in document["rows"]):
        return []
    lines = []
    for method, one in document["faithfulness"].items():
        if not one["n"]:
            lines.append(f"By {NAMES.get(method, method)}: no row has words enough for a test.")
            continue
        line = (
            f"By {NAMES.get(method, method)}, {one['better_than_random']} of {one['n']} maps are \
better than random"
        )
        if one["n"] > 1 and one["naopc"] is not None:
            gap = one["difference"]
            line += f"; faithfulness {one['naopc']:.2f} against {one['naopc_random']:.2f}"
            if gap["low"] is not None:
                line += f" ({gap['value']:+.2f}, {gap['low']:+.2f} to {gap['high']:+.2f})"
            line += f", together p = {one['p']:.2g} by a permutation test"
        if one["rows_to_settle"]:
            line += f"; {one['rows_to_settle']:,} rows like these would settle it"
        lines.append(line + ".")
    if document["agreement"] is not None:
        lines.append(
            f"The two methods rank the words alike at {document['agreement']:+.2f} \
(median rank correlation)."
        )
    alarms = document["false_alarms"]
    lines.append(
        f"A map of random numbers passes this test in {100 * alarms['share']:.1f} % of "
        f"{alarms['of']:,} cases."
    )
    passes = document["passes"]
    lines.append(
        f"It took {passes['forward']:,} passes forward and {passes['backward']:,} also backward; "
        f"a word is taken away thus: {document['taken_away']}."
    )
    return lines


def _headline(document: Mapping[str, Any]) -> Headline:
    shown = any(one["shown"] for row in document["rows"] for one in row["reasons"])
    tone = "good" if shown else "unsure"
    facts = [("Rows", f"{document['n']:,}"), ("Task", str(document["task"]))]
    if document["not_explained"]:
        facts.append(("Not explained", f"{document['not_explained']:,} more rows"))
    return Headline(
        title=str(document["source"]),
        tone=tone,
        tone_word=TONES[tone],
        label="tested against random" if shown else "not better than random",
        sentence=explanation_answer(document),
        because="Words are marked only where taking them away, the strongest first, lowers the "
        "model's answer faster than taking words away in random order.",
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
    """The answer, how sure, and the label where one is given."""
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
    """What of a row was not read, or joined."""
    notes = []
    if row["unread_words"]:
        words = count_phrase(row["unread_words"], "word")
        notes.append(f"the model reads no further: {words} beyond its length are not explained")
    if row["words_a_unit"] > 1:
        notes.append(f"long: {row['words_a_unit']} neighbouring words are one part")
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
        f"{reason['measure']} {reason['score']:+.2f}; with every word taken away "
        f"{reason['empty']:+.2f}"
    ]
    for method, one in reason["maps"].items():
        if one["naopc"] is not None:
            details.append(
                f"{NAMES.get(method, method)}: faithfulness {one['naopc']:.2f}, random orders "
                f"{one['naopc_random']:.2f}, read backwards {one['sufficiency']:.2f}, "
                f"p = {one['p']:.2g} of {one['orders']} orders: {one['worth']}"
            )
    supports, against = (
        tuple(marked_words(row, reason, sign)[:MAX_WORDS_NAMED]) if reason["shown"] else ()
        for sign in (1, -1)
    )
    return ReasonView(
        str(reason["target"]), shaded, supports, against, why_not(document, reason), tuple(details)
    )


def marked_words(row: RowJson, reason: ReasonJson, sign: int) -> list[tuple[str, str, str]]:
    """The marked words of a sign: the word, what it adds, and the probability without it."""
    values = next(iter(reason["maps"].values()))["values"]
    without = reason["probability_without"]
    return [
        (
            row["units"][place],
            f"{values[place]:+.2f}",
            "" if without is None else f"{100 * without[place]:.0f} %",
        )
        for place in rank_marked(values, sign)
    ]


def _marked_text(row: RowJson, levels: Sequence[int]) -> Markup:
    """The texts as they stand, each marked word in an element of its own."""
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
    """A small copy of the picture with its squares drawn over it."""
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
        f'role="img" aria-label="The picture with its squares marked">{image}{"".join(squares)}'
        "</svg>"
    )
