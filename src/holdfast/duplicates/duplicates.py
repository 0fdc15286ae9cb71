"""Duplicate search: texts that are equal after normalising, or verified near-duplicates.

The split and the audit use it. One pass reads all texts into compact arrays (``words.py``). Exact
duplicates become one text. Candidates are verified exactly (``near_duplicates.py``, the rule is in
``criterion.py``). Links are joined to groups, and chains that grow too large are cut
(``group_and_cut``).

Nothing depends on the order of the texts: texts are numbered by the hash of their normal form.

The positions of several tables are concatenated (``CombinedRows``), so duplicates between tables
are found by the same rule. Rows that duplicate a protected table (a given test or validation file)
are excluded from the split. Only direct duplicates are: a duplicate of a duplicate that does not
itself duplicate a protected row may stay.
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
    """One group that was cut: the number of different texts before, of groups after, of texts in
    the largest group, and of links that now cross groups."""

    texts: int
    groups: int
    largest: int
    links: int


def group_and_cut(texts: int, links: SimilarPairs) -> tuple[I64, tuple[ChainCut, ...]]:
    """The group of each text [n], numbered by their first text, and the cuts."""
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
            # Numbers beyond all in use cannot collide with another group.
            groups[members] = len(sizes) + centres[members]
            cuts.append(ChainCut(len(members), len(parts), int(parts.max()), int(crossing.sum())))
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse], tuple(cuts)


def star_centres(texts: int, first_texts: I64, second_texts: I64) -> I64:
    """The centre of each text [n]; the text itself if it is a centre or has no links.

    Computed in rounds: a text that ranks before all its undecided neighbours becomes a centre, and
    they are decided. The result equals that of processing the texts one by one.
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


# Below this everything in memory is faster and takes a gigabyte at most.
IN_MEMORY_TEXTS = 500_000


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The duplicates among n texts.

    ``groups`` [n]: texts with equal numbers are duplicates; dense from 0, numbered by content, so
    that the grouping does not depend on the order. ``exact`` [n]: texts with equal numbers have
    equal normal forms. ``contents`` [n]: a 64-bit hash of each unchanged text. ``links``: verified
    near-duplicates as pairs of ``exact`` numbers, with similarities, including those across a cut.
    ``cuts``: groups that chains had made too large. ``windowed``: texts in buckets too large to
    compare all pairs; their distant near-duplicates may be linked only by chains.
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
        """The number of groups, including groups of one text."""
        return int(self.groups.max(initial=-1)) + 1

    @property
    def sizes(self) -> I64:
        """Texts in each group, [count]."""
        return np.bincount(self.groups, minlength=self.count)

    @property
    def crosses_cut(self) -> npt.NDArray[np.bool_]:
        """Whether each link crosses a cut, and so may cross splits, [links]."""
        group = np.empty(int(self.exact.max(initial=-1)) + 1, dtype=np.int64)
        group[self.exact] = self.groups
        return np.asarray(group[self.links.first] != group[self.links.second])

    def near_duplicate_pairs(self) -> SimilarPairs:
        """The near-duplicates as positions of texts; each distinct text has its first position."""
        return self.links.at_positions(np.unique(self.exact, return_index=True)[1])


def find_duplicates(
    texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None
) -> Duplicates:
    """Group the texts that are duplicates or near-duplicates of each other.

    Parameters
    ----------
    texts : n texts; join the two of a pair with ``normalise.PAIR_MARK``.
    seed : of the MinHash that finds candidates among texts of about ``MIN_SKETCHED_WORDS`` words or
        more.
    engine : where the first search of many texts runs. If given, the search runs for few texts too.

    No texts give no groups. It takes about 60 bytes of memory per text and 8 per word. From
    ``IN_MEMORY_TEXTS`` texts on, a first search in bounded memory finds the texts that may have a
    near-duplicate, and the exact rule is applied only to these (``pairs_within_limits``): the links
    are the same.
    """
    if engine is not None or len(texts) >= IN_MEMORY_TEXTS:
        return find_duplicates_in_blocks(texts, seed=seed, engine=engine)
    return find_duplicates_in_memory(texts, seed=seed)


def find_duplicates_in_blocks(
    texts: Sequence[str], *, seed: int = 0, engine: MapEngine | None = None
) -> Duplicates:
    """``find_duplicates`` in two searches: find the texts that can have near-duplicates, then apply
    the exact rule to these.

    Every text is read once, its words as hashes (``hashed_bags.py``). ``pairs_within_limits`` finds
    each text that differs from another by at most the *number* of words that the rule allows. Texts
    of at least ``MIN_SKETCHED_WORDS`` − ``SEARCH_OVERLAP`` words are all suspects, because buckets
    of rare words could miss some. Suspects are a few percent of ordinary data, and the exact rule
    (typing errors, digits, templates, order) is applied only to them.
    """
    engine = engine or local_engine()
    hashed = read_hashed(texts, engine)
    exact, representatives = exact_forms(hashed)
    contents = hashed.contents
    bags = hashed_bags(hashed, representatives)
    # The words of all texts: only the bags are needed from here on.
    del hashed
    # The two searches of ``near_duplicates.py`` overlap, because the lengths of two near-duplicates
    # may lie on either side of ``MIN_SKETCHED_WORDS``; so do these.
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
    # Both searches number forms by the hashes of their texts, so the order is the same.
    first, second = (
        suspects[suspect_duplicates.links.first],
        suspects[suspect_duplicates.links.second],
    )
    links = SimilarPairs(first, second, suspect_duplicates.links.similarity)
    groups, cuts = group_and_cut(len(representatives), links)
    return Duplicates(groups[exact], exact, contents, links, cuts, suspect_duplicates.windowed)


def take_texts(texts: Sequence[str], positions: I64) -> ArrowTexts:
    """The texts at ascending ``positions``, read block by block."""
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
    # The words of all texts are the largest table of the search; only the bags are needed from here
    # on.
    del hashed
    links = verify_candidates(bags, search.pairs())
    groups, cuts = group_and_cut(len(bags), links)
    return Duplicates(groups[exact], exact, contents, links, cuts, search.windowed)


@dataclass(frozen=True, slots=True)
class CombinedRows:
    """The source and the given tables with concatenated positions: ``tables`` by name, the source
    first, ``starts`` the first position of each, ``duplicates`` among all their texts."""

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
        # The last table that begins at or before the position.
        return next(n for n in reversed(self.tables) if position >= self.starts[n])

    def describe_position(self, position: int) -> str:
        """A position as a phrase, e.g. ``row 12 of test.csv``."""
        name = self.table_name(position)
        row = int(self.tables[name].column("row")[position - self.starts[name]])
        return f"row {row} of {self.tables[name].source}"


def combine_tables(
    table: Table, given_tables: Mapping[str, Table], seed: int, engine: MapEngine | None = None
) -> CombinedRows:
    """Find the duplicates within and between the source and the given tables; ``engine`` as in
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
    """Which of the ``requested`` texts (mask [n]) duplicate a ``known`` one (mask [n]),
    [requested]. They are in its group or linked to it: a group that was cut still has its links."""
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
        """Whether each text duplicates a protected one, [n]."""
        return np.asarray(self.copy_of >= 0)


def nearest_protected(duplicates: Duplicates, protected: npt.NDArray[np.bool_]) -> NearestProtected:
    """The nearest protected text that each text duplicates; ``protected`` [n] is a mask."""
    forms = int(duplicates.exact.max(initial=-1)) + 1
    position_of_form = np.full(forms, -1, dtype=np.int64)
    # Backwards, so that the first of several protected duplicates is recorded.
    positions = np.flatnonzero(protected)[::-1]
    position_of_form[duplicates.exact[positions]] = positions
    similarity = np.where(position_of_form >= 0, 1.0, 0.0).astype(np.float32)
    copy_of = position_of_form.copy()
    links = duplicates.links
    # The most similar first: the first value that is set is the nearest.
    for index in np.argsort(-links.similarity, kind="stable").tolist():
        a, b = int(links.first[index]), int(links.second[index])
        for one, other in ((a, b), (b, a)):
            # ``position_of_form`` has only protected texts: links are not followed transitively.
            if position_of_form[other] >= 0 and copy_of[one] < 0:
                copy_of[one], similarity[one] = position_of_form[other], links.similarity[index]
    return NearestProtected(similarity[duplicates.exact], copy_of[duplicates.exact])
