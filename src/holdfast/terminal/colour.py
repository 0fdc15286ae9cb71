"""Colour on a terminal: which words of a text are highlighted, and whether the stream takes colour.

Standard library only, so that ``--help`` stays fast.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

RESET = "\x1b[0m"
BOLD, RED, GREEN, YELLOW, CYAN = (f"\x1b[{code}m" for code in (1, 31, 32, 33, 36))
# The first group of each pattern is coloured; no two patterns match the same place.
HIGHLIGHTS = tuple(
    (re.compile(pattern, re.MULTILINE), style)
    for pattern, style in (
        (r"^  Result    (.+(?:\n {12}.+)*)", BOLD),
        (r"^  Advice    (Worth using)", GREEN),
        (r"^  Advice    (Do not [a-z ]+)", RED),
        (r"^  Advice    (Inconclusive)", YELLOW),
        (r"^  Verdict   (Healthy|Still learning)", GREEN),
        (r"^  Verdict   (Diverging|Data leakage)", RED),
        (r"^  Verdict   ([A-Z][a-z ]+?)(?=[:,.])", YELLOW),
        (r"^  (Warning) ", YELLOW),
        (r"^  (Next step) ", CYAN),
        (r"^ {2,3}(!!)", RED),
        (r"^ {2,3}(!) ", YELLOW),
        (r"^(holdfast: )", BOLD),
    )
)


def takes_colour(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that shows colour: not with ``NO_COLOR`` set to anything
    (https://no-color.org), nor with ``TERM=dumb``."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # a closed stream
        return False


def coloured(text: str, stream: TextIO) -> str:
    """``text`` with its highlights, where ``stream`` takes colour; else unchanged."""
    if not takes_colour(stream):
        return text
    spans = [
        (*match.span(1), style) for pattern, style in HIGHLIGHTS for match in pattern.finditer(text)
    ]
    for start, end, style in sorted(spans, reverse=True):
        text = f"{text[:start]}{style}{text[start:end]}{RESET}{text[end:]}"
    return text
