"""Spellings of labels: merge variants, find missing labels, turn names into words.

*Merged*: labels that are the same but for case and white space are one class, named as in most of
its rows (of equals, the first in the order of characters). ``Yes``, ``yes `` and ``YES`` are one
class; ``very good`` and ``very_good`` are two, which the audit reports.

*Missing*: the usual texts for an empty cell (``N/A``, ``#N/A``, ``NaN``, ``<NA>``, ``NULL``, in any
case) are not a class. ``none`` is one: it says that nothing applies, which can be learned. ``NA``
is missing, unless at least three other classes are codes of two letters as well (``EU``, ``AS``,
``SA``): then it is a code.

``data.labels=exact`` keeps labels as they are written: then only an empty cell is missing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from holdfast.core.decisions import notify
from holdfast.core.records import Decision
from holdfast.core.wording import list_phrase

_MISSING = (
    r"n/a, #n/a, #n/a n/a, #na, n.a., n.a, <na>, <n/a>, nan, -nan, #nan, null, <null>, (null), \n"
)
MISSING = frozenset(_MISSING.split(", "))
# Zero-width space, byte-order mark, word joiner, soft hyphen.
INVISIBLE = dict.fromkeys(map(ord, "\u200b\ufeff\u2060\u00ad"))
NA_CODE = "na"
MIN_CODES = 3
SHOWN = 5
# The name and outcome of the decision on spellings.
LABELS, MERGED = "labels", "merged into"


def label_key(name: str) -> str:
    """The key that spellings of one class share: lower case, accents composed, single spaces, no
    invisible characters.

    >>> label_key("Very  GOOD ")
    'very good'
    """
    visible = unicodedata.normalize("NFC", name).translate(INVISIBLE)
    return " ".join(visible.lower().split())


def missing_labels(names: Iterable[str], classes: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels, as written, that mean a missing label; never one of the ``classes`` of a run."""
    known = {label_key(name) for name in classes}
    keys = {name: label_key(name) for name in names}
    codes = {key for key in keys.values() if key != NA_CODE and len(key) == 2 and key.isalpha()}
    # ``NA`` together with ``EU`` and ``AS`` is North America.
    marks = MISSING if len(codes) >= MIN_CODES else MISSING | {NA_CODE}
    unknown = {name for name, key in keys.items() if key in marks and key not in known}
    # A label of only invisible characters looks like an empty cell.
    return tuple(sorted(unknown | {name for name, key in keys.items() if not key}))


def merge_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """The class of each label as written; merges are logged. ``counts`` are rows by label."""
    groups: dict[str, list[str]] = {}
    # The most frequent spelling first: it names the class.
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups.setdefault(label_key(name), []).append(name)
    spelled = {name: names[0] for names in groups.values() for name in names}
    several_spellings = [names for names in groups.values() if len(names) > 1]
    if not several_spellings:
        return spelled
    shown = list_phrase([_merge_phrase(names, counts) for names in several_spellings], SHOWN)
    because = (
        f"{sum(map(len, several_spellings))} of {len(counts)} labels differ from another "
        "only in case or "
        f"spaces: {shown} (data.labels=exact keeps them separate)"
    )
    rows = sum(counts[name] for names in several_spellings for name in names[1:])
    outcome = f"{MERGED} {len(groups)} classes"
    notify(Decision(LABELS, outcome, because, prominent=True, rows=rows))
    return spelled


def spelling_decision(decisions: Iterable[Decision]) -> Decision | None:
    """The decision of ``merge_spellings`` among a table's decisions, or ``None``."""
    merges = (one for one in decisions if one.what == LABELS and one.chosen.startswith(MERGED))
    return next(merges, None)


def _merge_phrase(names: Sequence[str], counts: Mapping[str, int]) -> str:
    class_name, *others = (
        f"{name!r} ({counts[name]} row{'s' * (counts[name] > 1)})" for name in names
    )
    return f"{', '.join(others)} → {class_name}"


def match_spellings(names: Iterable[str], classes: Sequence[str]) -> dict[str, str]:
    """The known class of each label that is the same as one class but for case and space."""
    counts = Counter(label_key(name) for name in classes)
    by_key = {label_key(name): name for name in classes if counts[label_key(name)] == 1}
    return {name: by_key[label_key(name)] for name in names if label_key(name) in by_key}


def quoted_list(names: Sequence[str]) -> str:
    """``'N/A' or 'NULL'``."""
    return list_phrase([*map(repr, names)], SHOWN, " or ", ", …")


# A capital that begins a word inside a label: cardArrival, HTTPError.
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_VOWELS = frozenset("aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœ")
SHORTEST = 2


def label_words(label: str) -> str | None:
    """The words of a label, ``card_arrival`` as ``card arrival``; ``None`` where it has none.

    These labels have no words: without letters (``3``, ``+``); at most five capitals (``ABBR``,
    ``NEG``), which are a code in most data sets; words that are single letters or all lack a vowel
    (``x``, ``trk``). Scripts other than Latin are accepted unchanged. An abbreviation in small
    letters cannot be recognised here; its rows show it (``quality/names.py``).
    """
    spaced = _CAMEL_CASE.sub(" ", re.sub(r"[_\-./:|]+", " ", label))
    text = " ".join(spaced.split()).strip(" ?!,;")
    words = _WORD.findall(text)
    if not words or (len(words) == 1 and words[0].isupper() and len(words[0]) <= 5):
        return None
    if not any(_is_pronounceable(word) for word in words):
        return None
    return text if any(word.isupper() for word in words) and len(words) > 1 else text.lower()


def _is_pronounceable(word: str) -> bool:
    if not word.isascii() and not _VOWELS & set(word.lower()):
        return True
    return len(word) >= SHORTEST and bool(_VOWELS & set(word.lower()))
