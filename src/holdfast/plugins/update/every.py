"""Times on the command line (``6h``, ``1d``) and when the next round is due."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from holdfast.core.errors import RecipeError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
LONGEST = 366 * 86400.0


def seconds_of(text: str) -> float:
    """``90s``, ``30m``, ``6h``, ``1d`` or ``1w`` as seconds; raises ``RecipeError`` for others."""
    found = _TIME.fullmatch(text.strip().lower())
    seconds = float(found[1]) * UNITS[found[2]] if found else math.nan
    if not 0 < seconds <= LONGEST:
        rule = "must be a time of at most a year, a number with s, m, h, d or w"
        raise RecipeError("--every", rule, text, "E.g. --every 6h, or --every 1d.")
    return seconds


def moment(at: float) -> str:
    """A time in seconds since 1970 as a person reads it, in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
