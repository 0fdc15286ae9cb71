"""Repetition within a text, and boilerplate at the beginning or end of many texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from holdfast.core.wording import (
    DROPPED_TERMS,
    count_phrase,
    list_option,
    list_phrase,
    percent_phrase,
)
from holdfast.quality.check import CheckExample, CheckResult, check, has_texts, result
from holdfast.quality.clean.rows import shared_lines
from holdfast.quality.single import MAX_TEXT_EXAMPLES, excerpt_around, sampled_texts, text_finding
from holdfast.quality.views import TableRows, ThoroughRows

_MIN_WORD_REPEATS = 6
_SAME_WORD = re.compile(r"(?<!\w)(\w{2,})(?:[\s,.!?;:-]+\1(?!\w)){5,}", re.IGNORECASE)
# Shares of characters from Rae et al. (2112.11446, table A1).
_MAX_LINE_SHARE = 0.30
_LEAST_WORDS = 50
_RUN_WORDS, _MAX_RUN_SHARE = 10, 0.30
_MIN_REPEATED_SHARE = 0.35
# Nearly all rows.
SAME_CLASS = 0.95


@check(
    ThoroughRows,
    cannot_see="Repetition in other words, and repetition in scripts without spaces.",
    error_rate="Eleven real data sets, 1,500 texts each: recall 0.90 to 1.00 of planted "
    "repetition. In the unmodified sets it lists 61 of 56,000 rows. Of these, 40 repeat "
    "themselves; in 21, which hold question and answer in one text, the answer restates the "
    "question.",
    applies_to=has_texts,
)
def repetition(view: ThoroughRows) -> CheckResult | None:
    """Lists the rows that repeat themselves: a word occurs six times in succession; or repeated
    lines of three words or more make up 30 % of the characters; or, in texts of 50 words or more,
    30 % of the words are in 10-word runs that occurred before. Score: their share of the rows."""
    all_notes = ((position, _repetition_note(text)) for position, text in sampled_texts(view.rows))
    notes = [(position, note) for position, note in all_notes if note is not None]
    return text_finding(
        view.rows,
        notes,
        "a text that repeats itself",
        "Review them: they may come from a broken page or a program in a loop. `clean.rows` "
        "removes rows.",
    )


def _repetition_note(text: str) -> str | None:
    # The shortest match: a word of two letters, six times, with spaces between.
    if len(text) < 3 * _MIN_WORD_REPEATS - 1:
        return None
    words = text.split()
    distinct = len(set(words))
    # Without enough repeated words the search cannot find anything.
    if len(words) - distinct >= _MIN_WORD_REPEATS - 1:
        match = _SAME_WORD.search(text)
        if match is not None:
            shown = excerpt_around(text, *match.span(), 0)[:80]
            return f"the word {match[1]!r} repeats: {shown}"
    if "\n" in text:
        note = _repeated_lines(text)
        if note is not None:
            return note
    if len(words) >= _LEAST_WORDS and distinct < (1 - _MIN_REPEATED_SHARE) * len(words):
        return _repeated_runs(words)
    return None


def _repeated_lines(text: str) -> str | None:
    lines = Counter(line.strip() for line in text.splitlines() if len(line.split()) >= 3)
    repeated = sum(len(line) * (n - 1) for line, n in lines.items())
    if repeated < _MAX_LINE_SHARE * len(text):
        return None
    line, n = lines.most_common(1)[0]
    return f"a line occurs {n} times: {line[:60]!r}"


def _repeated_runs(words: list[str]) -> str | None:
    known_runs: set[tuple[str, ...]] = set()
    covered = covered_to = 0
    for at in range(len(words) - _RUN_WORDS + 1):
        run = tuple(words[at : at + _RUN_WORDS])
        if run in known_runs:
            covered += at + _RUN_WORDS - max(at, covered_to)
            covered_to = at + _RUN_WORDS
        known_runs.add(run)
    if covered < _MAX_RUN_SHARE * len(words):
        return None
    return (
        f"{percent_phrase(covered / len(words))} of its words are in repeated "
        f"{_RUN_WORDS}-word runs"
    )


@check(
    ThoroughRows,
    cannot_see="Sentences in the middle of texts, and sentences that differ in a word.",
    error_rate="Eleven real data sets: found in each where it was planted in one row in twenty; "
    "nothing reported on the unmodified sets.",
    applies_to=has_texts,
)
def boilerplate(view: ThoroughRows) -> CheckResult | None:
    """Reports boilerplate: sentences or lines of five words or more that begin or end at least 20
    texts and 1 % of all texts. The texts must differ otherwise. Score: the share of rows with
    boilerplate."""
    rows = view.rows
    texts = dict(sampled_texts(rows))
    positions_of = list(texts)
    frequent = [
        (place, line, [positions_of[at] for at in found])
        for place, at_end in (("begin", False), ("end", True))
        for line, found in shared_lines(list(texts.values()), len(rows.sample), at_end).items()
    ]
    if not frequent:
        return None
    frequent.sort(key=lambda one: (-len(one[2]), one[1]))
    ids = rows.ids
    affected = Counter(position for _, _, positions in frequent for position in positions)
    sentences = [
        f"{count_phrase(len(positions), 'text')} {place} with {line[:80]!r}"
        f"{_class_note(rows, positions)}"
        for place, line, positions in frequent
    ]
    examples = tuple(
        CheckExample(int(ids[position]), f"{place}s with {line[:60]!r}")
        for place, line, positions in frequent[:MAX_TEXT_EXAMPLES]
        for position in positions[:1]
    )
    return result(
        ids[sorted(affected)[:100]],
        f"many texts{rows.sample_note} begin or end with the same sentence: "
        f"{list_phrase(sentences, 3)}",
        "If the model should not learn it, delete it from these texts and from all that are "
        "predicted later: holdfast train with "
        f"{list_option(DROPPED_TERMS, [line for _, line, _ in frequent])}. To delete it only from "
        "the file: audit --fix OUT.csv --set clean.boilerplate=true.",
        score=len(affected) / len(rows.sample),
        severity="info",
        count=len(affected),
        examples=examples,
    )


def _class_note(rows: TableRows, positions: Sequence[int]) -> str:
    """The class that nearly all of these rows have, where it is not that of nearly all rows."""
    counts = rows.class_counts if rows.table.classes else np.zeros(0)
    labels = rows.labels[list(positions)] if len(counts) else np.zeros(0, dtype=np.int64)
    if not len(labels) or labels.min() < 0:
        return ""
    here = np.bincount(labels, minlength=len(counts))
    of = int(here.argmax())
    if here[of] < SAME_CLASS * len(labels) or counts[of] >= SAME_CLASS * counts.sum():
        return ""
    return f" ({here[of]:,} of class {rows.table.classes[of]!r})"
