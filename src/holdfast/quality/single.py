"""What checks of single texts share: which texts to read, and what finding they make of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.records import Finding
from holdfast.core.wording import counted, have
from holdfast.quality.check import CheckExample, CheckResult
from holdfast.quality.personal import find_personal
from holdfast.quality.views import TableRows

EXAMPLES, SHOWN = 20, 60
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
    check: str,
    found: Sequence[tuple[int, str]],
    what: str | Callable[[str], str],
    remedy: str,
    severity: Literal["info", "warn", "error"] = "warn",
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
    told = what(have(count)) if callable(what) else f"{have(count)} {what}"
    finding = Finding(
        check,
        severity,
        count / len(rows.sample),
        count,
        tuple(int(ids[position]) for position, _ in found[:100]),
        f"{counted(count, 'row')}{rows.of_sample} {told}, e.g. row {ids[found[0][0]]}: "
        f"{found[0][1]}",
        remedy,
    )
    examples = tuple(
        CheckExample(int(ids[position]), note, masked=masked(position) if masked else None)
        for position, note in found[:EXAMPLES]
    )
    return CheckResult(finding, examples)


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


def difference(before: str, after: str) -> str:
    """Where two texts first differ: what stands there and what would."""
    at = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    return f"{around(before, at, at + 8, 12)} → {around(after, at, at + 8, 12)}"


def arrow(texts: Sequence[str]) -> pa.Array:
    """Texts as Arrow has them."""
    return pa.array(texts, pa.string())
