"""SVG elements, scales and ticks, shared by all charts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDE = 768
NARROW = 340
SIZES = (("wide", WIDE), ("narrow", NARROW))


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An SVG element, everything escaped. ``class_`` becomes ``class``; other underscores in an
    attribute name become hyphens; ``None`` leaves the attribute out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(Markup(key.rstrip("_").replace("_", "-")), _number(value))
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inner)


def line(x1: float, x2: float, y1: float, y2: float, style: str) -> Markup:
    """A straight line from (x1, y1) to (x2, y2)."""
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=style)


def tick(label: str, x: float, y: float, anchor: str | None = None) -> Markup:
    """The text of an axis."""
    return element("text", label, x=x, y=y, class_="tick", text_anchor=anchor)


def mark(
    words: str,
    x: float,
    y: float,
    *parts: str,
    style: str = "mark",
    tab: str | None = "0",
    between: str = ", ",
) -> Markup:
    """An element with a tooltip at (x, y): its ``parts``, and ``words`` with a value on each line,
    which screen readers read joined by ``between``. With ``tab`` 0 the Tab key reaches it."""
    return element(
        "g",
        element("title", words),
        *parts,
        class_=f"hit {style}",
        role="img",
        tabindex=tab,
        aria_label=words.replace("\n", between),
        data_x=x,
        data_y=y,
    )


def svg_drawing(
    key: str, size: str, width: float, height: float, title: str, about: str, *children: str
) -> Markup:
    """The SVG root: a group with title and description, which scales down but never up."""
    name, text = f"{key}-{size}-title", f"{key}-{size}-desc"
    return element(
        "svg",
        element("title", title, id=name),
        element("desc", about, id=text),
        *children,
        class_=f"chart {size}",
        viewBox=f"0 0 {_number(width)} {_number(height)}",
        role="group",
        aria_labelledby=name,
        aria_describedby=text,
        width=width,
        height=height,
    )


@dataclass(frozen=True, slots=True)
class AxisScale:
    """A linear map from values [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 × a power of ten apart) that cover [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else [0.0]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    # 0.3 ÷ 0.1 is 2.9999999999999996: rounding must not cost a tick.
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def integer_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round integers inside [low, high], for steps and counts."""
    inside = [t for t in ticks(low, high, count) if low <= t <= high and t == int(t)]
    return inside or [low]


def tick_labels(values: Sequence[float], percent: bool = False) -> list[str]:
    """Labels with the fewest decimals that tell the ticks apart."""
    shown = [100 * v for v in values] if percent else list(values)
    gap = min((abs(b - a) for a, b in itertools.pairwise(shown)), default=1.0) or 1.0
    if max((abs(v) for v in shown), default=0) >= 1e6:
        return [f"{v:.0e}".replace("e+0", "e").replace("e+", "e") for v in shown]
    decimals = max(0, -math.floor(math.log10(gap) + 1e-9))
    unit = "\u00a0%" if percent else ""
    return [f"{v:,.{decimals}f}".replace("-", "\u2212") + unit for v in shown]


def _number(value: str | float) -> str:
    if isinstance(value, str):
        return value
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    # −0.001 would round to −0.
    return "0" if text == "-0" else text
