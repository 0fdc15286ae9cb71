"""One line on standard error that says what goes on, and how much of it is done: drawn over itself
on a terminal; elsewhere a line for each thing that is begun."""

from __future__ import annotations

import sys
import time

from holdfast.terminal.say import clock, width
from holdfast.terminal.streams import notify

EVERY_S = 0.2
# What is over sooner needs no words where a line cannot be drawn over.
WORTH_S = 1.0


class ProgressLine:
    """``line(what, done, total)`` as often as you like, then ``close``."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._drawn = not quiet and sys.stderr.isatty()
        self._what, self._since, self._last, self._said = "", 0.0, 0.0, ""

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._since, self._last = what, now, 0.0
        if self._quiet or now - self._last < EVERY_S:
            return
        self._last = now
        spent = now - self._since
        if self._drawn:
            share = f" {done:,} of {total:,}" if done is not None and total else ""
            left = f", {clock(spent * (total - done) / done)} left" if done and total else ""
            text = f"  {what}{share}{left if spent > WORTH_S else ''} …"
            notify("\r\x1b[K" + text[: width()])
        elif self._said != what and total and spent > WORTH_S:
            self._said = what
            notify(f"  {what}: {total:,}\n")

    def close(self) -> None:
        """Take the line away."""
        if self._drawn:
            notify("\r\x1b[K")
