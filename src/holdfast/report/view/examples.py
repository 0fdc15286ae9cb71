"""Row by row: the data map of the training rows, and those to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from holdfast.report.charts.svg import (
    SIZES,
    AxisScale,
    drawing,
    element,
    line,
    mark,
    tick,
    tick_labels,
    ticks,
)
from holdfast.report.numbers import count, number, plural
from holdfast.report.run_files import RunFiles

if TYPE_CHECKING:
    from holdfast.report.run_files import ExampleRow


MOST_MARKS = 1500
# Rows of which fewer than this share were seen often enough are not drawn: the picture would show
# how training began, not what the rows are like.
LEAST_CLEAR = 0.5
LISTED = 12
# Half the range of a probability: no standard deviation of one is larger.
MOST_SPREAD = 0.5
WORDS = {
    "easy": "right, and sure on average",
    "memorized": "right at the end, learnt late",
    "relearned": "right at the end, forgotten on the way",
    "forgotten": "wrong at the end, right before",
    "unlearnable": "never right",
    "unclear": "seen too seldom",
}
SUSPECT = ("unlearnable", "forgotten", "memorized", "relearned")


@dataclass(frozen=True, slots=True)
class DataMapView:
    """``kinds`` are (style, name, what it means, rows); ``rows`` the first to look at: the row, its
    label, its kind, confidence and margin."""

    sentence: str
    chart: Markup
    kinds: tuple[tuple[str, str, str, str], ...]
    rows: tuple[tuple[str, str, str, str, str], ...]
    left_out: str


def data_map(run: RunFiles) -> DataMapView | None:
    """``None`` where the run kept no history of its rows."""
    seen = [line for line in run.examples if line["split"] == "train" and line["passes"]]
    if not seen:
        return None
    tally = Counter(line["kind"] for line in seen)
    if len(seen) - tally["unclear"] < LEAST_CLEAR * len(seen):
        return DataMapView(_too_seldom(seen, tally["unclear"]), Markup(""), (), (), "")
    seen = [line for line in seen if line["kind"] != "unclear"]
    unclear = tally.pop("unclear", 0)
    shown = _sample(seen)
    kinds = tuple(
        (kind, kind, words, count(tally[kind])) for kind, words in WORDS.items() if tally[kind]
    )
    left = len(seen) - len(shown)
    rows = len(seen)
    suspects = [f"{count(tally[kind])} {kind}" for kind in SUSPECT if tally.get(kind)]
    odd = ", ".join(suspects) if suspects else "none that was memorized, forgotten or never learnt"
    about = "; ".join(f"{kind} ({WORDS[kind]}): {n}" for kind, n in tally.items())
    return DataMapView(
        sentence=f"Of {plural(rows, 'training row')}: {odd}." + _left_out(unclear),
        chart=_map(shown, about),
        kinds=kinds,
        rows=tuple(_line(x) for x in _suspects(seen)),
        left_out=f"{plural(left, 'row')} more are not drawn." if left else "",
    )


def _too_seldom(seen: Sequence[ExampleRow], unclear: int) -> str:
    passes = max(int(line["passes"]) for line in seen)
    return (
        f"No map is drawn: {count(unclear)} of {plural(len(seen), 'training row')} were seen in "
        f"fewer than three passes (the most were {plural(passes, 'pass', 'passes')}), and one or "
        "two say how the training began, not what a row is like. More epochs make a map."
    )


def _left_out(unclear: int) -> str:
    if not unclear:
        return ""
    rows = plural(unclear, "more row was", "more rows were")
    verb = "is" if unclear == 1 else "are"
    return f" {rows} seen in fewer than three passes and {verb} left out."


def _sample(seen: Sequence[ExampleRow]) -> Sequence[ExampleRow]:
    """Every row that is not easy, and evenly spaced easy ones, up to the most that are drawn."""
    if len(seen) <= MOST_MARKS:
        return seen
    odd = [line for line in seen if line["kind"] != "easy"][:MOST_MARKS]
    easy = [line for line in seen if line["kind"] == "easy"]
    room = MOST_MARKS - len(odd)
    step = max(1, -(-len(easy) // max(1, room)))
    return [*easy[::step][:room], *odd]


def _suspects(seen: Sequence[ExampleRow]) -> list[ExampleRow]:
    """The rows that most deserve a look: the lowest margin, or the least sure where none is."""
    odd = [line for line in seen if line["kind"] in SUSPECT]
    return sorted(
        odd,
        key=lambda x: (
            x["aum"] if x["aum"] is not None else x["confidence"],
            x["confidence"],
            x["row"],
        ),
    )[:LISTED]


def _line(line: ExampleRow) -> tuple[str, str, str, str, str]:
    return (
        count(line["row"]),
        "–" if line["label"] is None else str(line["label"]),
        f"{line['kind']}: {WORDS[line['kind']]}",
        number(line["confidence"], "confidence"),
        number(line["aum"], ""),
    )


def _map(rows: Sequence[ExampleRow], about: str) -> Markup:
    """Both sizes of the data map: one mark a row, how sure the model was against how much that
    changed."""
    if not rows:
        return Markup("")
    return Markup("").join(_draw(size, width, rows, about) for size, width in SIZES)


def _draw(size: str, width: float, rows: Sequence[ExampleRow], about: str) -> Markup:
    height = 380.0 if size == "wide" else 320.0
    x = AxisScale(0.0, MOST_SPREAD, 56.0, width - 14.0)
    y = AxisScale(0.0, 1.0, height - 44.0, 34.0)
    parts = [_axes(x, y), *(_point(row, x, y) for row in rows)]
    return drawing("data-map", size, width, height, "Data map", about, *parts)


def _axes(x: AxisScale, y: AxisScale) -> Markup:
    parts = []
    for at, label in zip(ticks(0, 1), tick_labels(ticks(0, 1), True), strict=True):
        parts += [
            line(x.start, x.end, y(at), y(at), "grid"),
            tick(label, x.start - 7, y(at) + 4, "end"),
        ]
    for at, label in zip(ticks(0, MOST_SPREAD), tick_labels(ticks(0, MOST_SPREAD)), strict=True):
        parts.append(tick(label, x(at), y.start + 18, "middle"))
    parts.append(tick("variability →", x.end, y.start + 38, "end"))
    parts.append(tick("↑ confidence", x.start, y.end - 16))
    return element("g", *parts, aria_hidden="true")


def _point(row: ExampleRow, x: AxisScale, y: AxisScale) -> Markup:
    at, over = x(min(row["variability"], MOST_SPREAD)), y(row["confidence"])
    dot = element("circle", cx=at, cy=over, r=3.2, class_=f"dot map {row['kind']}")
    words = (
        f"Row {row['row']}"
        + (f", {row['label']}" if row["label"] is not None else "")
        + f"\n{row['kind']}: {WORDS[row['kind']]}"
        f"\nconfidence {number(row['confidence'], 'confidence')}"
        f"\nvariability {number(row['variability'], '')}"
    )
    return mark(words, at, over, dot, tab=None)
