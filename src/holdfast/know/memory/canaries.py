"""Texts that a run is given to learn by heart, to see how well it does: canaries (1802.08232).

A canary is drawn at random, so nothing but having seen it makes it likely. It is planted 1, 4 or 16
times; its **exposure** is log₂(R + 1) − log₂(rank), in bits, its rank by loss among itself and R
others of the same make that were not planted. About 1.4 bits is what one that was never seen has on
average; the most is log₂(R + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

REPEATS = (1, 4, 16)
REFERENCES = 200
DIGITS = 6
LONGEST = 24


@dataclass(frozen=True, slots=True)
class Canary:
    """What is planted: a ``text`` with a class (an index), or with an ``answer`` that a model
    writes; so many ``repeats`` (0: of the others that it is compared with)."""

    text: str
    label: int
    answer: str
    repeats: int


@dataclass(frozen=True, slots=True)
class Canaries:
    """What is planted, and the others [200] that are not."""

    planted: tuple[Canary, ...]
    others: tuple[Canary, ...]


def labelled_canaries(texts: Sequence[str], classes: int, count: int, seed: int) -> Canaries:
    """Texts of words drawn at random from those of ``texts``, as long as these are, each with a
    random class."""
    random = generator(seed, "canaries")
    words = sorted({word for text in texts for word in text.split()})
    length = int(np.clip(np.median([len(text.split()) for text in texts]), 4, LONGEST))

    def one(repeats: int) -> Canary:
        text = " ".join(words[at] for at in random.integers(len(words), size=length))
        return Canary(text, int(random.integers(classes)), "", repeats)

    return _made(one, count)


def written_canaries(count: int, seed: int) -> Canaries:
    """Secret numbers: six random digits after a sentence that names whose they are."""
    random = generator(seed, "canaries")

    def one(repeats: int) -> Canary:
        owner = "".join(chr(97 + at) for at in random.integers(26, size=5))
        digits = " ".join(str(d) for d in random.integers(10, size=DIGITS))
        return Canary(f"The secret number of {owner} is", 0, digits, repeats)

    return _made(one, count)


def _made(one: Any, count: int) -> Canaries:
    planted = tuple(one(REPEATS[at % len(REPEATS)]) for at in range(count))
    return Canaries(planted, tuple(one(0) for _ in range(REFERENCES)))


def repeated(canaries: Canaries) -> Ints:
    """Which canary each planted row is of [rows]."""
    return np.repeat(
        np.arange(len(canaries.planted)), [canary.repeats for canary in canaries.planted]
    )


def exposures(planted: Floats, others: Floats) -> Floats:
    """The exposure in bits of each canary [n] by its loss, among ``others`` [R] that were not
    planted: log₂(R + 1) − log₂(rank). A tie ranks behind."""
    rank = 1 + (np.asarray(others)[None] <= np.asarray(planted)[:, None]).sum(axis=1)
    return np.asarray(np.log2(len(others) + 1) - np.log2(rank))


def canary_block(
    canaries: Canaries, planted: Floats, others: Floats, names: Sequence[str]
) -> dict[str, Any]:
    """``canaries`` of the memory block: each with its exposure, the means by repeats, and what they
    say in a sentence."""
    found = exposures(planted, others)
    repeats = np.array([canary.repeats for canary in canaries.planted])
    means = {int(n): float(found[repeats == n].mean()) for n in np.unique(repeats)}
    most = float(np.log2(len(others) + 1))
    told = ", ".join(
        f"{mean:.1f} bits where planted {'once' if n == 1 else f'{n} times'}"
        for n, mean in means.items()
    )
    because = (
        f"Of {len(canaries.planted)} planted random texts the model gives away {told}; "
        f"{most:.1f} is all there is to know, and a text that it never saw gives about 1.4."
    )
    return {
        "because": because,
        "most": most,
        "others": len(others),
        "exposure": [{"repeats": n, "value": mean} for n, mean in means.items()],
        "planted": [
            {
                "text": canary.text,
                "label": canary.answer or (names[canary.label] if names else None),
                "repeats": canary.repeats,
                "exposure": float(bits),
                "loss": float(loss),
            }
            for canary, bits, loss in zip(canaries.planted, found, planted, strict=True)
        ],
    }
