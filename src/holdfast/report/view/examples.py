"""The section "Data map of the training rows", and the rows to check first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from holdfast.report.charts.svg import (
    SIZES,
    AxisScale,
    element,
    line,
    mark,
    svg_drawing,
    tick,
    tick_labels,
    ticks,
)
from holdfast.report.numbers import count, number, plural
from holdfast.report.run_files import RunFiles

if TYPE_CHECKING:
    from holdfast.report.run_files import ExampleRow


MAX_MARKS = 1500
# Without this share of rows seen in three epochs no map is drawn: it would show how training began,
# not what the rows are like.
MIN_CLEAR_SHARE = 0.5
MAX_SUSPECTS = 12
# Half the range of a probability: no standard deviation of one is larger.
MAX_VARIABILITY = 0.5
TYPE_MEANINGS = {
    "easy": "correct, with high confidence on average",
    "memorized": "correct at the end, with low confidence on average",
    "relearned": "correct at the end, forgotten in between",
    "forgotten": "wrong at the end, correct before",
    "unlearnable": "never correct",
    "unclear": "seen in too few epochs",
}
# Not called memorized for readers: the memorization test measures something else.
TYPE_NAMES = {**{name: name for name in TYPE_MEANINGS}, "memorized": "learned late"}
SUSPECT_TYPES = ("unlearnable", "forgotten", "memorized", "relearned")


@dataclass(frozen=True, slots=True)
class DataMapView:
    """``types`` are (style, name, meaning, rows); ``rows`` those to check first: row, label, type,
    confidence and margin."""

    sentence: str
    chart: Markup
    types: tuple[tuple[str, str, str, str], ...]
    rows: tuple[tuple[str, str, str, str, str], ...]
    left_out: str


def data_map(run: RunFiles) -> DataMapView | None:
    """``None`` where the run stored no history of its rows."""
    mapped = [line for line in run.examples if line["split"] == "train" and line["passes"]]
    if not mapped:
        return None
    tally = Counter(line["kind"] for line in mapped)
    if len(mapped) - tally["unclear"] < MIN_CLEAR_SHARE * len(mapped):
        return DataMapView(_too_few_passes(mapped, tally["unclear"]), Markup(""), (), (), "")
    mapped = [line for line in mapped if line["kind"] != "unclear"]
    unclear = tally.pop("unclear", 0)
    shown = _sample(mapped)
    kinds = tuple(
        (example_type, TYPE_NAMES[example_type], words, count(tally[example_type]))
        for example_type, words in TYPE_MEANINGS.items()
        if tally[example_type]
    )
    not_drawn = len(mapped) - len(shown)
    rows = len(mapped)
    suspects = [
        f"{count(tally[example_type])} {TYPE_NAMES[example_type]}"
        for example_type in SUSPECT_TYPES
        if tally.get(example_type)
    ]
    suspects_text = (
        ", ".join(suspects)
        if suspects
        else "none that was learned late, forgotten or never learned"
    )
    about = "; ".join(
        f"{TYPE_NAMES[example_type]} ({TYPE_MEANINGS[example_type]}): {n}"
        for example_type, n in tally.items()
    )
    return DataMapView(
        sentence=f"Of {plural(rows, 'training row')}: {suspects_text}." + _left_out(unclear),
        chart=_map(shown, about),
        types=kinds,
        rows=tuple(_line(x) for x in _suspects(mapped)),
        left_out=f"{plural(not_drawn, 'more row')} not drawn." if not_drawn else "",
    )


def _too_few_passes(rows: Sequence[ExampleRow], unclear: int) -> str:
    passes = max(int(line["passes"]) for line in rows)
    return (
        f"No data map: {count(unclear)} of {plural(len(rows), 'training row')} were seen in fewer "
        f"than three epochs (at most {plural(passes, 'epoch')}). One or two epochs show how the "
        "training began, not what a row is like. Train for more epochs to get a map."
    )


def _left_out(unclear: int) -> str:
    if not unclear:
        return ""
    rows = plural(unclear, "more row was", "more rows were")
    verb = "is" if unclear == 1 else "are"
    return f" {rows} seen in fewer than three epochs and {verb} left out."


def _sample(rows: Sequence[ExampleRow]) -> Sequence[ExampleRow]:
    """Every row that is not easy, and evenly spaced easy rows, up to ``MAX_MARKS``."""
    if len(rows) <= MAX_MARKS:
        return rows
    not_easy = [line for line in rows if line["kind"] != "easy"][:MAX_MARKS]
    easy = [line for line in rows if line["kind"] == "easy"]
    easy_places = MAX_MARKS - len(not_easy)
    step = max(1, -(-len(easy) // max(1, easy_places)))
    return [*easy[::step][:easy_places], *not_easy]


def _suspects(rows: Sequence[ExampleRow]) -> list[ExampleRow]:
    """The rows that most deserve a look: the lowest margin, or the least sure where none is."""
    suspects = [line for line in rows if line["kind"] in SUSPECT_TYPES]
    return sorted(
        suspects,
        key=lambda x: (
            x["aum"] if x["aum"] is not None else x["confidence"],
            x["confidence"],
            x["row"],
        ),
    )[:MAX_SUSPECTS]


def _line(line: ExampleRow) -> tuple[str, str, str, str, str]:
    return (
        count(line["row"]),
        "–" if line["label"] is None else str(line["label"]),
        f"{TYPE_NAMES[line['kind']]}: {TYPE_MEANINGS[line['kind']]}",
        number(line["confidence"], "confidence"),
        number(line["aum"], ""),
    )


def _map(rows: Sequence[ExampleRow], about: str) -> Markup:
    """The data map in both sizes: one mark for each row, mean confidence against variability."""
    if not rows:
        return Markup("")
    return Markup("").join(_draw(size, width, rows, about) for size, width in SIZES)


def _draw(size: str, width: float, rows: Sequence[ExampleRow], about: str) -> Markup:
    height = 380.0 if size == "wide" else 320.0
    x = AxisScale(0.0, MAX_VARIABILITY, 56.0, width - 14.0)
    y = AxisScale(0.0, 1.0, height - 44.0, 34.0)
    parts = [_axes(x, y), *(_point(row, x, y) for row in rows)]
    return svg_drawing("data-map", size, width, height, "Data map", about, *parts)


def _axes(x: AxisScale, y: AxisScale) -> Markup:
    parts = []
    for at, label in zip(ticks(0, 1), tick_labels(ticks(0, 1), True), strict=True):
        parts += [
            line(x.start, x.end, y(at), y(at), "grid"),
            tick(label, x.start - 7, y(at) + 4, "end"),
        ]
    for at, label in zip(
        ticks(0, MAX_VARIABILITY), tick_labels(ticks(0, MAX_VARIABILITY)), strict=True
    ):
        parts.append(tick(label, x(at), y.start + 18, "middle"))
    parts.append(tick("variability →", x.end, y.start + 38, "end"))
    parts.append(tick("↑ confidence", x.start, y.end - 16))
    return element("g", *parts, aria_hidden="true")


def _point(row: ExampleRow, x: AxisScale, y: AxisScale) -> Markup:
    at, over = x(min(row["variability"], MAX_VARIABILITY)), y(row["confidence"])
    dot = element("circle", cx=at, cy=over, r=3.2, class_=f"dot map {row['kind']}")
    words = (
        f"Row {row['row']}"
        + (f", {row['label']}" if row["label"] is not None else "")
        + f"\n{TYPE_NAMES[row['kind']]}: {TYPE_MEANINGS[row['kind']]}"
        f"\nconfidence {number(row['confidence'], 'confidence')}"
        f"\nvariability {number(row['variability'], '')}"
    )
    return mark(words, at, over, dot, tab=None)
