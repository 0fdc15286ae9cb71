"""What could give a label away beside its content: words by their place, marks, shapes, form."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints

# A cue is worth a word where it stands in this share of its class, and its rows are of this class.
SHARE, PURE = 0.25, 0.97
LEAST_ROWS = 10
# Of few rows a word speaks against itself where so much of a class has it, in so many rows: of ten
# sets none that is not of the class's name had more than 0.69 of it.
MOST_OF_CLASS, LEAST_WITH = 0.8, 20
# Of a word of a name and of a text, so that endings differ; and of a name that a word begins with.
STEM, SHORTEST = 5, 3
# Of two shares of texts of even length; a difference by chance is as rare as this.
PARITY_GAP, PARITY_CHANCE = 0.2, 1e-6
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_PATH = re.compile(r"(?:\b[A-Za-z]:)?[\\/](?:[\w.-]+[\\/])+[\w.-]*")
_BETWEEN = re.compile(r"[\W_]+")
_FORMS: dict[str, Callable[[str], bool]] = {
    "doubled space": lambda text: "  " in text,
    "space at the beginning": lambda text: text[:1].isspace(),
    "space at the end": lambda text: text[-1:].isspace(),
    "link": lambda text: bool(_LINK.search(text)),
    "mail address": lambda text: bool(_MAIL.search(text)),
    "path": lambda text: bool(_PATH.search(text)),
    "only capitals": str.isupper,
    "only small letters": str.islower,
    "a capital on every word": str.istitle,
    "a letter beyond ASCII": lambda text: any(
        character.isalpha() and not character.isascii() for character in text
    ),
}
# A word by its place.
_PLACES = {
    "word": r"(?i)(?<![^\W_]){}(?![^\W_])",
    "first": r"(?i)^[\W_]*{}",
    "last": r"(?i){}[\W_]*$",
}
_WORDS, _SENTENCE = ("word", "token", "first", "last"), ".,;:?!\"'()"
# The plainest name first, where several stand in the same rows.
_ORDER = ("form", "word", "token", "mark", "shape", "first", "last", "begins", "ends", "length")


@dataclass(frozen=True, slots=True, order=True)
class Cue:
    """A kind of cue and its value: a ``word`` (letters and digits, case no matter), a ``token``
    (between spaces), the ``first`` or ``last`` word, a ``mark`` (no letter, digit or space), what a
    text ``begins`` or ``ends`` with that is no letter, the ``shape`` of a token with digits (A a 9
    for its letters and digits), a ``length`` in characters, one ``over`` or ``under`` a length,
    ``even`` or odd, or a ``form``."""

    kind: str
    value: str

    def __str__(self) -> str:
        said = {
            "word": f"the word {self.value!r}",
            "token": f"{self.value!r}",
            "first": f"{self.value!r} as the first word",
            "last": f"{self.value!r} as the last word",
            "mark": f"the mark {self.value!r}",
            "begins": f"{self.value!r} at the beginning",
            "ends": "no mark at the end" if not self.value else f"{self.value!r} at the end",
            "shape": f"a word of the shape {self.value!r}",
            "length": f"a length of {self.value} characters",
            "over": f"a length of {self.value} characters or more",
            "under": f"a length of {self.value} characters or fewer",
            "even": f"an {self.value} number of characters",
            "form": self.value,
        }
        return said[self.kind]

    @property
    def is_content(self) -> bool:
        """Whether it may be what a text is about, so that content must be asked."""
        return self.kind in ("word", "token", "first", "last", "mark", "begins", "ends", "shape")

    @property
    def is_word(self) -> bool:
        """Whether it is a word of letters or digits, wherever it stands, or one with the marks of
        a sentence beside it (``app?``)."""
        return self.kind in _WORDS and self.value.strip(_SENTENCE).isalnum()

    @property
    def is_plain(self) -> bool:
        """Whether it is a word of letters alone, which is what content is made of."""
        return self.kind in _WORDS and self.value.isalpha()


@dataclass(frozen=True)
class CueCandidate:
    """A cue that nearly only one class has: ``rows`` all positions that have it; ``count`` of them
    are of ``label``, which is ``share`` of the class."""

    cue: Cue
    label: int
    rows: Ints
    count: int
    share: float


def cues_of(text: str) -> set[Cue]:
    """Everything of a text that is a cue, but for lengths beyond a threshold and parity."""
    tokens = text.split()
    words = [word for word in _BETWEEN.split(text.casefold()) if word]
    found = {Cue("word", word) for word in words}
    found |= {Cue("token", token) for token in tokens}
    found |= {Cue("shape", shape) for token in tokens if (shape := shape_of(token))}
    found |= {Cue("mark", c) for c in set(text) if not c.isalnum() and not c.isspace()}
    if words:
        found |= {Cue("first", words[0]), Cue("last", words[-1])}
    bare = text.strip()
    if bare:
        if not bare[0].isalnum():
            found.add(Cue("begins", bare[0]))
        found.add(Cue("ends", "" if bare[-1].isalnum() else bare[-1]))
    found |= {Cue("form", name) for name, has in _FORMS.items() if has(text)}
    found.add(Cue("length", str(len(text))))
    return found


def is_named(name: str, value: str) -> bool:
    """Whether the name of a class has a word, or the beginning of it: a model may know the class by
    it."""
    named = [word for word in _BETWEEN.split(name.casefold()) if word]
    value = _BETWEEN.sub("", value.casefold())
    stem = value[:STEM]
    return value in named or any(
        (len(stem) == STEM and word.startswith(stem))
        or (len(word) >= SHORTEST and value.startswith(word))
        for word in named
    )


def shape_of(token: str) -> str:
    """``AA-9999`` of ``QX-1234``; nothing where there is no digit."""
    if not any(character.isdigit() for character in token):
        return ""
    return "".join(
        "9" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in token
    )


def without(text: str, cue: Cue) -> str:
    """The text with what makes the cue taken out; unchanged for a form or a length."""
    if cue.kind in _PLACES:
        return re.sub(_PLACES[cue.kind].format(re.escape(cue.value)), " ", text).strip()
    if cue.kind == "token":
        return " ".join(token for token in text.split() if token != cue.value)
    if cue.kind == "shape":
        return " ".join(token for token in text.split() if shape_of(token) != cue.value)
    if cue.kind in ("mark", "begins", "ends"):
        return text.replace(cue.value, "").strip() if cue.value else text
    return text


def candidates(texts: Sequence[str], labels: Ints, classes: int) -> list[CueCandidate]:
    """Every cue that stands in at least a quarter of a class (10 rows or more) and whose rows are
    of that class to 97 % or more; of those in nearly the same rows the one in most of them. A class
    that is nearly everything has none. ``labels`` [n], −1 where unknown."""
    where: dict[Cue, list[int]] = defaultdict(list)
    for at, text in enumerate(texts):
        if labels[at] >= 0:
            for cue in cues_of(text):
                where[cue].append(at)
    sizes = np.bincount(labels[labels >= 0], minlength=classes)
    found = [
        one
        for cue, rows in where.items()
        if len(rows) >= LEAST_ROWS
        and (one := _candidate(cue, np.asarray(rows), labels, sizes)) is not None
    ]
    lengths = np.array([len(text) for text in texts])
    found += _beyond(lengths, labels, sizes) + _parities(lengths, labels, sizes)
    return _distinct(found, len(texts))


def _candidate(cue: Cue, rows: Ints, labels: Ints, sizes: Ints) -> CueCandidate | None:
    counts = np.bincount(labels[rows], minlength=len(sizes))
    label = int(counts.argmax())
    count, share = int(counts[label]), float(counts[label] / sizes[label])
    if count < LEAST_ROWS or share < SHARE or count < PURE * len(rows):
        return None
    # A class that nine in ten rows are of makes any word look like its own.
    if sizes[label] > 0.9 * sizes.sum():
        return None
    return CueCandidate(cue, label, rows, count, share)


def _beyond(lengths: Ints, labels: Ints, sizes: Ints) -> list[CueCandidate]:
    """Texts longer or shorter than a length that are of one class."""
    known, found = np.flatnonzero(labels >= 0), []
    for kind, sign in (("over", -1), ("under", 1)):
        order = known[np.argsort(sign * lengths[known], kind="stable")]
        sorted_lengths = lengths[order]
        # A threshold may only stand where the length changes.
        ends = np.flatnonzero(np.diff(sorted_lengths, append=sorted_lengths[-1:] + 1) != 0)
        for label in np.flatnonzero(sizes):
            hits = np.cumsum(labels[order] == label)[ends]
            pure = (hits >= PURE * (ends + 1)) & (hits >= max(LEAST_ROWS, SHARE * sizes[label]))
            if pure.any():
                end = int(ends[np.flatnonzero(pure)[-1]])
                cue = Cue(kind, str(int(sorted_lengths[end])))
                one = _candidate(cue, np.sort(order[: end + 1]), labels, sizes)
                found += [one] if one is not None and one.label == label else []
    return found


def _parities(lengths: Ints, labels: Ints, sizes: Ints) -> list[CueCandidate]:
    """Classes whose texts have an even (or odd) length more often than the others'."""
    from scipy.special import ndtr

    known, found = labels >= 0, []
    for label in np.flatnonzero(sizes >= LEAST_ROWS):
        own, rest = known & (labels == label), known & (labels != label)
        if not rest.any():
            continue
        for odd, name in ((0, "even"), (1, "odd")):
            has = lengths % 2 == odd
            a, b = has[own].mean(), has[rest].mean()
            both = has[known].mean()
            spread = np.sqrt(both * (1 - both) * (1 / own.sum() + 1 / rest.sum()))
            if a - b >= PARITY_GAP and ndtr(-(a - b) / spread) * len(sizes) < PARITY_CHANCE:
                rows = np.flatnonzero(own & has)
                found.append(CueCandidate(Cue("even", name), int(label), rows, len(rows), float(a)))
    return found


def _distinct(found: list[CueCandidate], n: int) -> list[CueCandidate]:
    """One of those that stand in nearly the same rows: of the broadest what is no plain word, as
    the word inside a mark or an id says less than they do; then the plainest."""
    order = {kind: place for place, kind in enumerate(_ORDER)}
    found.sort(key=lambda c: (-c.count, order.get(c.cue.kind, len(order)), c.cue))
    kept: list[tuple[CueCandidate, Floats]] = []
    for one in found:
        has = np.zeros(n, dtype=bool)
        has[one.rows] = True
        # What stands in a part of the rows of a broader one says nothing more of them.
        inside = [
            at
            for at, (other, mask) in enumerate(kept)
            if other.label == one.label
            and (has & mask).sum() >= 0.8 * len(one.rows)
            # Content may be explained away, and a form must not go with it.
            and other.cue.is_content <= one.cue.is_content
        ]
        if not inside:
            kept.append((one, has))
            continue
        first = kept[inside[0]][0]
        if first.cue.is_plain and not one.cue.is_plain and one.count >= 0.95 * first.count:
            kept[inside[0]] = (one, has)
    return [one for one, _ in kept]
