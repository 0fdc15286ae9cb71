"""Identity terms (words that name groups of people) and swaps of a term for its counterpart.

The list is deliberately small: plain English words that name a group of people and seldom anything
else. It omits *black*, *white*, *straight* and *blind*, which usually mean other things.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]

# The attributes and their terms, each with its written forms.
TERMS: dict[str, dict[str, tuple[str, ...]]] = {
    "gender": {
        "woman": ("woman", "women", "girl", "girls", "female", "females", "lady", "ladies"),
        "man": ("man", "men", "boy", "boys", "male", "males", "guy", "guys"),
        "she": ("she", "her", "hers", "herself"),
        "he": ("he", "him", "his", "himself"),
        "transgender": ("transgender", "transsexual", "trans"),
    },
    "religion": {
        "Christian": ("christian", "christians", "catholic", "catholics", "protestant"),
        "Muslim": ("muslim", "muslims", "islamic", "islam"),
        "Jewish": ("jew", "jews", "jewish"),
        "Hindu": ("hindu", "hindus"),
        "Buddhist": ("buddhist", "buddhists"),
        "atheist": ("atheist", "atheists"),
    },
    "nationality": {
        "American": ("american", "americans"),
        "African": ("african", "africans"),
        "Arab": ("arab", "arabs"),
        "Chinese": ("chinese",),
        "French": ("french",),
        "German": ("german", "germans"),
        "Indian": ("indian", "indians"),
        "Japanese": ("japanese",),
        "Mexican": ("mexican", "mexicans"),
        "Russian": ("russian", "russians"),
    },
    "age": {
        "old people": ("elderly", "senior", "seniors", "grandmother", "grandfather"),
        "young people": ("teen", "teens", "teenager", "teenagers", "kid", "kids"),
    },
    "orientation": {
        "gay": ("gay", "gays", "homosexual", "homosexuals", "lesbian", "lesbians", "queer"),
        "bisexual": ("bisexual", "bisexuals"),
    },
    "disability": {
        "disabled": ("disabled", "disability", "disabilities", "handicapped", "wheelchair"),
        "deaf": ("deaf",),
        "autistic": ("autistic", "autism"),
    },
}
# Each pair applies in both directions. ``her`` is not swapped: its counterpart is ``his`` or
# ``him``, depending on the next word.
SWAPS: dict[str, tuple[tuple[str, str], ...]] = {
    "he and she": (("he", "she"), ("himself", "herself")),
    "man and woman": (("man", "woman"), ("men", "women"), ("male", "female")),
    "boy and girl": (("boy", "girl"), ("boys", "girls")),
    "father and mother": (("father", "mother"), ("dad", "mom"), ("husband", "wife")),
    "son and daughter": (("son", "daughter"), ("brother", "sister")),
    "actor and actress": (("actor", "actress"), ("actors", "actresses")),
    "Christian and Muslim": (("christian", "muslim"), ("christians", "muslims")),
    "American and Mexican": (("american", "mexican"), ("americans", "mexicans")),
    "young and old": (("younger", "older"), ("teenager", "pensioner")),
}


def contains_any(texts: Sequence[str], forms: Sequence[str]) -> Bools:
    """Which texts [n] contain one of the forms as a word, ignoring case."""
    pattern = _word_pattern(forms)
    return np.array([bool(pattern.search(text)) for text in texts], dtype=bool)


def neutralize(text: str, forms: Sequence[str]) -> str:
    """The text with ``person`` in place of each form; the rest is unchanged."""
    return _word_pattern(forms).sub("person", text)


def swap_terms(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    """The text with the two words of each pair swapped, keeping their case.

    >>> swap_terms("She saw the man.", (("he", "she"), ("man", "woman")))
    'He saw the woman.'
    """
    counterparts = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return _word_pattern([*counterparts]).sub(
        lambda found: _match_case(counterparts[found[0].casefold()], found[0]), text
    )


def _word_pattern(forms: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w'’-])(?:{'|'.join(map(re.escape, forms))})(?![\w-])", re.IGNORECASE)


def _match_case(word: str, model_word: str) -> str:
    if model_word.isupper() and len(model_word) > 1:
        return word.upper()
    return word.capitalize() if model_word[:1].isupper() else word
