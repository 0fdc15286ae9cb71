"""Shared by checks of single texts: which texts to read, and the finding for them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import pyarrow.compute as pc

from holdfast.core.records import Severity
from holdfast.core.wording import count_phrase, has_or_have
from holdfast.quality.check import Check, CheckExample, CheckResult, check, has_texts, result
from holdfast.quality.personal import find_personal
from holdfast.quality.views import TableRows

MAX_TEXT_EXAMPLES = 20
# How far outside an excerpt a secret that reaches into it may begin or end, in characters.
_SECRET_MARGIN = 300


def matching_texts(rows: TableRows, pattern: str) -> list[tuple[int, str]]:
    """Position in the table and text of each sampled row that an RE2 pattern matches."""
    matches = pc.fill_null(pc.match_substring_regex(rows.sampled, pattern), False)
    positions = pc.indices_nonzero(matches)
    texts = rows.sampled.take(positions).to_pylist()
    return list(zip(rows.sample[positions.to_numpy()].tolist(), texts, strict=True))


def sampled_texts(rows: TableRows) -> list[tuple[int, str]]:
    """Position in the table and text of every sampled row."""
    return list(zip(rows.sample.tolist(), rows.sampled.to_pylist(), strict=True))


def text_finding(
    rows: TableRows,
    notes: Sequence[tuple[int, str]],
    condition: str,
    remedy: str,
    severity: Severity = "warn",
    masked: Callable[[int], str] | None = None,
) -> CheckResult | None:
    """The finding of a check of single texts: ``notes`` are positions, each with a note on what
    was found, the clearest first; ``None`` without notes. Score: their share of the sampled rows.

    ``condition`` follows the number of rows (``"3 rows have"`` …); ``masked`` gives the text to
    show for a position if the row's own must not be shown.
    """
    if not notes:
        return None
    ids, count = rows.ids, len(notes)
    return result(
        (ids[position] for position, _ in notes[:100]),
        f"{count_phrase(count, 'row')}{rows.sample_note} {has_or_have(count)} {condition}, "
        f"e.g. row {ids[notes[0][0]]}: {notes[0][1]}",
        remedy,
        score=count / len(rows.sample),
        severity=severity,
        count=count,
        examples=(
            CheckExample(int(ids[position]), note, masked=masked(position) if masked else None)
            for position, note in notes[:MAX_TEXT_EXAMPLES]
        ),
    )


def text_check(
    condition: str,
    remedy: str,
    *,
    cannot_see: str,
    error_rate: str,
    pattern: str = "",
    warns_from: float = 0.0,
) -> Callable[[Callable[[str], str | None]], Check[TableRows]]:
    """Make a check from a function that reads one text and returns a note on what it found, or
    ``None``. It reads every text, or those that an RE2 ``pattern`` matches. The finding is a
    warning from the share ``warns_from`` of the rows on, below that it is info."""

    def register(note: Callable[[str], str | None]) -> Check[TableRows]:
        @functools.wraps(note)
        def run(rows: TableRows) -> CheckResult | None:
            texts = matching_texts(rows, pattern) if pattern else sampled_texts(rows)
            notes = [(at, text_note) for at, text in texts if (text_note := note(text)) is not None]
            warns = len(notes) >= warns_from * len(rows.sample)
            return text_finding(rows, notes, condition, remedy, "warn" if warns else "info")

        return check(TableRows, cannot_see=cannot_see, error_rate=error_rate, applies_to=has_texts)(
            run
        )

    return register


def excerpt_around(text: str, start: int, end: int, width: int = 20) -> str:
    """A span of a text with its surroundings, as a Python literal. Personal data is masked before
    the text is cut, because a part of a secret is not recognized."""
    first_shown, last_shown = max(0, start - width), min(len(text), end + width)
    search_start = max(0, first_shown - _SECRET_MARGIN)
    parts, at = [], first_shown
    for personal in find_personal(text[search_start : last_shown + _SECRET_MARGIN]):
        match_start, match_end = personal.start + search_start, personal.end + search_start
        if match_start < last_shown and match_end > first_shown:
            parts += [text[at:match_start], f"[{personal.data_type.upper()}]"]
            at = match_end
    shown = "".join([*parts, text[at:last_shown]])
    return f"{'…' * (first_shown > 0)}{shown!a}{'…' * (last_shown < len(text))}"


def excerpt(text: str) -> str:
    """The beginning of a text in one line, as a Python literal."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 60 else f"{flat[:59]}…")


def first_difference(before: str, after: str) -> str:
    """The first difference of two texts, as excerpts before and after."""
    at = next(
        (n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b),
        min(len(before), len(after)),
    )
    return f"{excerpt_around(before, at, at + 8, 12)} → {excerpt_around(after, at, at + 8, 12)}"
