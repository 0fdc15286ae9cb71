"""Does the meaning of a text survive in another form of it? What can be told without a model.

What holds a label is rarely known, but a text that lost its numbers, a negation, a name or a term
that the user protects says something else. The similarity of the two as a sentence encoder sees
them is ``meaning.py``'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.augment.texts.words import names_of, negations_of, numbers_of, protected_places, split

# Beyond these a form is another text: a translation that was cut, a model that went on and on.
LEAST_LENGTH, MOST_LENGTH = 0.5, 2.0


def lost(before: str, after: str, protect: Sequence[str] = (), *, names: bool = True) -> str | None:
    """What a form lost of its text in a word (``numbers``, ``negation``, ``names``, ``protected
    terms``, ``length``, ``all words``), or ``None`` where nothing is missed.

    Numbers must be the same, as often; negations as many; every name and every protected term must
    be there as often as before; the words at least half and at most twice as many, or one apart.
    """
    old, new = split(before), split(after)
    if len(old) and not len(new):
        return "all words"
    if numbers_of(before) != numbers_of(after):
        return "numbers"
    if negations_of(old) != negations_of(new):
        return "negation"
    have = {word.casefold() for word in new.words}
    if names and any(name.casefold() not in have for name in names_of(old)):
        return "names"
    for term in protect:
        if len(protected_places(old, [term])) != len(protected_places(new, [term])):
            return "protected terms"
    far = not LEAST_LENGTH * len(old) <= len(new) <= MOST_LENGTH * len(old)
    return "length" if far and abs(len(new) - len(old)) > 1 else None
