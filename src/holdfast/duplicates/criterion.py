"""When two different texts are near-duplicates: the exact rule, on words.

Let n be the words of the shorter text as written (lone punctuation included), and let d be the
number of words in which the two differ: the larger bag's size less the words in common.

=============  =========================================================================
n              near-duplicates when
=============  =========================================================================
4 or fewer     never: only exact duplicates count
5 to 9         d = 0 (the same words), or d = 1 and the two odd words are of six letters or
               more and one typing error apart
10 or more     d ≤ max(1, n ÷ 8), but for two kinds of d = 1 below
=============  =========================================================================

One word in ten replaced is within the rule for every n ≥ 10; an eighth leaves room for the ways
of counting words ("don't": one or two). Under ten words a single other word is another text:
"What is the capital of X?". The similarity is 1 − d ÷ (words of the larger bag).

Texts of fewer than 2 × 8 words must also keep their order, but for ``MAX_MOVED_WORDS`` words moved:
in short texts it carries the meaning. Longer ones may be rearranged.

Where a single word of a text of fewer than 2 × 8 words differs, the pair is refused when

- both odd words hold digits: "the 3rd president of …", "the 16th president of …";
- ``TEMPLATE_TEXTS`` or more different texts are equal but for that one word: then the rest is a
  form with a slot ("What is the origin of the word … ?"), and the word is what the text is about.

Both bags must also have at least five words beside their punctuation.
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
    """The largest d for texts of so many words; -1 where only exact duplicates count."""
    long = np.maximum(1, lengths // WORDS_PER_DIFFERENCE)
    return np.where(lengths < MIN_WORDS, -1, long).astype(np.int64)


def is_one_typo(one: str, other: str) -> bool:
    """Whether two words of six letters or more differ by one letter typed, missed, doubled or
    swapped with its neighbour. A digit is never a typing error."""
    from rapidfuzz.distance import OSA

    if min(len(one), len(other)) < MIN_TYPO_LETTERS or not (one.isalpha() and other.isalpha()):
        return False
    return int(OSA.distance(one, other, score_cutoff=1)) <= 1
