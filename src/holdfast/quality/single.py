"""What checks of single texts share: which texts to read, and what finding they make of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pyarrow.compute as pc

from holdfast.core.records import Severity
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.quality.check import Check, CheckExample, CheckResult, check, result, with_texts
from holdfast.quality.personal import find_personal
from holdfast.quality.views import TableRows

EXAMPLES = 20
# How far beside a stretch a secret may begin or end that reaches into it.
_BEYOND = 300


def matching(rows: TableRows, pattern: str) -> list[tuple[int, str]]:
    """Position in the table and text of each row looked at that a pattern of RE2 matches."""
    seen = pc.fill_null(pc.match_substring_regex(rows.sampled, pattern), False)
    places = pc.indices_nonzero(seen)
    texts = rows.sampled.take(places).to_pylist()
    return list(zip(rows.sample[places.to_numpy()].tolist(), texts, strict=True))


def reading(rows: TableRows) -> list[tuple[int, str]]:
    """Position in the table and text of every row looked at."""
    return list(zip(rows.sample.tolist(), rows.sampled.to_pylist(), strict=True))


def single_finding(
    rows: TableRows,
    found: Sequence[tuple[int, str]],
    what: str,
    remedy: str,
    severity: Severity = "warn",
    masked: Callable[[int], str] | None = None,
) -> CheckResult | None:
    """The finding of a check of single texts: ``found`` are positions with a note of what is there,
    the plainest first; ``None`` without any. Score: their share of the rows looked at.

    ``what`` follows the number of rows (``"3 rows have"`` …); ``masked`` gives the text to be shown
    of a position, where the row's own must not be.
    """
    if not found:
        return None
    ids, count = rows.ids, len(found)
    return result(
        (ids[position] for position, _ in found[:100]),
        f"{count_phrase(count, 'row')}{rows.of_sample} {has_or_have(count)} {what}, "
        f"e.g. row {ids[found[0][0]]}: {found[0][1]}",
        remedy,
        score=count / len(rows.sample),
        severity=severity,
        count=count,
        examples=(
            CheckExample(int(ids[position]), note, masked=masked(position) if masked else None)
            for position, note in found[:EXAMPLES]
        ),
    )


def text_check(
    what: str,
    remedy: str,
    *,
    cannot_see: str,
    error_rate: str,
    pattern: str = "",
    warns_from: float = 0.0,
) -> Callable[[Callable[[str], str | None]], Check[TableRows]]:
    """Make a check of a function that reads one text and gives a note of what is there, or
    ``None``: of each text, or of those that a ``pattern`` of RE2 matches. The finding is a warning
    from the share ``warns_from`` of the rows on, below it for information."""

    def register(note: Callable[[str], str | None]) -> Check[TableRows]:
        @functools.wraps(note)
        def run(rows: TableRows) -> CheckResult | None:
            texts = matching(rows, pattern) if pattern else reading(rows)
            found = [(at, said) for at, text in texts if (said := note(text)) is not None]
            warns = len(found) >= warns_from * len(rows.sample)
            return single_finding(rows, found, what, remedy, "warn" if warns else "info")

        return check(TableRows, cannot_see=cannot_see, error_rate=error_rate, holds_for=with_texts)(
            run
        )

    return register


def around(text: str, start: int, end: int, width: int = 20) -> str:
    """A stretch of a text with what stands around it, as Python would write it; personal data are
    masked before it is cut, since a part of a secret is not known for one."""
    first, last = max(0, start - width), min(len(text), end + width)
    begin = max(0, first - _BEYOND)
    parts, at = [], first
    for one in find_personal(text[begin : last + _BEYOND]):
        opens, closes = one.start + begin, one.end + begin
        if opens < last and closes > first:
            parts += [text[at:opens], f"[{one.kind.upper()}]"]
            at = closes
    shown = "".join([*parts, text[at:last]])
    return f"{'…' * (first > 0)}{shown!a}{'…' * (last < len(text))}"


def excerpt(text: str) -> str:
    """The beginning of a text in one line, as Python would write it."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else f"{flat[:59]}…")


def difference(before: str, after: str) -> str:
    """Where two texts first differ: what stands there and what would."""
    at = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    return f"{around(before, at, at + 8, 12)} → {around(after, at, at + 8, 12)}"
