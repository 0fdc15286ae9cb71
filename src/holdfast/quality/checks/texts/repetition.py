"""The same again: within a text, and at the beginning or end of many."""

from __future__ import annotations

import re
from collections import Counter

from holdfast.core.wording import count_phrase, list_phrase
from holdfast.quality.check import CheckExample, CheckResult, check, result, with_texts
from holdfast.quality.clean.rows import first_line, last_line, often_enough
from holdfast.quality.single import EXAMPLES, around, reading, single_finding
from holdfast.quality.views import Closely

_WORD_TIMES = 6
_SAME_WORD = re.compile(r"(?<!\w)(\w{2,})(?:[\s,.!?;:-]+\1(?!\w)){5,}", re.IGNORECASE)
# Shares of characters, as Rae et al. (2112.11446, table A1) have them.
_LINES = 0.30
_LEAST_WORDS = 50
_GRAM, _COVERED = 10, 0.30
_DISTINCT = 0.35


@check(
    Closely,
    cannot_see="What is said again in other words, and repetition in scripts without spaces.",
    error_rate="Eleven real sets, 1,500 texts each: recall 0.90 to 1.00 of planted repetition. "
    "Of the 61 rows in 56,000 that it names as they are 40 do repeat themselves; 21, where "
    "question and answer were one text, have an answer that takes up its question.",
    holds_for=with_texts,
)
def repetition(view: Closely) -> CheckResult | None:
    """Lists the rows in which a word stands six times in a row; repeated lines of three words or
    more make 30 % of the characters; or, in texts of 50 words and more, 30 % of the words stand in
    runs of ten words that occur before. Score: their share of the rows."""
    noted = ((position, _repeats(text)) for position, text in reading(view.rows))
    found = [(position, note) for position, note in noted if note is not None]
    return single_finding(
        view.rows,
        found,
        "a text that repeats itself",
        "Look at them: they may be cut from a broken page or a stuck program. `treat.rows` leaves "
        "rows out.",
    )


def _repeats(text: str) -> str | None:
    # Six times a word of two letters, with a space between.
    if len(text) < 3 * _WORD_TIMES - 1:
        return None
    words = text.split()
    distinct = len(set(words))
    # In a text that repeats nothing these searches would find nothing.
    if len(words) - distinct >= _WORD_TIMES - 1:
        match = _SAME_WORD.search(text)
        if match is not None:
            return f"the word {match[1]!r} again and again: {around(text, *match.span(), 0)[:80]}"
    if "\n" in text:
        note = _lines(text)
        if note is not None:
            return note
    if len(words) >= _LEAST_WORDS and distinct < (1 - _DISTINCT) * len(words):
        return _runs(words)
    return None


def _lines(text: str) -> str | None:
    lines = Counter(line.strip() for line in text.splitlines() if len(line.split()) >= 3)
    again = sum(len(line) * (n - 1) for line, n in lines.items())
    if again < _LINES * len(text):
        return None
    line, n = lines.most_common(1)[0]
    return f"a line {n} times: {line[:60]!r}"


def _runs(words: list[str]) -> str | None:
    seen: set[tuple[str, ...]] = set()
    covered = until = 0
    for at in range(len(words) - _GRAM + 1):
        run = tuple(words[at : at + _GRAM])
        if run in seen:
            covered += at + _GRAM - max(at, until)
            until = at + _GRAM
        seen.add(run)
    if covered < _COVERED * len(words):
        return None
    return f"{covered / len(words):.0%} of its words stand in it before, in runs of {_GRAM}"


@check(
    Closely,
    cannot_see="Sentences in the middle of texts, and those of which a word differs.",
    error_rate="Eleven real sets: found in each where it was planted into one row in twenty; "
    "nothing found in them as they are.",
    holds_for=with_texts,
)
def boilerplate(view: Closely) -> CheckResult | None:
    """Reports sentences or lines of five words or more that open or close at least 20 texts and 1 %
    of them, whose other words differ. Score: the share of rows with any."""
    rows = view.rows
    firsts: dict[str, list[int]] = {}
    lasts: dict[str, list[int]] = {}
    texts = dict(reading(rows))
    for position, text in texts.items():
        for line, into in ((first_line(text), firsts), (last_line(text), lasts)):
            if line is not None:
                into.setdefault(line, []).append(position)
    enough = often_enough(len(rows.sample))
    often: list[tuple[str, str, list[int]]] = []
    for place, lines in (("begin", firsts), ("end", lasts)):
        for line, positions in lines.items():
            # Copies of a whole text are no boilerplate.
            distinct = {texts[position] for position in positions}
            if len(distinct) >= enough:
                often.append((place, line, positions))
    if not often:
        return None
    often.sort(key=lambda one: (-len(one[2]), one[1]))
    ids = rows.ids
    touched = Counter(position for _, _, positions in often for position in positions)
    told = [
        f"{count_phrase(len(positions), 'text')} {place} with {line[:80]!r}"
        for place, line, positions in often
    ]
    examples = tuple(
        CheckExample(int(ids[position]), f"{place}s with {line[:60]!r}")
        for place, line, positions in often[:EXAMPLES]
        for position in positions[:1]
    )
    return result(
        ids[sorted(touched)[:100]],
        f"the same sentence stands in many texts{rows.of_sample}: {list_phrase(told, 3)}",
        "If it is no part of what is to be learned, `treat.boilerplate` of audit --fix takes it "
        "out; if new texts have it too, it does no harm.",
        score=len(touched) / len(rows.sample),
        severity="info",
        count=len(touched),
        examples=examples,
    )
