"""The page of a run's stored predictions: one offline HTML file.

Nothing here opens a file or runs a model. The size of the page limits its rows; they are sampled
uniformly, so that the accuracy on the page is about that of all rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from holdfast._version import __version__
from holdfast.core.printable import shorten
from holdfast.core.seeds import generator
from holdfast.core.tasks import TAGGING_TASKS
from holdfast.report.glossary import Glossary
from holdfast.report.numbers import NBSP, compact, count, number
from holdfast.report.page import UNPRINTABLE, asset, content_policy, environment
from holdfast.report.view.mistakes import PICTURE

MAX_BYTES = 2_000_000
MOST_ROWS = 1_000
LONGEST_TEXT = 1_500
MAX_PROBABILITIES = 3
MIN_PROBABILITY = 0.01
# A confidence from the first value on is called high, below the second low.
HIGH_CONFIDENCE, LOW_CONFIDENCE = 0.9, 0.6
OUTSIDE_TAG = "O"


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """A row and its prediction, as the run stored them.

    ``said`` (the prediction) and ``label`` are a class, a number, a text, a list of classes, or one
    tag for each of ``words``. ``right`` is ``None`` if a prediction is neither correct nor wrong;
    ``sure`` is the confidence in [0, 1]; ``chances`` are the probabilities of the most probable
    classes; ``left`` says why the row was left to an annotator; ``start`` is the output of the base
    model; ``picture`` is a thumbnail.
    """

    row: int
    text: str
    said: Any
    label: Any
    right: bool | None = None
    sure: float | None = None
    chances: tuple[tuple[str, float], ...] = ()
    loss: float | None = None
    error: float | None = None
    left: str | None = None
    start: str | None = None
    words: tuple[str, ...] = ()
    picture: str = ""


@dataclass(frozen=True, slots=True)
class RecordedPredictions:
    """The data of the page.

    ``rows`` are the rows that may be shown, out of ``of`` rows of the split ``side``. If some are
    missing, ``which`` says which rows these are, and ``chosen`` whether they were selected as the
    hardest. ``carried`` are the words that were confirmed to carry a class; ``writes`` marks
    generative models, which have references instead of labels; ``score`` is the score of the run
    with its interval, where predictions are correct or wrong.
    """

    task: str
    model: str
    source: str
    side: str
    rows: tuple[RecordedRow, ...]
    of: int
    classes: tuple[str, ...] = ()
    carried: Mapping[str, Sequence[str]] | None = None
    created: str = ""
    which: str = ""
    chosen: bool = False
    seed: int = 0
    writes: bool = False
    score: str = ""


@dataclass(frozen=True, slots=True)
class PageRow:
    """A row as the template needs it."""

    row: str
    text: Markup
    picture: str
    said: str
    label: str
    verdict: str
    sure: str
    level: str
    order: tuple[str, str]
    chances: tuple[tuple[str, str, str], ...]
    left: str
    start: str
    error: str


@dataclass(frozen=True, slots=True)
class PredictionsPage:
    """The page, and how many rows it shows out of how many."""

    html: str
    rows: int
    of: int


def render_predictions(predictions: RecordedPredictions) -> PredictionsPage:
    """The page with as many rows as fit ``MAX_BYTES``, at most ``MOST_ROWS``, sampled uniformly.
    The same run gives the same bytes."""
    order = generator(predictions.seed, "page of recorded answers").permutation(
        len(predictions.rows)
    )
    rows = [predictions.rows[place] for place in order[:MOST_ROWS]]
    while True:
        html = _render(predictions, rows)
        size = len(html.encode())
        if size <= MAX_BYTES or len(rows) <= 1:
            return PredictionsPage(html, len(rows), predictions.of)
        rows = rows[: max(1, int(0.95 * len(rows) * MAX_BYTES / size))]


def _render(predictions: RecordedPredictions, rows: Sequence[RecordedRow]) -> str:
    words = Glossary()
    examples = [_page_row(predictions, one) for one in rows]
    style = Markup(asset("report.css") + "\n" + asset("recorded.css"))
    script = asset("recorded.js")
    page = (
        environment(words)
        .get_template("recorded.html.j2")
        .render(
            recorded=predictions,
            examples=examples,
            top=_sentence(predictions, rows),
            classes=_classes(predictions, rows),
            judged=any(one.right is not None for one in rows),
            certain=any(one.sure is not None for one in rows),
            marked=any("<mark>" in one.text for one in examples),
            sure=f"{100 * HIGH_CONFIDENCE:.0f}{NBSP}%",
            unsure=f"{100 * LOW_CONFIDENCE:.0f}{NBSP}%",
            style=style,
            script=script,
            policy=content_policy(style, script, any(one.picture for one in examples)),
            version=__version__,
        )
    )
    return page.translate(UNPRINTABLE)


def _sentence(predictions: RecordedPredictions, rows: Sequence[RecordedRow]) -> str:
    shown, every = count(len(rows)), count(predictions.of)
    of = f"all {every}" if len(rows) == predictions.of else f"{shown} of {every}"
    drawn = "" if len(rows) == len(predictions.rows) else ", sampled uniformly"
    which = f", {predictions.which}" if predictions.which else ""
    judged = [one.right for one in rows if one.right is not None]
    share = ""
    if judged and not predictions.chosen:
        share = f" Accuracy on them: {100 * sum(judged) / len(judged):.0f}{NBSP}%."
    return f"Predictions for {of} {predictions.side} rows{which}{drawn}.{share}"


def _classes(predictions: RecordedPredictions, rows: Sequence[RecordedRow]) -> list[str]:
    if predictions.task in TAGGING_TASKS:
        tags = {tag for one in rows for tag in (*one.label, *one.said)} - {OUTSIDE_TAG}
        return sorted({tag.partition("-")[2] or tag for tag in tags} - {""})
    names = {name for one in rows for name in (*_names(one.label), *_names(one.said))}
    return [name for name in predictions.classes if name in names]


def _names(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _page_row(predictions: RecordedPredictions, one: RecordedRow) -> PageRow:
    tagged, carried = bool(one.words), predictions.carried or {}
    carriers = [word for name in _names(one.said) for word in carried.get(name, ())]
    confidence = level = ""
    if one.sure is not None:
        confidence = number(one.sure, "confidence")
        level = (
            "sure"
            if one.sure >= HIGH_CONFIDENCE
            else "unsure"
            if one.sure < LOW_CONFIDENCE
            else "between"
        )
    return PageRow(
        row=str(one.row),
        text=_tagged_text(one) if tagged else _highlight(shorten(one.text, LONGEST_TEXT), carriers),
        picture=one.picture if one.picture.startswith(PICTURE) else "",
        said="" if tagged else _value_text(one.said),
        label="" if tagged else _value_text(one.label),
        verdict="" if one.right is None else "right" if one.right else "wrong",
        sure=confidence,
        level=level,
        order=(_key(one.sure), _key(one.error if one.loss is None else one.loss)),
        chances=tuple(
            (name, f"{p:.4f}", number(p, "confidence"))
            for name, p in one.chances[:MAX_PROBABILITIES]
            if p >= MIN_PROBABILITY
        ),
        left=one.left or "",
        start=shorten(one.start or "", LONGEST_TEXT),
        error="" if one.error is None else compact(one.error),
    )


def _key(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _value_text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return compact(value) if isinstance(value, float) else shorten(str(value), LONGEST_TEXT)


def _highlight(text: str, words: Sequence[str]) -> Markup:
    """``text`` escaped, with each of ``words`` in a ``<mark>``, as whole words in any case."""
    if not words:
        return escape(text)
    # The longest first, since one may be the beginning of another.
    ordered = sorted(set(words), key=lambda word: (-len(word), word))
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)", re.IGNORECASE)
    parts, end = [], 0
    for match in pattern.finditer(text):
        parts += [escape(text[end : match.start()]), Markup("<mark>{}</mark>").format(match[0])]
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def _tagged_text(one: RecordedRow) -> Markup:
    """The words, each with its predicted tag, and the label where it differs."""
    parts = []
    for word, predicted, label in zip(one.words, one.said, one.label, strict=False):
        if predicted == label == OUTSIDE_TAG:
            parts.append(escape(word))
            continue
        outcome = "right" if predicted == label else "wrong"
        parts.append(
            Markup('<span class="tag is-{}">{} <small>{}{}</small></span>').format(
                outcome, word, predicted, "" if predicted == label else f", labelled {label}"
            )
        )
    return Markup(" ").join(parts)
