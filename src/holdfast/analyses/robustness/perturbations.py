"""Texts as somebody else might have typed them. None of these changes what a text says: numbers,
negations and names stay, by the masks of ``enrich`` (``free_places``, ``lost``).

Pictures as a worse camera might have taken them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from holdfast.augment.pictures.colours import blurred
from holdfast.augment.pictures.warp import shifted
from holdfast.augment.texts.word_edits import Synonyms, free_places, lost, split
from holdfast.augment.texts.wordnet import wordnet
from holdfast.core.errors import MachineError

if TYPE_CHECKING:
    from torch import Tensor


Change = Callable[[str, np.random.Generator], str]
TYPED, LEAST_LETTERS = 0.1, 4
# Said at the beginning or the end of anything, in English.
OPENERS = ("well ,", "so ,", "anyway ,", "by the way ,", "as I said ,")
CLOSERS = (", by the way", ", as I said", ", just saying", ", that is all")
# Both ways; what stands for a negation negates on both sides.
CONTRACTIONS = (
    ("do not", "don't"),
    ("does not", "doesn't"),
    ("did not", "didn't"),
    ("is not", "isn't"),
    ("are not", "aren't"),
    ("was not", "wasn't"),
    ("were not", "weren't"),
    ("have not", "haven't"),
    ("has not", "hasn't"),
    ("would not", "wouldn't"),
    ("could not", "couldn't"),
    ("should not", "shouldn't"),
    ("it is", "it's"),
    ("that is", "that's"),
    ("what is", "what's"),
    ("who is", "who's"),
    ("where is", "where's"),
    ("i am", "i'm"),
    ("i have", "i've"),
    ("i will", "i'll"),
    ("you are", "you're"),
    ("we are", "we're"),
    ("they are", "they're"),
)
OTHERWISE = dict(CONTRACTIONS) | {short: long for long, short in CONTRACTIONS}
_EITHER = re.compile(
    r"\b(?:" + "|".join(re.escape(one).replace("'", "['’]") for one in OTHERWISE) + r")\b",
    re.IGNORECASE,
)


def typed(text: str, rng: np.random.Generator) -> str:
    """A slip in one word in ten, at least one: inside a free word of four letters or more two
    letters change places, one is left out, or one stands twice."""
    words = split(text)
    places = [
        place
        for place in free_places(words)
        if len(words.words[place]) >= LEAST_LETTERS and words.words[place].isalpha()
    ]
    if not places:
        return text
    count = min(len(places), max(1, round(TYPED * len(words))))
    for place in rng.choice(places, size=count, replace=False):
        words = words.changed(int(place), _slip(words.words[int(place)], rng))
    return str(words)


def _slip(word: str, rng: np.random.Generator) -> str:
    at, way = int(rng.integers(1, len(word) - 2)), int(rng.integers(3))
    if way == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if way == 1:
        return word[:at] + word[at + 1 :]
    return word[:at] + word[at] + word[at:]


def recased(text: str, _: np.random.Generator) -> str:
    """In small letters; a text that is so already in capitals."""
    return text.lower() if text != text.lower() else text.upper()


def contracted(text: str, _: np.random.Generator) -> str:
    """English contractions written out, and what is written out contracted; texts cut into words
    ("do n't") too."""
    joined = re.sub(r"\b(\w+) n ?['’]t\b", r"\1n't", text, flags=re.IGNORECASE)
    joined = re.sub(r"(\w) ['’](s|re|ve|ll|m)\b", r"\1'\2", joined, flags=re.IGNORECASE)
    new = _EITHER.sub(_other, joined)
    return new if new != joined else text


def _other(found: re.Match[str]) -> str:
    word = found[0]
    new = OTHERWISE[word.casefold().replace("’", "'")]
    return new[:1].upper() + new[1:] if word[:1].isupper() else new


def synonyms(text: str, rng: np.random.Generator) -> str:
    """Up to one word of content in five by a synonym of WordNet's first sense."""
    return Synonyms().change(text, rng)


def noisy(text: str, rng: np.random.Generator) -> str:
    """A few words that say nothing, before the text or behind it."""
    if not text.strip():
        return text
    if rng.random() < 0.5:
        return f"{OPENERS[int(rng.integers(len(OPENERS)))]} {text}"
    return f"{text.rstrip()} {CLOSERS[int(rng.integers(len(CLOSERS)))]}"


def unmarked(text: str, _: np.random.Generator) -> str:
    """Without the marks at its end; a text without any gets a full stop."""
    bare = text.rstrip().rstrip(".!?;:,").rstrip()
    if not bare or bare.endswith(("(", ")")):
        return text
    return bare if bare != text.rstrip() else f"{bare} ."


TEXTS: Mapping[str, Change] = {
    "typing errors": typed,
    "case": recased,
    "contractions": contracted,
    "synonyms": synonyms,
    "noise words": noisy,
    "end marks": unmarked,
}
# Those that leave every word in its place, so that its tag is still its own.
WORD_BY_WORD = ("typing errors", "case")


def perturbed(name: str, text: str, rng: np.random.Generator) -> str:
    """The text as it is where the form would have lost a number, a negation or a name."""
    new = TEXTS[name](text, rng)
    if new == text:
        return text
    # In other letters every name is another word, and is still the name.
    before, after = (text.lower(), new.lower()) if name == "case" else (text, new)
    return text if lost(before, after) else new


def missing(name: str) -> str | None:
    """Why a perturbation cannot be made here."""
    if name != "synonyms":
        return None
    try:
        wordnet()
    except MachineError as error:
        return f"{error.rule}; {error.remedy}"
    return None


# As shares: of the shorter side, of the range of values, of a side.
BLUR, NOISE, SHIFT = 0.02, 0.05, 0.1


def blur(pixels: Tensor, _: np.random.Generator) -> Tensor:
    """A bell of 2 % of the shorter side."""
    import torch

    return blurred(pixels, torch.tensor([BLUR * min(pixels.shape[-2:])], dtype=torch.float32))


def noise(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Normal noise of 5 % of the range, for each value."""
    import torch

    drawn = rng.normal(0.0, NOISE, tuple(pixels.shape)).astype(np.float32)
    return (pixels + torch.from_numpy(drawn)).clamp(0, 1)


def crop(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Moved by up to a tenth of a side each way."""
    return shifted(pixels, [rng], SHIFT)


PICTURES: Mapping[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "crop": crop,
}
