"""Words that are probably typing errors: no dictionary has them, and a usual word is near."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter

from holdfast.core.wording import counted
from holdfast.quality.check import CheckResult, check, with_texts
from holdfast.quality.clean.spelling import (
    CAPITAL,
    ENGLISH,
    PROGRAM,
    SHORT_WORD,
    dictionary,
    likeliest,
)
from holdfast.quality.single import reading, single_finding
from holdfast.quality.views import Closely

# A word that more rows have is one of their subject.
_OWN_WORD = 5
_HALF = 0.5
_SMALL = re.compile(r"^[^a-zA-Z]*[A-Z][a-z]*|(?<![^\W\d_])[a-z]+(?![^\W\d_])")


def _nothing_to_read(view: Closely) -> str:
    """Why no word is looked up; empty where some are."""
    if importlib.util.find_spec("symspellpy") is None:
        return "symspellpy is not installed: pip install 'holdfast[spelling]'"
    texts = [text for _, text in reading(view.rows) if SHORT_WORD.search(text)]
    if not any(_english(text) for text in texts):
        return "no text is English with capital letters, without which a name looks misspelt"
    return ""


@check(
    Closely,
    cannot_see="Words that a mistake turned into another word (form for from), names, "
    "abbreviations, and languages other than English.",
    error_rate="One planted into each of 50 rows of 1,500, three draws a set on which nothing "
    "was chosen: 96 % found in BANKING77, 97 % in TREC, 89 % in written answers. It lists 1 % "
    "of their rows as they are, some for a rare word that is right.",
    holds_for=with_texts,
    nothing=_nothing_to_read,
)
def typing_errors(view: Closely) -> CheckResult | None:
    """Lists the rows with a word of four small letters or more that no English dictionary has, is
    one letter (more, less, other, or two that changed places) away from a usual word with the same
    first letter, and stands in five rows at most. Programs, texts without a capital letter and
    texts that are not English are not looked at, and are counted: of their words with a small
    letter half must be in the dictionary, and seven in ten with those that are near one. Score: the
    share of the rows.
    """
    rows, left_out = view.rows, 0
    words: dict[int, set[str]] = {}
    for at, text in reading(rows):
        if SHORT_WORD.search(text):
            if _english(text):
                words[at] = {word[0] for word in SHORT_WORD.finditer(text)}
            else:
                left_out += 1
    in_rows = Counter(word for found in words.values() for word in found)
    found = []
    for at, held in words.items():
        wrong = sorted(word for word in held if in_rows[word] <= _OWN_WORD and _wrong(word))
        if wrong:
            found.append((at, ", ".join(f"{word} ({likeliest(word)}?)" for word in wrong)))
    skipped = f" ({counted(left_out, 'text')} skipped: no capital letter, code or not English)"
    beside = skipped if left_out else ""
    return single_finding(
        rows,
        found,
        f"what is probably a typing error{beside}",
        "`treat.spelling` corrects those that have one likely correction. People who write to your "
        "model make them too, so that leaving them is usually fine.",
        severity="info",
    )


def _wrong(word: str) -> bool:
    return len(word) >= 4 and likeliest(word) != word


def _english(text: str) -> bool:
    """Whether the words of a text are looked up: with a capital letter somewhere, since a name
    without one looks like any word."""
    if PROGRAM.search(text) or not CAPITAL.search(text):
        return False
    found = [re.sub(r"[^a-z]", "", word.lower()) for word in _SMALL.findall(text)]
    words = [word for word in found if len(word) > 2]
    known = sum(word in dictionary().words for word in words)
    near = sum(map(_wrong, words))
    return known >= _HALF * len(words) and known + near >= ENGLISH * len(words)
