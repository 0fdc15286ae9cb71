"""Typing errors in English prose: ``recieve`` becomes ``receive``.

Only what is surely one: a word of five small letters or more that no dictionary has, one letter
(more, less, other, or two that changed places) away from a frequent word, and from no other that is
nearly as frequent. Names, numbers, words with marks, spellings of other countries (``favorite``),
programs, texts without a capital letter, in which a name looks like any word, and texts of which
fewer than seven words in ten are English are left alone; so are labels, and texts to be written by
a model.

Of 57 changes in 127,000 words of chats, dialogues, requests and instructions, on which nothing was
chosen, 44 were right; of typing errors planted into frequent words three in four are put right.

symspellpy with its own dictionary of 82,765 words (an extra: ``pip install 'holdfast[spelling]'``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from holdfast.core.errors import MachineError
from holdfast.quality.clean.treatment import TextTreatment, add_treatment

_BARE = r"(?<![\w@#/\\.'\u2019-])[a-z]{%d,}(?![\w@/\\'\u2019-]|\.\w|\()"
_WORD, SHORT_WORD = re.compile(_BARE % 5), re.compile(_BARE % 4)
_ANY = re.compile(r"[^\W\d_]+")
PROGRAM = re.compile(r"[{};]\s*$|[=!<>]=|\w\(\)|::|=>|^\s*(?:def|class|import|SELECT)\b", re.M)
ENGLISH = 0.7
CAPITAL = re.compile(r"[A-Z]")
# The dictionary is British, and has none of these.
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
# How often a word stands in the corpus that the dictionary was counted in, to be put in the place
# of another, and how much more often than the next candidate; and to be reported as what was meant
# by a word, and by one of four letters.
_MIN_COUNT, _MIN_COUNT_RATIO = 2_000_000, 20
_MIN_REPORTED_COUNT, _MIN_SHORT_COUNT = 200_000, 20_000_000


@dataclass(frozen=True, slots=True)
class Spelling:
    """``protect``: words that are right as they are written, in small letters."""

    protect: tuple[str, ...] = ()


def correct_spelling(text: str, settings: Spelling | None = None) -> str:
    """The text with its typing errors put right.

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
    """Why the words of a text are not looked up; "" where they are."""
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
    """What a word should be: itself, where that is not sure."""
    candidates = _spelling_candidates(word, _MIN_COUNT, 5)
    is_reliable = candidates and (
        len(candidates) < 2 or candidates[1].count * _MIN_COUNT_RATIO <= candidates[0].count
    )
    return str(candidates[0].term) if is_reliable else word


@cache
def most_likely_word(word: str) -> str:
    """What a word that no dictionary has was probably meant to be, however many others it may have
    been; itself, where nothing usual is near it."""
    candidates = _spelling_candidates(
        word, _MIN_REPORTED_COUNT if len(word) > 4 else _MIN_SHORT_COUNT, 4
    )
    return str(candidates[0].term) if candidates else word


def _spelling_candidates(word: str, min_count: int, min_letters: int) -> list[Any]:
    """The words of ``min_letters`` or more that are one letter away from a word that no dictionary
    has, the most frequent first; none where that occurs under ``min_count`` times in the corpus."""
    from symspellpy import Verbosity

    spell_checker = dictionary()
    if word in spell_checker.words or _CONTRACTIONS.fullmatch(word):
        return []
    candidates = spell_checker.lookup(word, Verbosity.ALL, max_edit_distance=1)
    # A first letter is seldom mistyped, and a missing plural is a word of its own.
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
    # ``nothin`` was meant so, and ``favorite`` is right elsewhere.
    same = _common_spelling(best) == _common_spelling(word) or best == f"{word}g"
    return [] if same else candidates


def _common_spelling(word: str) -> str:
    """The word in a spelling that British and American ones share."""
    for pattern, by in _COUNTRIES:
        word = pattern.sub(by, word)
    return word


@cache
def dictionary() -> Any:
    """symspellpy's, with the words of ``words``.

    Raises ``MachineError`` where the package is not installed.
    """
    try:
        from importlib.resources import files

        from symspellpy import SymSpell
    except ImportError as error:
        raise MachineError(
            "treat.spelling",
            "needs a package that is not installed",
            "symspellpy",
            "pip install 'holdfast[spelling]', or leave it out.",
        ) from error
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
