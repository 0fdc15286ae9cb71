"""Cues that could reveal a label: words by position, symbols, token shapes, formats, lengths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints

# A cue counts if at least this share of its class has it, and this share of its rows are of the
# class.
MIN_CLASS_SHARE, MIN_PURITY = 0.25, 0.97
LEAST_ROWS = 10
# In a small table a word is suspect if this share of a class has it, in this many rows. In ten data
# sets no word outside the class name occurred in more than 0.69 of a class.
DOMINANT_CLASS_SHARE, MIN_ROWS_WITH_WORD = 0.8, 20
# Letters that a word of a class name and a word of a text must share, since endings differ; and the
# fewest letters of a name that a word may begin with.
STEM_CHARACTERS, MIN_WORD_CHARACTERS = 5, 3
# Least difference of two shares of texts of even length, and the significance level.
PARITY_GAP, PARITY_ALPHA = 0.2, 1e-6
_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_PATH = re.compile(r"(?:\b[A-Za-z]:)?[\\/](?:[\w.-]+[\\/])+[\w.-]*")
_NON_WORD = re.compile(r"[\W_]+")
_TEXT_FORMS: dict[str, Callable[[str], bool]] = {
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
# Patterns for a word, by its position.
_PLACE_PATTERNS = {
    "word": r"(?i)(?<![^\W_]){}(?![^\W_])",
    "first": r"(?i)^[\W_]*{}",
    "last": r"(?i){}[\W_]*$",
}
_WORD_CUES, _SENTENCE_MARKS = ("word", "token", "first", "last"), ".,;:?!\"'()"
# Marks with a meaning in words, numbers and addresses, too: none is deleted wherever it is.
_PROSE_MARKS = _SENTENCE_MARKS + "-–—’‘“”…/&%$€£@_+"
# Of several cues in the same rows, the first of these types is reported.
_CUE_PRIORITY = (
    "form",
    "word",
    "token",
    "mark",
    "shape",
    "first",
    "last",
    "begins",
    "ends",
    "length",
)


@dataclass(frozen=True, slots=True, order=True)
class Cue:
    """A type of cue and its value: a ``word`` (letters and digits, ignoring case), a ``token``
    (between spaces), the ``first`` or ``last`` word, a ``mark`` (no letter, digit or space), a
    non-alphanumeric character that a text ``begins`` or ``ends`` with, the ``shape`` of a token
    with digits (A a 9 for its letters and digits), a ``length`` in characters, a length ``over`` or
    ``under`` a limit, an ``even`` or odd length, or a ``form`` (format of the text)."""

    cue_type: str
    value: str

    def __str__(self) -> str:
        descriptions = {
            "word": f"the word {self.value!r}",
            "token": f"{self.value!r}",
            "first": f"{self.value!r} as the first word",
            "last": f"{self.value!r} as the last word",
            "mark": f"the symbol {self.value!r}",
            "begins": f"{self.value!r} at the beginning",
            "ends": "no punctuation at the end" if not self.value else f"{self.value!r} at the end",
            "shape": f"a token of the shape {self.value!r}",
            "length": f"a length of {self.value} characters",
            "over": f"a length of {self.value} characters or more",
            "under": f"a length of {self.value} characters or fewer",
            "even": f"an {self.value} number of characters",
            "form": self.value,
        }
        return descriptions[self.cue_type]

    @property
    def is_content(self) -> bool:
        """Whether it may be content, so that ``ContentModel`` must examine it."""
        return self.cue_type in (
            "word",
            "token",
            "first",
            "last",
            "mark",
            "begins",
            "ends",
            "shape",
        )

    @property
    def is_deletable(self) -> bool:
        """Whether its value is a piece of text that can be deleted wherever it is: a word, or a
        symbol that is no punctuation of sentences."""
        if self.cue_type == "word":
            return True
        rest = self.value.strip(_PROSE_MARKS)
        return self.cue_type in ("token", "mark") and bool(rest) and not rest.isalnum()

    @property
    def is_word(self) -> bool:
        """Whether it is a word of letters or digits at any position, possibly with punctuation
        (``app?``)."""
        return self.cue_type in _WORD_CUES and self.value.strip(_SENTENCE_MARKS).isalnum()

    @property
    def is_plain(self) -> bool:
        """Whether it is a word of letters only, as content usually is."""
        return self.cue_type in _WORD_CUES and self.value.isalpha()


@dataclass(frozen=True)
class CueCandidate:
    """A cue of nearly a single class: ``rows`` are all positions that have it; ``count`` of them
    are of the class ``label``, which is the ``share`` of that class."""

    cue: Cue
    label: int
    rows: Ints
    count: int
    share: float


def extract_cues(text: str) -> set[Cue]:
    """All cues of a text, except lengths beyond a threshold and parity."""
    tokens = text.split()
    words = [word for word in _NON_WORD.split(text.casefold()) if word]
    cues = {Cue("word", word) for word in words}
    cues |= {Cue("token", token) for token in tokens}
    cues |= {Cue("shape", shape) for token in tokens if (shape := shape_of(token))}
    cues |= {Cue("mark", c) for c in set(text) if not c.isalnum() and not c.isspace()}
    if words:
        cues |= {Cue("first", words[0]), Cue("last", words[-1])}
    stripped = text.strip()
    if stripped:
        if not stripped[0].isalnum():
            cues.add(Cue("begins", stripped[0]))
        cues.add(Cue("ends", "" if stripped[-1].isalnum() else stripped[-1]))
    cues |= {Cue("form", name) for name, has in _TEXT_FORMS.items() if has(text)}
    cues.add(Cue("length", str(len(text))))
    return cues


def is_in_class_name(name: str, value: str) -> bool:
    """Whether a class name contains a word or its stem, so that a model may recognize the class by
    it."""
    name_words = [word for word in _NON_WORD.split(name.casefold()) if word]
    value = _NON_WORD.sub("", value.casefold())
    stem = value[:STEM_CHARACTERS]
    return value in name_words or any(
        (len(stem) == STEM_CHARACTERS and word.startswith(stem))
        or (len(word) >= MIN_WORD_CHARACTERS and value.startswith(word))
        for word in name_words
    )


def shape_of(token: str) -> str:
    """The shape of a token: ``AA-9999`` for ``QX-1234``; empty without a digit."""
    if not any(character.isdigit() for character in token):
        return ""
    return "".join(
        "9" if c.isdigit() else "A" if c.isupper() else "a" if c.isalpha() else c for c in token
    )


def remove_cue(text: str, cue: Cue) -> str:
    """The text without the cue; unchanged for a form or a length."""
    if cue.cue_type in _PLACE_PATTERNS:
        return re.sub(_PLACE_PATTERNS[cue.cue_type].format(re.escape(cue.value)), " ", text).strip()
    if cue.cue_type == "token":
        return " ".join(token for token in text.split() if token != cue.value)
    if cue.cue_type == "shape":
        return " ".join(token for token in text.split() if shape_of(token) != cue.value)
    if cue.cue_type in ("mark", "begins", "ends"):
        return text.replace(cue.value, "").strip() if cue.value else text
    return text


def find_cue_candidates(texts: Sequence[str], labels: Ints, classes: int) -> list[CueCandidate]:
    """Every cue in at least a quarter of a class (10 rows or more), of whose rows 97 % or more are
    of that class. Of cues in nearly the same rows, the most frequent one is returned. A class with
    more than 90 % of the rows has none. ``labels`` [n], −1 if unknown."""
    rows_with_cue: dict[Cue, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        if labels[position] >= 0:
            for cue in extract_cues(text):
                rows_with_cue[cue].append(position)
    sizes = np.bincount(labels[labels >= 0], minlength=classes)
    found_candidates = [
        one
        for cue, rows in rows_with_cue.items()
        if len(rows) >= LEAST_ROWS
        and (one := _candidate(cue, np.asarray(rows), labels, sizes)) is not None
    ]
    lengths = np.array([len(text) for text in texts])
    found_candidates += _length_candidates(lengths, labels, sizes) + _parity_candidates(
        lengths, labels, sizes
    )
    return _remove_overlapping(found_candidates, len(texts))


def _candidate(cue: Cue, rows: Ints, labels: Ints, sizes: Ints) -> CueCandidate | None:
    counts = np.bincount(labels[rows], minlength=len(sizes))
    label = int(counts.argmax())
    count, share = int(counts[label]), float(counts[label] / sizes[label])
    if count < LEAST_ROWS or share < MIN_CLASS_SHARE or count < MIN_PURITY * len(rows):
        return None
    # In a class with more than 90 % of the rows, any word looks typical of it.
    if sizes[label] > 0.9 * sizes.sum():
        return None
    return CueCandidate(cue, label, rows, count, share)


def _length_candidates(lengths: Ints, labels: Ints, sizes: Ints) -> list[CueCandidate]:
    """Lengths above or below which nearly all texts are of one class."""
    labelled, candidates_ = np.flatnonzero(labels >= 0), []
    for cue_type, sign in (("over", -1), ("under", 1)):
        order = labelled[np.argsort(sign * lengths[labelled], kind="stable")]
        sorted_lengths = lengths[order]
        # A threshold must be where the length changes.
        ends = np.flatnonzero(np.diff(sorted_lengths, append=sorted_lengths[-1:] + 1) != 0)
        for label in np.flatnonzero(sizes):
            hits = np.cumsum(labels[order] == label)[ends]
            is_pure = (hits >= MIN_PURITY * (ends + 1)) & (
                hits >= max(LEAST_ROWS, MIN_CLASS_SHARE * sizes[label])
            )
            if is_pure.any():
                end = int(ends[np.flatnonzero(is_pure)[-1]])
                cue = Cue(cue_type, str(int(sorted_lengths[end])))
                one = _candidate(cue, np.sort(order[: end + 1]), labels, sizes)
                candidates_ += [one] if one is not None and one.label == label else []
    return candidates_


def _parity_candidates(lengths: Ints, labels: Ints, sizes: Ints) -> list[CueCandidate]:
    """Classes whose texts have an even (or odd) length more often than the others'."""
    from scipy.special import ndtr

    labelled, candidates_ = labels >= 0, []
    for label in np.flatnonzero(sizes >= LEAST_ROWS):
        in_class, rest = labelled & (labels == label), labelled & (labels != label)
        if not rest.any():
            continue
        for remainder, name in ((0, "even"), (1, "odd")):
            has = lengths % 2 == remainder
            a, b = has[in_class].mean(), has[rest].mean()
            pooled_share = has[labelled].mean()
            standard_error = np.sqrt(
                pooled_share * (1 - pooled_share) * (1 / in_class.sum() + 1 / rest.sum())
            )
            if a - b >= PARITY_GAP and ndtr(-(a - b) / standard_error) * len(sizes) < PARITY_ALPHA:
                rows = np.flatnonzero(in_class & has)
                candidates_.append(
                    CueCandidate(Cue("even", name), int(label), rows, len(rows), float(a))
                )
    return candidates_


def _remove_overlapping(candidates_: list[CueCandidate], n: int) -> list[CueCandidate]:
    """Keep one of the candidates in nearly the same rows: the most frequent one, but rather a
    symbol or an id than the plain word inside it; then by type."""
    order = {cue_type: place for place, cue_type in enumerate(_CUE_PRIORITY)}
    candidates_.sort(key=lambda c: (-c.count, order.get(c.cue.cue_type, len(order)), c.cue))
    selected: list[tuple[CueCandidate, Floats]] = []
    for candidate in candidates_:
        candidate_mask = np.zeros(n, dtype=bool)
        candidate_mask[candidate.rows] = True
        # A cue in a part of the rows of a more frequent one adds nothing.
        inside = [
            index
            for index, (other, mask) in enumerate(selected)
            if other.label == candidate.label
            and (candidate_mask & mask).sum() >= 0.8 * len(candidate.rows)
            # Content may be explained away; a form must not disappear with it.
            and other.cue.is_content <= candidate.cue.is_content
        ]
        if not inside:
            selected.append((candidate, candidate_mask))
            continue
        first = selected[inside[0]][0]
        if (
            first.cue.is_plain
            and not candidate.cue.is_plain
            and candidate.count >= 0.95 * first.count
        ):
            selected[inside[0]] = (candidate, candidate_mask)
    return [candidate for candidate, _ in selected]
