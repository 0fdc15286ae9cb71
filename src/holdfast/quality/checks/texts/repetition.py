"""The same again: within a text, and at the beginning or end of many."""

from __future__ import annotations

import re
from collections import Counter

from holdfast.core.wording import count_phrase, list_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, has_texts, result
from holdfast.quality.clean.rows import first_line, last_line, min_boilerplate_texts
from holdfast.quality.single import MAX_TEXT_EXAMPLES, excerpt_around, sampled_texts, text_finding
from holdfast.quality.views import ThoroughRows

_MIN_WORD_REPEATS = 6
_SAME_WORD = re.compile(r"(?<!\w)(\w{2,})(?:[\s,.!?;:-]+\1(?!\w)){5,}", re.IGNORECASE)
# Shares of characters, as Rae et al. (2112.11446, table A1) have them.
_MAX_LINE_SHARE = 0.30
_LEAST_WORDS = 50
_RUN_WORDS, _MAX_RUN_SHARE = 10, 0.30
_MIN_REPEATED_SHARE = 0.35


@check(
    ThoroughRows,
    cannot_see="What is said again in other words, and repetition in scripts without spaces.",
    error_rate="Eleven real sets, 1,500 texts each: recall 0.90 to 1.00 of planted repetition. "
    "Of the 61 rows in 56,000 that it names as they are 40 do repeat themselves; 21, where "
    "question and answer were one text, have an answer that takes up its question.",
    applies_to=has_texts,
)
def repetition(view: ThoroughRows) -> CheckResult | None:
    """Lists the rows in which a word stands six times in a row; repeated lines of three words or
    more make 30 % of the characters; or, in texts of 50 words and more, 30 % of the words stand in
    runs of ten words that occur before. Score: their share of the rows."""
    all_notes = ((position, _repetition_note(text)) for position, text in sampled_texts(view.rows))
    notes = [(position, note) for position, note in all_notes if note is not None]
    return text_finding(
        view.rows,
        notes,
        "a text that repeats itself",
        "Look at them: they may be cut from a broken page or a stuck program. `treat.rows` leaves "
        "rows out.",
    )


def _repetition_note(text: str) -> str | None:
    # Six times a word of two letters, with a space between.
    if len(text) < 3 * _MIN_WORD_REPEATS - 1:
        return None
    words = text.split()
    distinct = len(set(words))
    # In a text that repeats nothing these searches would find nothing.
    if len(words) - distinct >= _MIN_WORD_REPEATS - 1:
        match = _SAME_WORD.search(text)
        if match is not None:
            shown = excerpt_around(text, *match.span(), 0)[:80]
            return f"the word {match[1]!r} again and again: {shown}"
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
    return f"a line {n} times: {line[:60]!r}"


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
    return f"{covered / len(words):.0%} of its words stand in it before, in runs of {_RUN_WORDS}"


@check(
    ThoroughRows,
    cannot_see="Sentences in the middle of texts, and those of which a word differs.",
    error_rate="Eleven real sets: found in each where it was planted into one row in twenty; "
    "nothing found in them as they are.",
    applies_to=has_texts,
)
def boilerplate(view: ThoroughRows) -> CheckResult | None:
    """Reports sentences or lines of five words or more that open or close at least 20 texts and 1 %
    of them, whose other words differ. Score: the share of rows with any."""
    rows = view.rows
    first_lines: dict[str, list[int]] = {}
    last_lines: dict[str, list[int]] = {}
    texts = dict(sampled_texts(rows))
    for position, text in texts.items():
        for line, into in ((first_line(text), first_lines), (last_line(text), last_lines)):
            if line is not None:
                into.setdefault(line, []).append(position)
    min_rows = min_boilerplate_texts(len(rows.sample))
    frequent: list[tuple[str, str, list[int]]] = []
    for place, lines in (("begin", first_lines), ("end", last_lines)):
        for line, positions in lines.items():
            # Copies of a whole text are no boilerplate.
            distinct = {texts[position] for position in positions}
            if len(distinct) >= min_rows:
                frequent.append((place, line, positions))
    if not frequent:
        return None
    frequent.sort(key=lambda one: (-len(one[2]), one[1]))
    ids = rows.ids
    affected = Counter(position for _, _, positions in frequent for position in positions)
    sentences = [
        f"{count_phrase(len(positions), 'text')} {place} with {line[:80]!r}"
        for place, line, positions in frequent
    ]
    examples = tuple(
        CheckExample(int(ids[position]), f"{place}s with {line[:60]!r}")
        for place, line, positions in frequent[:MAX_TEXT_EXAMPLES]
        for position in positions[:1]
    )
    return result(
        ids[sorted(affected)[:100]],
        f"the same sentence stands in many texts{rows.sample_note}: {list_phrase(sentences, 3)}",
        "If it is no part of what is to be learned, `treat.boilerplate` of audit --fix takes it "
        "out; if new texts have it too, it does no harm.",
        score=len(affected) / len(rows.sample),
        severity="info",
        count=len(affected),
        examples=examples,
    )
