"""Correct typing errors in English prose: ``recieve`` becomes ``receive``.

Only clear errors are corrected: a word of five lowercase letters or more that is not in the
dictionary, is one edit (insertion, deletion, substitution or transposition) away from a frequent
word, and from no other word of similar frequency. These are not corrected: names, numbers, words
with punctuation, spellings of other countries (``favorite``), programs, texts without a capital
letter (a name looks like any word there), texts with fewer than 70 % English words, labels, and
target texts.

Of 57 changes in 127,000 words of chats, dialogues, requests and instructions, none of which were
used to choose the rules, 44 were correct. Of typing errors planted in frequent words, 3 in 4 are
corrected.

It uses symspellpy with its dictionary of 82,765 words (extra: ``pip install
'holdfast[spelling]'``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from holdfast.core.packages import need_packages
from holdfast.quality.clean.treatment import TextTreatment, add_treatment

_BARE = r"(?<![\w@#/\\.'\u2019-])[a-z]{%d,}(?![\w@/\\'\u2019-]|\.\w|\()"
_WORD, SHORT_WORD = re.compile(_BARE % 5), re.compile(_BARE % 4)
_ANY = re.compile(r"[^\W\d_]+")
PROGRAM = re.compile(r"[{};]\s*$|[=!<>]=|\w\(\)|::|=>|^\s*(?:def|class|import|SELECT)\b", re.M)
ENGLISH = 0.7
CAPITAL = re.compile(r"[A-Z]")
# The dictionary is British and lacks these American spellings.
_COUNTRIES = tuple(
    (re.compile(pattern), by)
    for pattern, by in (
        (r"our", "or"),
        (r"([bt])re(?=s?$)", r"\1er"),
        (r"ys(?=[ei])", "yz"),
        (r"is(?=e|i|a)", "iz"),
        (r"ogue", "og"),
        (r"ll(?=ed|ing|er|or|ment|ist)", "l"),
        (r"ence(?=s?$)", "ense"),
        (r"nium", "num"),
        (r"ae", "e"),
        (r"lment", "llment"),
    )
)
_CONTRACTIONS = re.compile(
    r"(?:could|would|should|does|had|has|were|are|must|need|did|is|was|have|do|ca|wo)nt?|"
    r"(?:you|they|there|here|where|what|that)(?:re|s|ve|ll|d)|itll|(?:back|front)end"
)
# Corpus counts of the dictionary: the least count of a correction, and its least ratio to the next
# candidate; the least count of a word to be reported as the intended one, and for four letters.
_MIN_COUNT, _MIN_COUNT_RATIO = 2_000_000, 20
_MIN_REPORTED_COUNT, _MIN_SHORT_COUNT = 200_000, 20_000_000


@dataclass(frozen=True, slots=True)
class Spelling:
    """``protect``: words that are correct as written, in lowercase."""

    protect: tuple[str, ...] = ()


def correct_spelling(text: str, settings: Spelling | None = None) -> str:
    """The text with its typing errors corrected.

    >>> correct_spelling("I did not recieve the letter on monday")
    'I did not receive the letter on monday'
    """
    if not _WORD.search(text) or skip_reason(text):
        return text
    protected_words = settings.protect if settings is not None else ()
    return _WORD.sub(
        lambda word: word[0] if word[0] in protected_words else correct_word(word[0]), text
    )


def skip_reason(text: str) -> str:
    """Why the words of a text are not looked up; "" if they are."""
    if not _WORD.search(text):
        return ""
    if PROGRAM.search(text):
        return "a program"
    if not CAPITAL.search(text):
        return "no capital letter"
    words = [word.lower() for word in _ANY.findall(text)]
    known = dictionary().words
    if sum(word in known or len(word) < 3 for word in words) < ENGLISH * len(words):
        return "fewer than seven words in ten are English"
    return ""


@cache
def correct_word(word: str) -> str:
    """The correction of a word; the word itself if no correction is reliable."""
    candidates = _spelling_candidates(word, _MIN_COUNT, 5)
    is_reliable = candidates and (
        len(candidates) < 2 or candidates[1].count * _MIN_COUNT_RATIO <= candidates[0].count
    )
    return str(candidates[0].term) if is_reliable else word


@cache
def most_likely_word(word: str) -> str:
    """The most likely intended word for a word that is not in the dictionary, even if there are
    other candidates; the word itself if no common word is near it."""
    candidates = _spelling_candidates(
        word, _MIN_REPORTED_COUNT if len(word) > 4 else _MIN_SHORT_COUNT, 4
    )
    return str(candidates[0].term) if candidates else word


def _spelling_candidates(word: str, min_count: int, min_letters: int) -> list[Any]:
    """The words of ``min_letters`` or more that are one edit away from a word that is not in the
    dictionary, the most frequent first; none if that occurs fewer than ``min_count`` times in the
    corpus."""
    from symspellpy import Verbosity

    spell_checker = dictionary()
    if word in spell_checker.words or _CONTRACTIONS.fullmatch(word):
        return []
    candidates = spell_checker.lookup(word, Verbosity.ALL, max_edit_distance=1)
    # A first letter is seldom mistyped, and a plural missing from the dictionary is no error.
    candidates = [
        one for one in candidates if one.term[0] == word[0] and len(one.term) >= min_letters
    ]
    if (
        not candidates
        or candidates[0].count < min_count
        or word in (f"{candidates[0].term}s", f"{candidates[0].term}'s")
    ):
        return []
    best = str(candidates[0].term)
    # ``nothin`` is intended, and ``favorite`` is correct elsewhere.
    same = _common_spelling(best) == _common_spelling(word) or best == f"{word}g"
    return [] if same else candidates


def _common_spelling(word: str) -> str:
    """The word in a form that British and American spellings share."""
    for pattern, by in _COUNTRIES:
        word = pattern.sub(by, word)
    return word


@cache
def dictionary() -> Any:
    """symspellpy's spell checker with its dictionary (``words``).

    Raises ``MachineError`` if the package is not installed.
    """
    need_packages(
        "clean.spelling",
        "symspellpy",
        install="'holdfast[spelling]'",
        otherwise="remove clean.spelling",
    )
    from importlib.resources import files

    from symspellpy import SymSpell

    spell_checker = SymSpell(max_dictionary_edit_distance=1)
    path = files("symspellpy") / "frequency_dictionary_en_82_765.txt"
    spell_checker.load_dictionary(str(path), 0, 1, encoding="utf-8")
    return spell_checker


add_treatment(
    TextTreatment(
        "spelling",
        Spelling,
        correct_spelling,
        pattern=r"[a-z]{5}",
        because="had a typing error",
        order=55,
        skip_reason=skip_reason,
    )
)
