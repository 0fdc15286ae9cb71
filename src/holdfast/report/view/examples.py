"""Row by row: the data map of the training rows, and those to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from holdfast.report.charts.scatter import PointMark, scatter
from holdfast.report.numbers import count, number, plural
from holdfast.report.run_files import RunFiles

if TYPE_CHECKING:
    from holdfast.report.run_files import ExampleRow


MOST_MARKS = 1500
# Rows of which fewer than this share were seen often enough are not drawn: the picture would show
# how training began, not what the rows are like.
LEAST_CLEAR = 0.5
LISTED = 12
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
        chart=scatter([_mark(line) for line in shown], about),
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


def _mark(line: ExampleRow) -> PointMark:
    words = (
        f"Row {line['row']}"
        + (f", {line['label']}" if line["label"] is not None else "")
        + f"\n{line['kind']}: {WORDS[line['kind']]}"
        f"\nconfidence {number(line['confidence'], 'confidence')}"
        f"\nvariability {number(line['variability'], '')}"
    )
    return PointMark(line["variability"], line["confidence"], line["kind"], words)


def _line(line: ExampleRow) -> tuple[str, str, str, str, str]:
    return (
        count(line["row"]),
        "–" if line["label"] is None else str(line["label"]),
        f"{line['kind']}: {WORDS[line['kind']]}",
        number(line["confidence"], "confidence"),
        number(line["aum"], ""),
    )
