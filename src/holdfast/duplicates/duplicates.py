"""Which texts are copies of each other: exact after normalising, or verified near-duplicates.

The engine of the split and of the audit. One pass reads all texts into compact arrays
(``words.py``); exact duplicates become one; candidates are verified exactly
(``near_duplicates.py``, the rule in ``criterion.py``); links are joined to groups, whose chains
are cut where they would swallow too much (``group_and_cut``).

Nothing depends on the order of the texts: texts are numbered by the hash of their normal form.

Several tables stand in one row of positions (``CombinedRows``), so that copies between them are
found by the same rule. Rows that copy a protected table, a given test or validation file, are left
out of what is divided; only direct copies are: a copy of a copy that is no copy of a protected row
itself may stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdfast.data.table import Table
from holdfast.duplicates.criterion import max_differing_words
from holdfast.duplicates.engines import MapEngine, local_engine
from holdfast.duplicates.hashed_bags import hashed_bags, pairs_within_limits, read_hashed
from holdfast.duplicates.near_duplicates import (
    MIN_SKETCHED_WORDS,
    SEARCH_OVERLAP,
    CandidateSearch,
    has_enough_words,
    verify_candidates,
)
from holdfast.duplicates.vectors import SimilarPairs
from holdfast.duplicates.words import (
    BLOCK_TEXTS,
    I64,
    U64,
    ArrowTexts,
    RowTexts,
    arrow_slice,
    exact_forms,
    make_bags,
    read_texts,
)

SMALLEST_CHAIN = 50
CHAIN_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class ChainCut:
    """One group that was cut: different texts before, groups after, the largest of them, and the
    links that now cross groups."""

    texts: int
    groups: int
    largest: int
    links: int


def group_and_cut(texts: int, links: SimilarPairs) -> tuple[I64, tuple[ChainCut, ...]]:
    """Groups [n], numbered by their first text, and what was cut."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    groups = np.empty(0, np.int64)
    if texts:
        ones = np.ones(len(links), dtype=np.int8)
        graph = coo_array((ones, (links.first, links.second)), shape=(texts, texts))
        groups = connected_components(graph, directed=False)[1].astype(np.int64)
    sizes = np.bincount(groups, minlength=1)
    cuts = []
    for group in np.flatnonzero(sizes > max(SMALLEST_CHAIN, int(CHAIN_SHARE * texts))):
        mask = groups[links.first] == group
        centres = star_centres(texts, links.first[mask], links.second[mask])
        members = np.flatnonzero(groups == group)
        parts = np.unique(centres[members], return_counts=True)[1]
        if len(parts) > 1:
            crossing = centres[links.first[mask]] != centres[links.second[mask]]
            # Beyond all numbers in use: no other group is met.
            groups[members] = len(sizes) + centres[members]
            cuts.append(ChainCut(len(members), len(parts), int(parts.max()), int(crossing.sum())))
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], tuple(cuts)


def star_centres(texts: int, first_texts: I64, second_texts: I64) -> I64:
    """The centre of each text [n]; itself for a centre and for a text without links.

    Computed in rounds: a text that comes before all its undecided neighbours is a centre, and
    they are decided. This gives the centres of taking the texts one by one.
    """
    one, other = (
        np.concatenate([first_texts, second_texts]),
        np.concatenate([second_texts, first_texts]),
    )
    rank_of_text = np.empty(texts, dtype=np.int64)
    # Texts are numbered by content, so ties do not depend on the file's order.
    rank_of_text[np.lexsort((np.arange(texts), -np.bincount(one, minlength=texts)))] = np.arange(
        texts
    )
    centre, undecided = np.zeros(texts, dtype=bool), np.ones(texts, dtype=bool)
    open_first, open_second = one, other
    while undecided.any():
        before = np.full(texts, texts, dtype=np.int64)
        np.minimum.at(before, open_first, rank_of_text[open_second])
        new_centres = undecided & (rank_of_text < before)
        centre |= new_centres
        undecided &= ~new_centres
        undecided[open_second[new_centres[open_first]]] = False
        open_edges = undecided[open_first] & undecided[open_second]
        open_first, open_second = open_first[open_edges], open_second[open_edges]
    nearest = np.where(centre, rank_of_text, texts)
    joins = centre[other] & ~centre[one]
    np.minimum.at(nearest, one[joins], rank_of_text[other[joins]])
    return np.argsort(rank_of_text)[nearest]


# Below it everything in memory at once is quicker, and takes a gigabyte at most.
IN_MEMORY_TEXTS = 500_000


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Who copies whom among n texts.

    ``groups`` [n]: equal numbers are copies, dense from 0, numbered by content; the same texts
    give the same grouping whatever their order. ``exact`` [n]: equal numbers have equal normal
    forms. ``contents`` [n]: a 64-bit hash of each text as it is. ``links``: verified
    near-duplicates as pairs of ``exact`` numbers, with similarities, those across a cut included.
    ``cuts``: groups that chains had made too large. ``windowed``: texts in buckets too large to be
    compared all with all, whose far copies may be linked only by chains.
    """

    groups: I64
    exact: I64
    contents: U64
    links: SimilarPairs
    cuts: tuple[ChainCut, ...] = ()
    windowed: int = 0

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def count(self) -> int:
        """The number of groups, those of one text included."""
        return int(self.groups.max(initial=-1)) + 1

    @property
    def sizes(self) -> I64:
        """Texts in each group, [count]."""
        return np.bincount(self.groups, minlength=self.count)

    @property
    def crosses_cut(self) -> npt.NDArray[np.bool_]:
        """Whether each link crosses a cut, and so may cross sides, [links]."""
        group = np.empty(int(self.exact.max(initial=-1)) + 1, dtype=np.int64)
        group[self.exact] = self.groups
        return np.asarray(group[self.links.first] != group[self.links.second])

    def near_duplicate_pairs(self) -> SimilarPairs:
        """The near-duplicates as positions of texts, each different text by its first position."""
        return self.links.at_positions(np.unique(self.exact, return_index=True)[1])


def find_duplicates(
    texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None
) -> Duplicates:
    """Group the texts that are copies of each other.

    Parameters
    ----------
    texts : n texts; join the two of a pair with ``normalise.PAIR_MARK``.
    seed : of the MinHash that finds candidates among texts of ``candidates.LONG`` words or more.

    engine : where the first search of many texts runs; one that is named makes it run for few too.

    No texts give no groups. About 60 bytes of memory a text and 8 a word. From ``IN_MEMORY_TEXTS``
    texts on, a first search in bounded memory finds the texts that have a near-duplicate at all,
    and the exact rule is asked for these alone (``pairs_within_limits``): the links are the same.
    """
    if engine is not None or len(texts) >= IN_MEMORY_TEXTS:
        return find_duplicates_in_blocks(texts, seed=seed, engine=engine)
    return find_duplicates_in_memory(texts, seed=seed)


def find_duplicates_in_blocks(
    texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None
) -> Duplicates:
    """``find_duplicates`` in two searches: which texts can have near-duplicates, and the rule for
    these.

    Every text is read once, its words as hashes (``hashed_bags.py``). Its ``pairs_within_limits``
    finds each text that has another within the *number* of words in which the rule lets two differ;
    texts of ``MIN_SKETCHED_WORDS`` words less the overlap or more, of which buckets of rare words
    could miss some, are all suspects. They are a few in a hundred of ordinary data, and among them
    alone the exact rule is asked: typing errors, digits, forms with a slot, order.
    """
    engine = engine or local_engine()
    hashed = read_hashed(texts, engine)
    exact, representatives = exact_forms(hashed)
    contents = hashed.contents
    bags = hashed_bags(hashed, representatives)
    # Words of all texts: of them only the bags are needed now.
    del hashed
    # The two searches of ``near_duplicates.py`` overlap, so that copies may stand on either side of
    # ``MIN_SKETCHED_WORDS``; so do these.
    max_differing = max_differing_words(bags.lengths)
    near_pairs_of_forms, _ = pairs_within_limits(
        bags,
        max_differing,
        np.where(bags.lengths < MIN_SKETCHED_WORDS, max_differing + 2, 0),
        engine,
    )
    is_suspect = (bags.lengths >= MIN_SKETCHED_WORDS - SEARCH_OVERLAP) & has_enough_words(bags)
    is_suspect[near_pairs_of_forms.first] = is_suspect[near_pairs_of_forms.second] = True
    suspects = np.flatnonzero(is_suspect)
    del bags
    suspect_duplicates = find_duplicates_in_memory(
        take_texts(texts, np.sort(representatives[suspects])), seed=seed
    )
    # Forms are numbered by the hashes of their texts there as here: in the same order.
    first, second = (
        suspects[suspect_duplicates.links.first],
        suspects[suspect_duplicates.links.second],
    )
    links = SimilarPairs(first, second, suspect_duplicates.links.similarity)
    groups, cuts = group_and_cut(len(representatives), links)
    return Duplicates(groups[exact], exact, contents, links, cuts, suspect_duplicates.windowed)


def take_texts(texts: Sequence[str], positions: I64) -> ArrowTexts:
    """The texts at ascending ``positions``, read a block at a time."""
    parts: list[Any] = []
    for begin in range(0, len(texts), BLOCK_TEXTS):
        low, high = np.searchsorted(positions, [begin, begin + BLOCK_TEXTS])
        if low < high:
            block = arrow_slice(texts, begin, min(begin + BLOCK_TEXTS, len(texts)))
            parts.append(block.take(pa.array(positions[low:high] - begin)))
    return ArrowTexts(pa.chunked_array(parts, pa.large_string()))


def find_duplicates_in_memory(texts: Sequence[str], *, seed: int = 0) -> Duplicates:
    """``find_duplicates`` with everything in memory at once."""
    hashed = read_texts(texts)
    exact, representatives = exact_forms(hashed)
    bags = make_bags(hashed, representatives)
    search = CandidateSearch(bags, seed)
    contents = hashed.contents
    # Words of all texts: the largest table of the search, of which only the bags are needed now.
    del hashed
    links = verify_candidates(bags, search.pairs())
    groups, cuts = group_and_cut(len(bags), links)
    return Duplicates(groups[exact], exact, contents, links, cuts, search.windowed)


@dataclass(frozen=True, slots=True)
class CombinedRows:
    """The source and the given tables, in one row of positions: ``tables`` by name, the source
    first, ``starts`` where each begins, ``duplicates`` among all their texts."""

    tables: dict[str, Table]
    starts: dict[str, int]
    duplicates: Duplicates

    def span(self, name: str) -> slice:
        """The positions of one table."""
        return slice(self.starts[name], self.starts[name] + len(self.tables[name]))

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Which positions belong to one table, [all]."""
        mask = np.zeros(len(self.duplicates), dtype=bool)
        mask[self.span(name)] = True
        return mask

    def table_name(self, position: int) -> str:
        """The table of a position."""
        # The last table that begins at the position or before it.
        return next(n for n in reversed(self.tables) if position >= self.starts[n])

    def describe_position(self, position: int) -> str:
        """A position in words, e.g. ``row 12 of test.csv``."""
        name = self.table_name(position)
        row = int(self.tables[name].column("row")[position - self.starts[name]])
        return f"row {row} of {self.tables[name].source}"


def combine_tables(
    table: Table, given_tables: Mapping[str, Table], seed: int, engine: MapEngine | None = None
) -> CombinedRows:
    """Find the copies among the source and the given tables together; ``engine`` as for
    ``find_duplicates``."""
    tables = {"source": table, **given_tables}
    lengths = [len(each) for each in tables.values()]
    starts = dict(zip(tables, np.cumsum([0, *lengths[:-1]]).tolist(), strict=True))
    return CombinedRows(
        tables, starts, find_duplicates(RowTexts(*tables.values()), seed=seed, engine=engine)
    )


def duplicates_of(
    duplicates: Duplicates, known: npt.NDArray[np.bool_], requested: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which of the texts that are ``requested`` about [n] copy a ``known`` one [n], [asked]: they
    are in its group, or linked to it: a group that chains made too large is cut, and its links
    still tell copies."""
    links, is_linked = (
        duplicates.near_duplicate_pairs(),
        np.isin(duplicates.groups, duplicates.groups[known]),
    )
    for here, there in ((links.first, links.second), (links.second, links.first)):
        is_linked[here[known[there]]] = True
    return np.asarray(np.isin(duplicates.exact, duplicates.exact[is_linked | known])[requested])


@dataclass(frozen=True, slots=True)
class NearestProtected:
    """For each text: ``similarity`` [n] to the nearest protected text (0: none, 1: exact
    duplicate), and ``copy_of`` [n] the position of that text (-1: none)."""

    similarity: npt.NDArray[np.float32]
    copy_of: I64

    @property
    def copies(self) -> npt.NDArray[np.bool_]:
        """Whether each text copies a protected one, [n]."""
        return np.asarray(self.copy_of >= 0)


def nearest_protected(duplicates: Duplicates, protected: npt.NDArray[np.bool_]) -> NearestProtected:
    """The nearest protected text that each text copies. ``protected`` [n] says which are."""
    forms = int(duplicates.exact.max(initial=-1)) + 1
    position_of_form = np.full(forms, -1, dtype=np.int64)
    # Backwards, so that of several protected copies the first is named.
    positions = np.flatnonzero(protected)[::-1]
    position_of_form[duplicates.exact[positions]] = positions
    similarity = np.where(position_of_form >= 0, 1.0, 0.0).astype(np.float32)
    copy_of = position_of_form.copy()
    links = duplicates.links
    # The most similar first: what is set once is the nearest.
    for index in np.argsort(-links.similarity, kind="stable").tolist():
        a, b = int(links.first[index]), int(links.second[index])
        for one, other in ((a, b), (b, a)):
            # ``position_of_form`` knows protected texts alone: a copy of a copy is not followed.
            if position_of_form[other] >= 0 and copy_of[one] < 0:
                copy_of[one], similarity[one] = position_of_form[other], links.similarity[index]
    return NearestProtected(similarity[duplicates.exact], copy_of[duplicates.exact])
