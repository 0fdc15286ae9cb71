"""Near-duplicate search: candidate pairs from rare words and MinHash, then exact verification.

Rows of fewer than ``MIN_SKETCHED_WORDS`` words: two bags that differ in at most k words share the
two rarest of their common words, and these are among the k + 2 rarest words of each (at most k
rarer ones are not common). So rows are bucketed by every pair of their k + 2 rarest words, and **no
pair within the rule of ``criterion.py`` is missed**: three buckets per row up to 15 words. This is
the prefix filter of set-similarity joins (Chaudhuri et al. 2006; Bayardo et al. 2007, "AllPairs")
with pairs as tokens, so that buckets stay small even if single words are frequent.

Longer rows: bottom-k MinHash (Broder 1997) over runs of four words. With one word in eight
changed, more than half of the runs survive; of ``SKETCH_SIZE`` = 24 hashes about ten are shared.

A bucket larger than ``MAX_BUCKET`` is refined by a third rare word. If it is still larger, each row
is compared only with the next ``NEIGHBOURS_IN_LARGE_BUCKET`` rows of its bucket, until it has
``ENOUGH_LIKELY_COPIES`` likely duplicates; ``CandidateSearch.windowed`` counts these rows. MinHash
over character shingles finds the same near-duplicates of short texts, but with one changed word in
ten (Jaccard about 0.7) it needs about 40 hash functions per row for 95 %.

Candidates are verified by the rule of ``criterion.py``. Two cheap tests come first and never reject
a true pair: the bags' sizes may differ by at most d, and so may the number of words that only one
bag has; each of these can flip one bit of a 64-bit signature.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.duplicates.criterion import (
    MAX_MOVED_WORDS,
    MIN_WORDS,
    MIN_WORDS_FOR_SHARE,
    TEMPLATE_TEXTS,
    WORDS_PER_DIFFERENCE,
    is_one_typo,
    max_differing_words,
)
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.words import (
    I32,
    I64,
    U64,
    Bags,
    row_blocks,
    run_lengths,
    run_starts,
    spans,
    take_rows,
)

# A row of 49 words has 28 pairs of its rarest words (k = 6). The number of pairs grows with the
# square of k; the number of hashes in a sketch does not.
MIN_SKETCHED_WORDS = 50
SEARCH_OVERLAP = 8
RUN_WORDS = 4
SKETCH_SIZE = 24
MAX_BUCKET = 64
NEIGHBOURS_IN_LARGE_BUCKET = 16
ENOUGH_LIKELY_COPIES = 16
# In 64-bit numbers: 16 MB per temporary array.
CHUNK_SIZE = 1 << 21


@dataclass(frozen=True, slots=True)
class CandidatePairs:
    """Pairs of rows, ``first`` < ``second`` [m]; ``windowed`` if the buckets were too large."""

    first: I64
    second: I64
    windowed: bool


@dataclass(slots=True)
class CandidateSearch:
    """One search over ``bags``; ``windowed`` is known once ``pairs`` is exhausted."""

    bags: Bags
    seed: int = 0
    windowed: int = 0

    def pairs(self) -> Iterator[CandidatePairs]:
        """Candidate pairs, in chunks; a pair may occur more than once."""
        yield from self._in_buckets(*rare_pairs(self.bags), refine=True)
        yield from self._in_buckets(*minhash_sketches(self.bags, self.seed), refine=False)

    def _in_buckets(self, keys: U64, rows: I64, refine: bool) -> Iterator[CandidatePairs]:
        keys, rows, sizes = _in_shared_buckets(keys, rows)
        small = sizes <= MAX_BUCKET
        yield from _bucket_neighbours(keys[small], rows[small], MAX_BUCKET)
        keys, rows = keys[~small], rows[~small]
        if refine:
            keys, rows, sizes = _in_shared_buckets(*_third_words(self.bags, keys, rows))
            small = sizes <= MAX_BUCKET
            yield from _bucket_neighbours(keys[small], rows[small], MAX_BUCKET)
            keys, rows = keys[~small], rows[~small]
        self.windowed += len(np.unique(rows))
        yield from _bucket_neighbours(keys, rows, NEIGHBOURS_IN_LARGE_BUCKET)


def has_enough_words(bags: Bags) -> npt.NDArray[np.bool_]:
    """Whether each row has enough words for near-duplicates, [rows]."""
    return np.asarray((bags.lengths >= MIN_WORDS) & (bags.counts >= MIN_WORDS))


def rare_pairs(bags: Bags) -> tuple[U64, I64]:
    """A bucket key for each pair of a short row's k + 2 rarest words, and the row: [m], [m]."""
    rows = np.flatnonzero(has_enough_words(bags) & (bags.lengths < MIN_SKETCHED_WORDS))
    depth = np.minimum(max_differing_words(bags.lengths[rows]) + 2, bags.counts[rows])
    keys: list[U64] = [np.empty(0, np.uint64)]
    owners: list[I64] = [np.empty(0, np.int64)]
    for second in range(1, int(depth.max(initial=0))):
        deep = rows[depth > second]
        rarer = bags.bag[bags.starts[deep] + second].astype(np.uint64)
        for first in range(second):
            rarest = bags.bag[bags.starts[deep] + first].astype(np.uint64)
            # A word that occurs once cannot be common to two rows.
            common = rarest >= bags.once
            # Word numbers fit in 32 bits (``words.py``), so a pair is one key without collisions.
            keys.append((rarest[common] << np.uint64(32)) | rarer[common])
            owners.append(deep[common])
    return np.concatenate(keys), np.concatenate(owners)


def minhash_sketches(bags: Bags, seed: int) -> tuple[U64, I64]:
    """The ``SKETCH_SIZE`` smallest hashes of the word runs of each long row, and the row."""
    # The two searches overlap: the lengths of two near-duplicates may lie on either side of
    # ``MIN_SKETCHED_WORDS``, because they may differ in an eighth of their words.
    rows = np.flatnonzero(
        has_enough_words(bags) & (bags.lengths >= MIN_SKETCHED_WORDS - SEARCH_OVERLAP)
    )
    keys: list[U64] = [np.empty(0, np.uint64)]
    owners: list[I64] = [np.empty(0, np.int64)]
    # In blocks of about ``CHUNK_SIZE`` words.
    block_of = np.cumsum(bags.counts_of(rows)) // CHUNK_SIZE
    for number in np.unique(block_of):
        block = rows[block_of == number]
        hashes, row_of_hash = _run_hashes(bags, block, seed)
        # A run counts once per row: a repeated one would fill the sketch.
        order = np.lexsort((hashes, row_of_hash))
        hashes, row_of_hash = hashes[order], row_of_hash[order]
        new = run_starts(row_of_hash, hashes)
        hashes, row_of_hash = hashes[new], row_of_hash[new]
        firsts = np.searchsorted(row_of_hash, np.arange(len(block)))
        lowest = np.arange(len(row_of_hash)) - firsts[row_of_hash] < SKETCH_SIZE
        keys.append(hashes[lowest])
        owners.append(block[row_of_hash[lowest]])
    return np.concatenate(keys), np.concatenate(owners)


def mix_bits(values: U64) -> U64:
    """The finaliser of SplitMix64: a pseudo-random bijection of 64-bit numbers."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _run_hashes(bags: Bags, rows: I64, seed: int) -> tuple[U64, I64]:
    runs = bags.counts[rows] - RUN_WORDS + 1
    runs = np.maximum(runs, 1)
    word_positions = spans(bags.starts[rows], runs)
    hashes = np.full(len(word_positions), seed, dtype=np.uint64)
    last = len(bags.sequence) - 1
    for step in range(RUN_WORDS):
        word = bags.sequence[np.minimum(word_positions + step, last)].astype(np.uint64)
        # SplitMix64's step, the golden ratio in 64 bits; + 1, because word 0 would add nothing.
        hashes = mix_bits(hashes + (word + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    return hashes, np.repeat(np.arange(len(rows)), runs)


def _in_shared_buckets(keys: U64, rows: I64) -> tuple[U64, I64, I64]:
    """Entries sorted by key, then row, without repeats and single keys; with the bucket sizes."""
    # Rows are numbered by content, so windows do not depend on the order of the file.
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    new = run_starts(keys, rows)
    keys, rows = keys[new], rows[new]
    counts = run_lengths(run_starts(keys))
    sizes = np.repeat(counts, counts)
    return keys[sizes > 1], rows[sizes > 1], sizes[sizes > 1]


def _third_words(bags: Bags, keys: U64, rows: I64) -> tuple[U64, I64]:
    """Each (bucket, row), refined by every third word among the row's k + 3 rarest.

    The third rarest common word is among them, by the argument above. Rows without a third word
    keep their bucket.
    """
    depth = np.minimum(max_differing_words(bags.lengths[rows]) + 3, bags.counts[rows])
    finer, owners = [keys[depth <= 2]], [rows[depth <= 2]]
    low = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for third in range(2, int(depth.max(initial=0))):
        word = bags.bag[bags.starts[rows] + np.minimum(third, depth - 1)].astype(np.int64)
        # ``low`` is the key's second word. The third must not come before it, or each triple would
        # occur for three pairs.
        later = (depth > third) & (word >= low)
        finer.append(mix_bits(keys[later] ^ mix_bits(word[later].astype(np.uint64) + np.uint64(1))))
        owners.append(rows[later])
    return np.concatenate(finer), np.concatenate(owners)


def _bucket_neighbours(keys: U64, rows: I64, window: int) -> Iterator[CandidatePairs]:
    """Each row with the next ``window`` − 1 rows of its bucket."""
    for begin in range(0, len(keys), CHUNK_SIZE):
        positions = np.arange(begin, min(begin + CHUNK_SIZE, len(keys)), dtype=np.int64)
        for step in range(1, window):
            positions = positions[positions + step < len(keys)]
            positions = positions[keys[positions] == keys[positions + step]]
            if not len(positions):
                break
            yield CandidatePairs(rows[positions], rows[positions + step], window < MAX_BUCKET)


WORDS_AT_ONCE = 1 << 22
# A pair is numbered by twelve bits within one sort (``_codes``).
PAIRS_AT_ONCE = 1 << 12


def verify_candidates(bags: Bags, candidates: Iterable[CandidatePairs]) -> SimilarPairs:
    """The near-duplicates among the candidates, each pair once, in order."""
    row_signatures, counts = signatures(bags), bags.counts
    likely_pairs = [np.empty(0, np.int64)]
    # How many likely duplicates each row has met. In a bucket of thousands of near-equal texts, a
    # row with some links joins the group without being compared with the rest.
    likely_copies_met = np.zeros(len(bags), dtype=np.int64)
    for chunk in candidates:
        first, second = chunk.first, chunk.second
        limit = max_differing_words(np.minimum(bags.lengths[first], bags.lengths[second]))
        # Twice, because each text may have up to d words of its own.
        likely = np.bitwise_count(row_signatures[first] ^ row_signatures[second]) <= 2 * limit
        likely &= np.abs(counts[first] - counts[second]) <= limit
        if chunk.windowed:
            likely &= (likely_copies_met[first] < ENOUGH_LIKELY_COPIES) | (
                likely_copies_met[second] < ENOUGH_LIKELY_COPIES
            )
            likely_copies_met += np.bincount(first[likely], minlength=len(likely_copies_met))
            likely_copies_met += np.bincount(second[likely], minlength=len(likely_copies_met))
        if likely.any():
            # Remove repeats now: a pair comes from many buckets, and repeats would accumulate.
            likely_pairs.append(np.unique((first[likely] << 32) | second[likely]))
    pairs = np.unique(np.concatenate(likely_pairs))
    first, second = pairs >> 32, pairs & 0xFFFFFFFF
    differing = differing_words(bags, first, second)
    lengths = np.minimum(bags.lengths[first], bags.lengths[second])
    is_near_duplicate = differing <= max_differing_words(lengths)
    candidates_left = np.flatnonzero(is_near_duplicate)
    is_near_duplicate[candidates_left] = ~excluded_by_single_word(
        bags,
        first[candidates_left],
        second[candidates_left],
        lengths[candidates_left],
        differing[candidates_left],
    )
    short = np.flatnonzero(is_near_duplicate & (lengths < 2 * WORDS_PER_DIFFERENCE))
    is_near_duplicate[short] = ~are_reordered(bags, first[short], second[short], differing[short])
    return similar_pairs_of(bags, first, second, differing).where(is_near_duplicate)


def similar_pairs_of(bags: Bags, first: I64, second: I64, differing: I64) -> SimilarPairs:
    """Pairs of rows with their similarities in (0, 1], from the number of differing words."""
    sizes = np.maximum(bags.counts_of(first), bags.counts_of(second))
    similarity = 1 - differing / np.maximum(sizes, 1)
    return SimilarPairs(first, second, similarity.astype(np.float32))


def differing_words(bags: Bags, first: I64, second: I64) -> I64:
    """d of each pair [m]: the size of the larger bag minus the common words, with repeats."""
    shared = np.empty(len(first), dtype=np.int64)
    words = np.cumsum(bags.counts_of(first) + bags.counts_of(second))
    at = 0
    while at < len(first):
        before = words[at - 1] if at else 0
        end = int(np.searchsorted(words, before + WORDS_AT_ONCE, "right"))
        part = slice(at, min(max(end, at + 1), at + PAIRS_AT_ONCE))
        # Each word is numbered within its bag (the first "the", the second "the"), so bags become
        # sets; then a word is shared if it occurs twice in the sorted union.
        codes = np.concatenate([_codes(bags, first[part]), _codes(bags, second[part])])
        codes.sort()
        twice = codes[1:][codes[1:] == codes[:-1]] >> np.uint64(52)
        shared[part] = np.bincount(twice.astype(np.int64), minlength=part.stop - at)
        at = part.stop
    return np.maximum(bags.counts_of(first), bags.counts_of(second)) - shared


def signatures(bags: Bags) -> U64:
    """A 64-bit signature per row: one bit for each of its words, by hash; 0 without words."""
    marks = np.zeros(len(bags), dtype=np.uint64)
    for block in row_blocks(bags.starts):
        starts = bags.starts[block.start : block.stop + 1]
        words = bags.bag[starts[0] : starts[-1]].astype(np.uint64)
        bits = np.uint64(1) << (mix_bits(words + np.uint64(1)) & np.uint64(63))
        filled = np.flatnonzero(starts[1:] > starts[:-1])
        if len(filled):
            marks[block.start + filled] = np.bitwise_or.reduceat(bits, starts[filled] - starts[0])
    return marks


def _codes(bags: Bags, rows: I64) -> U64:
    """A code for each word of some rows: 12 bits for the pair, 32 for the word, 20 for the number
    of the repeat."""
    words, starts = take_rows(bags.bag, bags.starts, rows)
    pair = np.repeat(np.arange(len(rows), dtype=np.uint64), np.diff(starts))
    # 0 for the first of equal words of a row, then 1, 2, …
    counts = run_lengths(run_starts(words, pair))
    number = spans(np.zeros(len(counts), np.int64), counts)
    # Twenty bits are left for it: a million repeats of one word in a text.
    number = np.minimum(number, (1 << 20) - 1).astype(np.uint64)
    return np.asarray((pair << np.uint64(52)) | (words.astype(np.uint64) << np.uint64(20)) | number)


NO_WORD = -1


def differing_word_pair(bags: Bags, first: I64, second: I64) -> tuple[I64, I64, U64]:
    """The differing words of pairs of bags that differ in one word: that of the first and of the
    second bag [m], ``NO_WORD`` if a bag has none; and a hash [m] of the common words.

    If x is only in the first bag and y only in the second, the sums of the word numbers differ by
    x − y and the sums of their squares by x² − y²; the quotient is x + y. Sums may wrap at 64 bits:
    their differences are exact.
    """
    rows, at = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = at[: len(first)], at[len(first) :]
    bag, starts = take_rows(bags.bag, bags.starts, rows)
    words = bag.astype(np.int64)
    plain = _sums(words, starts)
    squares = _sums(words * words, starts)
    hashes = _sums(_word_hashes(words).astype(np.int64), starts)
    counts = np.diff(starts)
    gap = plain[a] - plain[b]
    longer = counts[a] - counts[b]
    swapped = longer == 0
    # If one word replaces another, the gap is never 0.
    both = (squares[a] - squares[b]) // np.where(swapped & (gap != 0), gap, 1)
    left = np.where(swapped, (both + gap) // 2, np.where(longer > 0, gap, NO_WORD))
    right = np.where(swapped, (both - gap) // 2, np.where(longer < 0, -gap, NO_WORD))
    rest = hashes[a].astype(np.uint64) - np.where(left >= 0, _word_hashes(left), np.uint64(0))
    return left, right, rest


def excluded_by_single_word(
    bags: Bags, first: I64, second: I64, lengths: I64, differing: I64
) -> npt.NDArray[np.bool_]:
    """Which pairs within d ≤ 1 the rules for a single differing word reject, [m]."""
    is_excluded = np.zeros(len(first), dtype=bool)
    single = np.flatnonzero((differing == 1) & (lengths < 2 * WORDS_PER_DIFFERENCE))
    first_word, second_word, rest = differing_word_pair(bags, first[single], second[single])
    short = lengths[single] < MIN_WORDS_FOR_SHARE
    is_typo = np.zeros(len(single), dtype=bool)
    is_typo[short] = [
        a != NO_WORD and b != NO_WORD and is_one_typo(bags.vocabulary[a], bags.vocabulary[b])
        for a, b in zip(first_word[short].tolist(), second_word[short].tolist(), strict=True)
    ]
    numbers = _hold_digits(bags.vocabulary, first_word) & _hold_digits(bags.vocabulary, second_word)
    # Pairs whose common words occur in TEMPLATE_TEXTS or more rows in total.
    rows = np.concatenate([first[single], second[single]]).astype(np.uint64)
    rest_of_row = np.unique(np.stack([np.concatenate([rest, rest]), rows]), axis=1)[0]
    values, counts = np.unique(rest_of_row, return_counts=True)
    in_template = np.isin(rest, values[counts >= TEMPLATE_TEXTS])
    is_excluded[single] = np.where(short, ~is_typo, numbers | in_template)
    return is_excluded


def _hold_digits(vocabulary: list[str], words: I64) -> npt.NDArray[np.bool_]:
    different, inverse = np.unique(words, return_inverse=True)
    known = [
        word != NO_WORD and any(letter.isdigit() for letter in vocabulary[word])
        for word in different.tolist()
    ]
    return np.array(known, dtype=bool)[inverse]


def _sums(values: I64, starts: I64) -> I64:
    totals = np.concatenate(([0], np.cumsum(values)))
    return np.asarray(totals[starts[1:]] - totals[starts[:-1]])


def _word_hashes(words: I64 | I32) -> U64:
    return mix_bits(words.astype(np.uint64) + np.uint64(1))


def are_reordered(bags: Bags, first: I64, second: I64, differing: I64) -> npt.NDArray[np.bool_]:
    """Which pairs [m] have more than ``MAX_MOVED_WORDS`` moved words, in addition to their
    ``differing`` words.

    The longest common subsequence of words is then shorter than the size of the larger bag minus
    ``differing`` minus ``MAX_MOVED_WORDS``. Most pairs agree position by position except for
    ``differing`` words; these are not aligned.
    """
    from rapidfuzz.distance import LCSseq

    larger = np.maximum(bags.counts_of(first), bags.counts_of(second))
    result = np.zeros(len(first), dtype=bool)
    for pair in np.flatnonzero(_misplaced_words(bags, first, second) > differing).tolist():
        one, other = (
            bags.sequence[bags.starts[row] : bags.starts[row + 1]].tolist()
            for row in (first[pair], second[pair])
        )
        common = int(LCSseq.similarity(one, other))
        result[pair] = larger[pair] - common > differing[pair] + MAX_MOVED_WORDS
    return result


def _misplaced_words(bags: Bags, first: I64, second: I64) -> I64:
    """The number of positions at which two rows have different words; all if lengths differ."""
    counts = bags.counts_of(first)
    same = np.flatnonzero(counts == bags.counts_of(second))
    one, starts = take_rows(bags.sequence, bags.starts, first[same])
    other, _ = take_rows(bags.sequence, bags.starts, second[same])
    pair = np.repeat(np.arange(len(same)), np.diff(starts))
    counts[same] = np.bincount(pair[one != other], minlength=len(same))
    return counts
