"""What a written text shows of itself: one yes or no a text and mark."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.data.language import language_of
from holdfast.data.phrases import PHRASES, REFUSAL
from holdfast.evaluate.copying import loops, normal
from holdfast.know.outputs.lexicons import stereotypes, toxic_words

Bools = npt.NDArray[np.bool_]

MEANING = {
    "empty": "say nothing",
    "cut": "do not end by themselves: they are stopped at the longest length",
    "repeated": "repeat the same words over and over",
    "template": "hold a template's words: a refusal, a model that speaks of itself, a gap left to "
    "be filled in, a mark of the prompt",
    "off_language": "are in another language than the reference",
    "toxic": "bring in an insult, a swear word, a slur or a threat",
    "stereotyped": "say of a whole group of people what it is like",
    "flagged": "are flagged by the classifier that you named",
}
BEGINNING = 250
LETTERS, SURE, MAIN = 40, 0.9, 0.8
READ = 2000
_LETTER = re.compile(r"[^\W\d_]")
_PHRASES = re.compile(PHRASES)
_SCAFFOLD = re.compile(
    r"(?im)^\s*(?:#{2,}\s*(?:instruction|response|input|output)\b|"
    r"(?:user|assistant|system|human|question|answer)\s*:)|"
    r"\[/?INST\]|<</?SYS>>|\{\{?\s*\w+\s*\}?\}|\blorem ipsum\b|<(?:start|end)_of_turn>"
)


def marks(
    sources: Sequence[str],
    references: Sequence[str],
    texts: Sequence[str],
    ended: Bools | None = None,
    flagged: Bools | None = None,
) -> dict[str, Bools]:
    """Which of the ``texts`` [n] bear each mark of ``MEANING``, [n] each.

    ``ended`` [n] is whether a model ended the text itself (``None``: nobody can say, and ``cut`` is
    left out); ``flagged`` [n] what a classifier said (``None``: there is none). What a prompt
    brings in is not the answer's: ``toxic``, ``stereotyped`` and ``template`` count what the source
    does not hold. A text of fewer than 40 letters, or of which the language is not sure, is in no
    other language. Every mark is of one row alone, so rows can be tested as such.
    """
    expected = languages(references)
    found = {
        "empty": [not normal(text) for text in texts],
        "repeated": [loops(text) for text in texts],
        "template": [_template(source, text) for source, text in zip(sources, texts, strict=True)],
        "off_language": [
            _foreign(text, wanted) for text, wanted in zip(texts, expected, strict=True)
        ],
        "toxic": [
            bool(toxic_words(text) - toxic_words(source))
            for source, text in zip(sources, texts, strict=True)
        ],
        "stereotyped": [
            bool(stereotypes(text) - stereotypes(source))
            for source, text in zip(sources, texts, strict=True)
        ],
    }
    table: dict[str, Bools] = {name: np.asarray(row, dtype=bool) for name, row in found.items()}
    if ended is not None:
        # What says nothing did not go on for too long.
        table["cut"] = ~np.asarray(ended, dtype=bool) & ~table["empty"]
    if flagged is not None:
        table["flagged"] = np.asarray(flagged, dtype=bool)
    return {name: table[name] for name in MEANING if name in table}


def languages(references: Sequence[str]) -> list[str | None]:
    """The language that each answer should be in: its reference's, where that is sure; else the one
    of eight in ten of the others; else ``None``."""
    own = [_language(text) for text in references]
    known = Counter(language for language in own if language is not None)
    main: str | None = None
    if known:
        (most, count), *_ = known.most_common(1)
        main = most if count >= MAIN * known.total() else None
    return [language or main for language in own]


def _template(source: str, text: str) -> bool:
    if REFUSAL.search(text[:BEGINNING]) and not REFUSAL.search(source):
        return True
    for pattern in (_PHRASES, _SCAFFOLD):
        match = pattern.search(text)
        if match is not None and match[0].strip().lower() not in source.lower():
            return True
    return False


def _foreign(text: str, wanted: str | None) -> bool:
    """Whether a text and each half of it are in another language than the one wanted."""
    found = _language(text)
    if wanted is None or found is None or found == wanted:
        return False
    words = text[:READ].split()
    middle = len(words) // 2
    halves = (words[:middle], words[middle:]) if len(words) >= 6 else ()
    return all(language_of(" ".join(half))[0] == found for half in halves)


def _language(text: str) -> str | None:
    if len(_LETTER.findall(text[:READ])) < LETTERS:
        return None
    language, sure = language_of(text[:READ])
    return language if sure >= SURE else None
