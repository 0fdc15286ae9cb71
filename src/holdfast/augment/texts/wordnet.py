"""A reader of WordNet 3 (Debian's ``wordnet-base``): lemmas, synonyms, inflection.

Only the first sense of a word is used, which is its most frequent one: word senses are not
disambiguated by context.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.core.errors import MachineError

Part = Literal["noun", "verb", "adj", "adv"]
PARTS: tuple[Part, ...] = ("noun", "verb", "adj", "adv")
PLACES = (Path("/usr/share/wordnet"), Path("/usr/share/wordnet-3.0/dict"))
# The synset types in a sense key: noun, verb, adjective, adverb, satellite adjective.
KINDS: Mapping[str, Part] = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
# (ending, its replacement in the lemma) by inflected form.
ENDINGS: Mapping[Part, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "noun": {
        "s": (
            ("ies", "y"),
            ("ches", "ch"),
            ("shes", "sh"),
            ("sses", "ss"),
            ("xes", "x"),
            ("zes", "z"),
            ("men", "man"),
            ("s", ""),
        )
    },
    "verb": {
        "s": (("ies", "y"), ("es", "e"), ("es", ""), ("s", "")),
        "ed": (("ied", "y"), ("ed", "e"), ("ed", "")),
        "ing": (("ing", "e"), ("ing", "")),
    },
    "adj": {
        "er": (("ier", "y"), ("er", ""), ("er", "e")),
        "est": (("iest", "y"), ("est", ""), ("est", "e")),
    },
    "adv": {},
}
VOWELS = "aeiou"
# The first sense must be this many times as frequent as all other readings together.
CLEAR = 2.0


@dataclass(frozen=True, slots=True)
class Reading:
    """A reading of a word form as an inflected lemma: ``ending`` is ``""``, ``s``, ``ed``, ``ing``,
    ``er`` or ``est``; ``uses`` is the corpus count of the lemma's first sense."""

    lemma: str
    part: Part
    ending: str
    uses: int


class WordNet:
    """The four indexes, and their synsets, which are parsed on demand."""

    def __init__(self, folder: Path) -> None:
        self._offsets: dict[Part, dict[str, int]] = {}
        self._data: dict[Part, bytes] = {}
        self._irregular: dict[Part, dict[str, str]] = {}
        self._forms: dict[Part, dict[str, list[str]]] = {}
        for part in PARTS:
            self._offsets[part] = {}
            for cells in _cells(folder / f"index.{part}"):
                # lemma pos synset_cnt p_cnt [p_cnt symbols] sense_cnt tagsense_cnt offset …
                self._offsets[part][cells[0]] = int(cells[6 + int(cells[3])])
            self._data[part] = (folder / f"data.{part}").read_bytes()
            lines = _cells(folder / f"{part}.exc")
            self._irregular[part] = {cells[0]: cells[1] for cells in lines if len(cells) >= 2}
            self._forms[part] = {}
            for form, lemma in self._irregular[part].items():
                self._forms[part].setdefault(lemma, []).append(form)
        # Corpus counts: (lemma, part of speech, number of the sense) → count.
        self._uses: dict[tuple[str, Part, int], int] = {}
        for key, sense, count in _cells(folder / "cntlist.rev"):
            lemma, _, rest = key.partition("%")
            self._uses[lemma, KINDS[rest[0]], int(sense)] = int(count)
        self._known: dict[str, tuple[str, ...]] = {}

    def readings(self, form: str) -> list[Reading]:
        """The possible readings of a word form (in lowercase)."""
        readings: dict[tuple[str, Part], Reading] = {}
        for part in PARTS:
            for lemma, ending in self._lemmas(form, part):
                key = (lemma, part)
                if key not in readings and lemma in self._offsets[part]:
                    readings[key] = Reading(
                        lemma, part, ending, self._uses.get((lemma, part, 1), 0)
                    )
        return list(readings.values())

    def clear_reading(self, form: str) -> Reading | None:
        """The reading that is ``CLEAR`` times as frequent as all others together, and whose first
        sense is at least as frequent as its other senses; ``None`` without one."""
        readings = sorted(self.readings(form), key=lambda one: -one.uses)
        if not readings or not readings[0].uses:
            return None
        first = readings[0]
        if first.uses < CLEAR * sum(one.uses for one in readings[1:]):
            return None
        others, sense = 0, 2
        while (first.lemma, first.part, sense) in self._uses:
            others += self._uses[first.lemma, first.part, sense]
            sense += 1
        return first if first.uses >= others else None

    def synonyms(self, form: str) -> tuple[str, ...]:
        """Single words of the first sense of the clear reading of ``form``, inflected like it. The
        sense must also be their own first sense, with a corpus count: "player" does not become
        "participant"."""
        if form not in self._known:
            reading = self.clear_reading(form)
            synonyms = [] if reading is None else self._synonyms(reading)
            self._known[form] = tuple(
                word for word in synonyms if word is not None and word != form
            )
        return self._known[form]

    def _synonyms(self, reading: Reading) -> list[str | None]:
        part, data = reading.part, self._data[reading.part]
        offset = self._offsets[part][reading.lemma]
        cells = data[offset : data.index(b"\n", offset)].decode("ascii").split()
        # offset file type words [word place] …, the number of words in hexadecimal.
        words = [cells[4 + 2 * k].partition("(")[0] for k in range(int(cells[3], 16))]
        return [
            self.inflected(word, reading)
            for word in words
            if word.isalpha()
            and word.islower()
            and word != reading.lemma
            and self._offsets[part].get(word) == offset
            and self._uses.get((word, part, 1), 0)
        ]

    def inflected(self, lemma: str, like: Reading) -> str | None:
        """A lemma inflected like ``like``; ``None`` if the form is unknown, as for an irregular
        verb with more than one past form."""
        if not like.ending:
            return lemma
        irregular = self._forms[like.part].get(lemma, [])
        if irregular:
            fitting = [form for form in irregular if _fits(form, like.ending)]
            return fitting[0] if len(fitting) == 1 else None
        if like.part == "adj" and len(lemma) > 6:
            # Long adjectives form their comparative with "more" and "most".
            return None
        return _inflected(lemma, like.ending)

    def _lemmas(self, form: str, part: Part) -> Iterator[tuple[str, str]]:
        yield form, ""
        irregular = self._irregular[part].get(form)
        if irregular is not None:
            yield irregular, _ending_of(form, part)
            return
        for ending, replacements in ENDINGS[part].items():
            for cut, put in replacements:
                if form.endswith(cut) and len(form) > len(cut) + 1:
                    stem = form[: -len(cut)]
                    yield stem + put, ending
                    doubled = len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in VOWELS
                    if doubled and not put and ending != "s":
                        yield stem[:-1], ending


def _cells(path: Path) -> Iterator[list[str]]:
    """The cells of each line of a file; the lines of its licence begin with a space."""
    with path.open(encoding="ascii") as lines:
        yield from (line.split() for line in lines if not line.startswith(" "))


def _ending_of(form: str, part: Part) -> str:
    if part == "noun":
        return "s"
    if part == "verb":
        return "ing" if form.endswith("ing") else "s" if form.endswith("s") else "ed"
    return "est" if form.endswith("est") else "er"


def _fits(form: str, ending: str) -> bool:
    """Whether an irregular form corresponds to ``ending``."""
    if ending in ("s", "ed"):
        return not form.endswith("ing") and (ending == "ed" or form.endswith("s"))
    return form.endswith(ending)


def _inflected(lemma: str, ending: str) -> str:
    """A regular lemma with an inflectional ending."""
    last, before = lemma[-1], lemma[-2:-1]
    if ending == "s":
        if last == "y" and before not in VOWELS:
            return f"{lemma[:-1]}ies"
        return f"{lemma}es" if lemma.endswith(("s", "x", "z", "ch", "sh")) else f"{lemma}s"
    if last == "e":
        return (
            lemma[:-1] + ending if not lemma.endswith("ee") or ending != "ing" else lemma + ending
        )
    if last == "y" and before not in VOWELS and ending != "ing":
        return f"{lemma[:-1]}i{ending}"
    short = sum(letter in VOWELS for letter in lemma) == 1 and len(lemma) > 2
    closed = last not in f"{VOWELS}wxy" and before in VOWELS
    return f"{lemma}{last}{ending}" if short and closed else lemma + ending


@functools.cache
def wordnet() -> WordNet:
    """The WordNet installation of this machine, read once per process.

    Raises ``MachineError`` if it is not installed.
    """
    for folder in PLACES:
        if (folder / "index.noun").is_file():
            return WordNet(folder)
    rule = f"needs the files of WordNet, but none were found in {PLACES[0]}"
    remedy = "Install them: apt-get install wordnet-base."
    raise MachineError("synonym replacement", rule, None, remedy)
