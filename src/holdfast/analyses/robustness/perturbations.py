"""Perturbations of texts that keep the meaning: numbers, negations and names stay, by the masks of
``enrich`` (``free_places``, ``lost``).

Perturbations of images as a worse camera might have taken them.
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
TYPED_SHARE, MIN_LETTERS = 0.1, 4
# Phrases without meaning, for the beginning or the end of any English text.
OPENERS = ("well ,", "so ,", "anyway ,", "by the way ,", "as I said ,")
CLOSERS = (", by the way", ", as I said", ", just saying", ", that is all")
# In both directions; a negation stays a negation.
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
CONTRACTION_PAIRS = dict(CONTRACTIONS) | {short: long for long, short in CONTRACTIONS}
_EITHER = re.compile(
    r"\b(?:" + "|".join(re.escape(one).replace("'", "['’]") for one in CONTRACTION_PAIRS) + r")\b",
    re.IGNORECASE,
)


def add_typing_errors(text: str, rng: np.random.Generator) -> str:
    """One typing error in one word in ten, at least one: inside a free word of four letters or more
    two letters are swapped, one is dropped, or one is doubled."""
    words = split(text)
    places = [
        place
        for place in free_places(words)
        if len(words.words[place]) >= MIN_LETTERS and words.words[place].isalpha()
    ]
    if not places:
        return text
    count = min(len(places), max(1, round(TYPED_SHARE * len(words))))
    for place in rng.choice(places, size=count, replace=False):
        words = words.changed(int(place), _slip(words.words[int(place)], rng))
    return str(words)


def _slip(word: str, rng: np.random.Generator) -> str:
    position, edit = int(rng.integers(1, len(word) - 2)), int(rng.integers(3))
    if edit == 0:
        return word[:position] + word[position + 1] + word[position] + word[position + 2 :]
    if edit == 1:
        return word[:position] + word[position + 1 :]
    return word[:position] + word[position] + word[position:]


def change_case(text: str, _: np.random.Generator) -> str:
    """The text in lowercase; in uppercase if it is lowercase already."""
    return text.lower() if text != text.lower() else text.upper()


def change_contractions(text: str, _: np.random.Generator) -> str:
    """Expand English contractions, and contract what is written out; also in tokenized texts
    ("do n't")."""
    joined = re.sub(r"\b(\w+) n ?['’]t\b", r"\1n't", text, flags=re.IGNORECASE)
    joined = re.sub(r"(\w) ['’](s|re|ve|ll|m)\b", r"\1'\2", joined, flags=re.IGNORECASE)
    new = _EITHER.sub(_replacement, joined)
    return new if new != joined else text


def _replacement(match: re.Match[str]) -> str:
    word = match[0]
    new = CONTRACTION_PAIRS[word.casefold().replace("’", "'")]
    return new[:1].upper() + new[1:] if word[:1].isupper() else new


def replace_synonyms(text: str, rng: np.random.Generator) -> str:
    """Replace up to one content word in five by a synonym of WordNet's first sense."""
    return Synonyms().change(text, rng)


def add_noise_words(text: str, rng: np.random.Generator) -> str:
    """Add a few words without meaning at the beginning or the end of the text."""
    if not text.strip():
        return text
    if rng.random() < 0.5:
        return f"{OPENERS[int(rng.integers(len(OPENERS)))]} {text}"
    return f"{text.rstrip()} {CLOSERS[int(rng.integers(len(CLOSERS)))]}"


def change_end_marks(text: str, _: np.random.Generator) -> str:
    """Remove the punctuation at the end; a text without any gets a full stop."""
    bare = text.rstrip().rstrip(".!?;:,").rstrip()
    if not bare or bare.endswith(("(", ")")):
        return text
    return bare if bare != text.rstrip() else f"{bare} ."


TEXT_CHANGES: Mapping[str, Change] = {
    "typing errors": add_typing_errors,
    "case": change_case,
    "contractions": change_contractions,
    "synonyms": replace_synonyms,
    "noise words": add_noise_words,
    "end marks": change_end_marks,
}
# Changes that leave every word in its place, so that its tag still fits.
WORD_BY_WORD = ("typing errors", "case")


def perturb(name: str, text: str, rng: np.random.Generator) -> str:
    """The changed text; unchanged if the change would lose a number, a negation or a name."""
    new = TEXT_CHANGES[name](text, rng)
    if new == text:
        return text
    # In another case every name is another word, but still the same name.
    before, after = (text.lower(), new.lower()) if name == "case" else (text, new)
    return text if lost(before, after) else new


def why_unavailable(name: str) -> str | None:
    """Why a perturbation is not available; ``None`` if it is."""
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
    """Gaussian blur with 2 % of the shorter side."""
    import torch

    return blurred(pixels, torch.tensor([BLUR * min(pixels.shape[-2:])], dtype=torch.float32))


def noise(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Gaussian noise of 5 % of the range, for each value."""
    import torch

    values = rng.normal(0.0, NOISE, tuple(pixels.shape)).astype(np.float32)
    return (pixels + torch.from_numpy(values)).clamp(0, 1)


def crop(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift by up to a tenth of each side."""
    return shifted(pixels, [rng], SHIFT)


IMAGE_CHANGES: Mapping[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "blur": blur,
    "noise": noise,
    "crop": crop,
}
