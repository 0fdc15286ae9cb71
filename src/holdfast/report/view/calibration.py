"""The section "Calibration": accuracy by confidence, as a reliability diagram and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from holdfast.report.charts.svg import SIZES, AxisScale, element, line, mark, svg_drawing, tick
from holdfast.report.document import Cell
from holdfast.report.numbers import compact, count, estimate, metrics, number, plural
from holdfast.report.run_files import RunFiles
from holdfast.report.view.score import cell

AXIS_MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)
MAX_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Bin:
    """Test rows whose confidence lies in [low, high]: their number, mean confidence, accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class CalibrationView:
    """The diagram, its table (range, rows, confidence, accuracy), the ECE and the temperature."""

    chart: Markup
    lines: tuple[tuple[str, str, str, str], ...]
    ece: Cell
    temperature: str


def calibration(run: RunFiles) -> CalibrationView | None:
    """From ``test.reliability``; ``None`` where the run has none."""
    test = run.part("test")
    bins = [
        Bin(raw["low"], raw["high"], int(raw["n"]), raw["confidence"], raw["accuracy"])
        for raw in test.block("reliability").blocks("bins")
        if raw.get("n") and raw.get("accuracy") is not None and raw.get("confidence") is not None
    ]
    if not bins:
        return None
    temperature = run.part("model_facts").get("temperature")
    return CalibrationView(
        chart=reliability(bins),
        lines=tuple(
            (words, count(b.n), number(b.confidence, "confidence"), number(b.accuracy, "accuracy"))
            for words, b in zip(ranges([(b.low, b.high) for b in bins]), bins, strict=True)
        ),
        ece=cell(metrics(test).get("ece") or estimate(None), "ece"),
        temperature=compact(temperature) if temperature else "",
    )


def ranges(ends: Sequence[tuple[float, float]]) -> list[str]:
    """Ranges of probabilities as text, with the fewest decimals (0 to 4) that tell the ends of each
    range apart; where four do not, the range is one number."""

    def shown(decimals: int) -> list[tuple[str, str]]:
        return [(f"{100 * low:.{decimals}f}", f"{100 * high:.{decimals}f}") for low, high in ends]

    def tells_apart(pairs: list[tuple[str, str]]) -> bool:
        return all(
            (a != b) == (low != high) for (a, b), (low, high) in zip(pairs, ends, strict=True)
        )

    pairs = next(
        (p for p in map(shown, range(MAX_DECIMALS)) if tells_apart(p)), shown(MAX_DECIMALS)
    )
    return [f"{a}\u00a0%" if a == b else f"{a}–{b}\u00a0%" for a, b in pairs]


def reliability(bins: Sequence[Bin]) -> Markup:
    """The diagram in both sizes; the area of a mark shows its share of the rows. Empty without
    rows."""
    filled = [b for b in bins if b.n > 0]
    if not filled:
        return Markup("")
    return Markup("").join(_draw(size, filled) for size, _ in SIZES)


def _draw(size: str, bins: Sequence[Bin]) -> Markup:
    size_px = 400.0 if size == "wide" else 340.0
    x = AxisScale(0, 1, 52.0, size_px - 14)
    y = AxisScale(0, 1, size_px - 46, 12.0)
    rows = sum(b.n for b in bins)
    parts = [
        _grid(x, y),
        element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"),
        *(_mark(b, x, y, rows) for b in bins),
    ]
    about = "; ".join(_words(b).replace("\n", ", ") for b in bins)
    return svg_drawing("reliability", size, size_px, size_px, "Reliability diagram", about, *parts)


def _grid(x: AxisScale, y: AxisScale) -> Markup:
    parts = []
    for at in AXIS_MARKS:
        text = f"{100 * at:.0f}\u00a0%"
        parts += [
            line(x(at), x(at), y.start, y.end, "grid"),
            line(x.start, x.end, y(at), y(at), "grid"),
            tick(text, x(at), y.start + 17, "end" if at == 1 else "middle"),
            tick(text, x.start - 7, y(at) + 4, "end"),
        ]
    parts.append(tick("confidence → ", (x.start + x.end) / 2, y.start + 36, "middle"))
    parts.append(tick("↑ accuracy", x.start + 6, y.end + 14))
    return element("g", *parts, aria_hidden="true")


def _mark(b: Bin, x: AxisScale, y: AxisScale, rows: int) -> Markup:
    at, over = x(b.confidence), y(b.accuracy)
    # Readers compare areas, not radii.
    radius = 3 + 9 * (b.n / rows) ** 0.5
    dot = element("circle", cx=at, cy=over, r=radius, class_="dot bubble")
    return mark(_words(b), at, over, line(at, at, y(b.confidence), over, "miss"), dot)


def _words(b: Bin) -> str:
    return (
        f"Confidence {number(b.confidence, 'confidence')}\n"
        f"accuracy {number(b.accuracy, 'accuracy')}\n{plural(b.n, 'row')}"
    )
