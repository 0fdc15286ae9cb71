"""The rule for near-duplicates: when two different texts count as near-duplicates, by words.

Let n be the number of words of the shorter text as written (isolated punctuation included), and d
the number of words in which the two differ: the size of the larger bag minus the common words.

=============  =========================================================================
n              near-duplicates if
=============  =========================================================================
4 or fewer     never: only exact duplicates count
5 to 9         d = 0 (the same words), or d = 1 and the two differing words have six letters or
               more and are one typing error apart
10 or more     d ≤ max(1, n ÷ 8), except for two cases of d = 1 below
=============  =========================================================================

One replaced word in ten is within the rule for every n ≥ 10; an eighth leaves room for different
ways of counting words ("don't": one or two). Below ten words a single different word makes another
text: "What is the capital of X?". The similarity is 1 − d ÷ (words of the larger bag).

Texts of fewer than 2 × 8 words must also have the same word order, except for ``MAX_MOVED_WORDS``
moved words: in short texts the order carries the meaning. Longer texts may be rearranged.

If a text of fewer than 2 × 8 words differs in a single word, the pair is rejected if

- both differing words contain digits: "the 3rd president of …", "the 16th president of …";
- ``TEMPLATE_TEXTS`` or more different texts are equal except for that word: then the rest is a
  template with a slot ("What is the origin of the word … ?"), and the word is the subject.

Both bags must also have at least five words without their punctuation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from holdfast.core.records import Ints

MIN_WORDS = 5
MIN_WORDS_FOR_SHARE = 10
WORDS_PER_DIFFERENCE = 8
MIN_TYPO_LETTERS = 6
TEMPLATE_TEXTS = 4
MAX_MOVED_WORDS = 1


def max_differing_words(lengths: Ints) -> npt.NDArray[np.int64]:
    """The largest d for texts of these ``lengths`` in words; -1 if only exact duplicates count."""
    long = np.maximum(1, lengths // WORDS_PER_DIFFERENCE)
    return np.where(lengths < MIN_WORDS, -1, long).astype(np.int64)


def is_one_typo(one: str, other: str) -> bool:
    """Whether two words of six letters or more differ by one wrong, missing or extra letter, or by
    two swapped neighbours. A digit is never a typing error."""
    from rapidfuzz.distance import OSA

    if min(len(one), len(other)) < MIN_TYPO_LETTERS or not (one.isalpha() and other.isalpha()):
        return False
    return int(OSA.distance(one, other, score_cutoff=1)) <= 1
