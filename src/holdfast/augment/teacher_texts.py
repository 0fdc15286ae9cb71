"""Texts for a teacher to answer where there are no others: the beginning of one training text and
the end of another, of whatever classes.

What such a text means nobody knows, and nobody has to: the teacher's answer to it is learned, which
says where the teacher draws its lines between the rows it knew (after the augmentation of
1909.10351, without a language model).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_WORDS = 400


def crossed(texts: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """``count`` different texts, none of them one of ``texts`` (fewer where chance gives no more):
    some first words of one and some last words of another, at least one of each. Of a text the
    first ``LONGEST_WORDS`` words take part."""
    words = [one.split()[:LONGEST_WORDS] for one in texts]
    words = [one for one in words if one]
    known, made = set(texts), dict[str, None]()
    if len(words) < 2:
        return []
    for _ in range(4 * count):
        if len(made) == count:
            break
        first, second = (words[int(i)] for i in rng.choice(len(words), 2, replace=False))
        begin = int(rng.integers(1, len(first) + 1))
        end = int(rng.integers(0, len(second)))
        text = " ".join([*first[:begin], *second[end:]])
        if text not in known:
            made[text] = None
    return list(made)
