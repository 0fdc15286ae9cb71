"""Split a table into training, validation and test rows that share no duplicates and no groups.

The default is 70/15/15, stratified by class, seeded, and independent of the order of the rows in
the file. Duplicates (``duplicates.py``) and groups are joined to units (``outcome.py``), and each
unit stays in one split (``assign.py``). In a split by rows without a group column, pairs of rows on
one subject with different labels are joined too (``opposite_pairs.py``). With a given test table
the source is split 82/18 into training and validation rows, and source rows that duplicate or
nearly duplicate a test row are dropped.

The result is verified: normal forms are computed again from the rows of each split
(``refuse_leaks``), and no verified near-duplicates may be in different splits, except across a
reported cut of a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from holdfast.core.errors import RecipeError, SplitError
from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import count_phrase, list_phrase
from holdfast.data.clean import OWN_GROUP, named_groups
from holdfast.data.labels.bins import join_small_strata, label_matrix
from holdfast.data.table import HeldOut, Splits, Table, TrainSplit, ValidSplit
from holdfast.duplicates.duplicates import CombinedRows, Duplicates, combine_tables
from holdfast.duplicates.normalise import content_keys, normal_forms, to_arrow
from holdfast.duplicates.opposite_pairs import opposite_pairs_of
from holdfast.duplicates.words import BLOCK_TEXTS, I64, U64, RowTexts
from holdfast.split.assign import assign, assign_multilabel, strata_by_source
from holdfast.split.findings import split_findings, split_records
from holdfast.split.outcome import (
    SPLIT_NAMES,
    Drops,
    SplitOutcome,
    Units,
    dropped_mask,
    find_crossing_copies,
    find_drops,
    make_units,
)
from holdfast.split.strategies import (
    STRATIFIED,
    Assignment,
    SplitStrategy,
    by_blocks,
    by_hash,
    by_time,
    majority_blocks,
)

FRACTIONS = (0.7, 0.15, 0.15)
# The most block names in the decision's line.
MAX_LISTED_BLOCKS = 5


def split_table(
    table: Table,
    *,
    seed: int,
    fractions: tuple[float, float, float] = FRACTIONS,
    test: Table | None = None,
    valid: Table | None = None,
    strategy: SplitStrategy = STRATIFIED,
) -> Splits:
    """Split ``table``, or the rows of it that remain after a given ``test`` or ``valid`` table.

    A row has *moved* if it shares its unit with another row and its split differs from the one that
    the same seed gives if every row is its own unit.

    Parameters
    ----------
    table : the rows to split.
    seed : equal seeds and rows give equal splits.
    fractions : train, valid and test, summing to 1, train and valid above 0. A test fraction of 0
        gives training and validation rows only; the test set is then empty. With a given table the
        other two keep their proportion, rounded to one percent: 82/18 by default.
    test, valid : used as they are, with the classes of ``table``. Rows of ``table`` that duplicate
        one of their rows, or share a group, are dropped; so are rows of ``valid`` that duplicate or
        share a group with ``test``.
    strategy : by rows, stratified by class; or by time, by complete blocks, or by hash
        (``strategies.py``).

    Raises ``RecipeError`` for impossible fractions, ``SplitError`` if no row is left, or a class
    cannot be in every split.
    """
    _check_fractions(fractions)
    given_tables = {n: t for n, t in (("valid", valid), ("test", test)) if t is not None}
    _check_tables(table, given_tables)
    # One search over all files: duplicates between and within files follow the same rule.
    combined = combine_tables(table, given_tables, derive_seed(seed, "copies"))
    outcome = _split_source(combined, find_drops(combined), fractions, seed, strategy)
    # Verified again: leakage here would make every later number wrong.
    refuse_shared_copies(combined.duplicates, outcome.full_assignment(), list(SPLIT_NAMES))
    splits = _make_splits(outcome, seed)
    refuse_leaks(splits)
    return splits


def _split_source(
    combined: CombinedRows,
    drops: tuple[Drops, ...],
    fractions: tuple[float, ...],
    seed: int,
    strategy: SplitStrategy,
) -> SplitOutcome:
    table = combined.tables["source"]
    kept_rows = np.flatnonzero(~dropped_mask(drops, "source", len(table)))
    labels = table.column("label")[kept_rows]
    _check_remaining_classes(table, labels, combined)
    nonempty = [name for name, share in zip(SPLIT_NAMES, fractions, strict=True) if share > 0]
    split_names = tuple(name for name in nonempty if name not in combined.tables)
    shares = _shares(fractions, split_names)
    groups, pairs = None, None
    if table.has_groups:
        group_numbers: dict[str, int] = {}
        group_of_row = [
            group_numbers.setdefault(name, len(group_numbers)) for name in table.column("group")
        ]
        groups = np.array(group_of_row, dtype=np.int64)[kept_rows]
    elif strategy.by == "rows" and not strategy.stable:
        pairs = opposite_pairs_of(table.take(kept_rows))
    copies = combined.duplicates
    copy_groups, joined_pairs = copies.groups[kept_rows], None

    def assign_units(copy_groups: I64) -> tuple[Units, Assignment, Assignment]:
        units = make_units(copy_groups, copies.contents[kept_rows], labels, groups, seed)
        return units, *_assign_rows(table, kept_rows, units, shares, seed, strategy)

    if pairs is None:
        units, assignment, row_assignment = assign_units(copy_groups)
    else:
        joined = pairs.join(copy_groups, labels)
        try:
            units, assignment, row_assignment = assign_units(joined)
        except SplitError:
            # The pairs are estimates: they must not prevent a split that rows alone allow.
            joined = copy_groups
            units, assignment, row_assignment = assign_units(joined)
        joined_pairs = int((joined != copy_groups).sum())
    # ``split_names`` goes from train to test, from the least to the most protected. Without a
    # separated block no duplicate can cross and no search is needed; by hash any can.
    order = (
        tuple(reversed(range(len(split_names)))) if units.largest_parted or strategy.stable else ()
    )
    crossing = find_crossing_copies(copies, kept_rows, assignment, order)
    remaining = ~np.isin(kept_rows, crossing.rows)
    if strategy.by == "time" or strategy.stable:
        _check_assignment(table, labels, assignment, split_names, strategy)
    _check_training_classes(table, labels, assignment == split_names.index("train"), remaining)
    return SplitOutcome(
        combined,
        drops,
        kept_rows[remaining],
        split_names,
        shares,
        units.where(remaining),
        assignment[remaining],
        row_assignment[remaining],
        crossing,
        strategy,
        joined_pairs,
    )


def _assign_rows(
    table: Table,
    kept_rows: I64,
    units: Units,
    shares: tuple[float, ...],
    seed: int,
    strategy: SplitStrategy,
) -> tuple[Assignment, Assignment]:
    """The split of each kept row, and what it would be without duplicates and groups."""
    labels = table.column("label")[kept_rows]
    if strategy.stable:
        # The identity of a row as a hash: its group's name, else its normal form.
        identity = text_keys(table)[kept_rows]
        if table.has_groups:
            groups = np.asarray(table.column("group"), dtype=object)[kept_rows]
            named = [not name.startswith(OWN_GROUP) for name in groups]
            keys = content_keys(pa.array(groups, pa.large_string()))
            identity = np.where(named, keys, identity)
        assignment = by_hash(identity, shares, seed)
    elif strategy.by == "time":
        assert strategy.ages is not None
        assignment = by_time(units.of_row, strategy.ages[kept_rows], units.keys, shares)[
            units.of_row
        ]
    elif strategy.by != "rows":
        assert strategy.blocks is not None
        blocks = strategy.blocks[kept_rows]
        if strategy.by == "topic":
            # Topics are estimates: rows that must stay together get one topic.
            blocks = majority_blocks(units.of_row, blocks)
        assignment = by_blocks(
            units.of_row, blocks, labels, units.keys, shares, table.classes, strategy.held_out
        )
    else:
        strata, strata_names = labels, table.classes
        if not table.columns.one_class:
            # Near-duplicates, which count once, are found after the strata were made.
            strata = join_small_strata(strata, units.of_row, len(shares))
        if strategy == STRATIFIED and "source" in table.rows.column_names:
            sources = np.asarray(table.column("source"), dtype=object)[kept_rows]
            strata, strata_names = strata_by_source(
                strata, sources, units.of_row, len(shares), table.classes
            )
        if "labels" in table.rows.column_names:
            return _by_each_label(table.take(kept_rows), strata, units, shares)
        assignment = assign(units.of_row, strata, units.keys, shares, strata_names)[units.of_row]
        if strategy == STRATIFIED:
            # The second assignment shows which rows moved because of duplicates and groups.
            single_units = np.arange(len(kept_rows), dtype=np.int64)
            return assignment, assign(single_units, strata, units.row_keys, shares, strata_names)
    return assignment, assignment


def _by_each_label(
    rows: Table, strata: I64, units: Units, shares: tuple[float, ...]
) -> tuple[Assignment, Assignment]:
    """The split of rows with several labels, by each of them, and by the sets of labels or the
    sources: ``strata`` [n]."""
    of_strata = strata[:, None] == np.unique(strata)
    matrix = np.concatenate([label_matrix(rows) > 0, of_strata], axis=1)
    single_units = np.arange(len(rows), dtype=np.int64)
    return (
        assign_multilabel(units.of_row, matrix, units.keys, shares)[units.of_row],
        assign_multilabel(single_units, matrix, units.row_keys, shares),
    )


def _make_splits(outcome: SplitOutcome, seed: int) -> Splits:
    source, given_tables = outcome.combined.tables["source"], outcome.combined.tables
    tables, units = {}, {}
    for number, name in enumerate(outcome.split_names):
        in_split = outcome.assignment == number
        tables[name], units[name] = (
            source.take(outcome.kept_rows[in_split]),
            outcome.units.of_row[in_split],
        )
    if "valid" in given_tables:
        kept_valid = np.flatnonzero(
            ~dropped_mask(outcome.drops, "valid", len(given_tables["valid"]))
        )
        tables["valid"] = given_tables["valid"].take(kept_valid)
        if not len(kept_valid):
            raise SplitError(
                given_tables["valid"].source,
                "has no row left after duplicates of test rows were dropped",
                None,
                "Give other validation rows, or none: Holdfast then takes them from the source.",
            )
        # Given rows share no duplicates and groups with the source: those were dropped.
        copies = outcome.combined.duplicates.groups[outcome.combined.span("valid")][kept_valid]
        units["valid"] = len(outcome.units.sizes) + copies
    # Empty, not absent: there are always three splits.
    tables.setdefault("test", given_tables.get("test", source.take([])))
    return Splits(
        TrainSplit(tables["train"]),
        ValidSplit(tables["valid"]),
        HeldOut(tables["test"]),
        split_records(outcome),
        split_findings(outcome),
        (_decision(outcome, tables, seed),),
        moved=int(outcome.moved.sum()),
        units=np.concatenate([units["train"], units["valid"]]),
    )


def _decision(outcome: SplitOutcome, tables: dict[str, Table], seed: int) -> Decision:
    sizes = ", ".join(f"{name} {len(tables[name])}" for name in SPLIT_NAMES)
    percent = "/".join(f"{share:.0%}".rstrip("%") for share in outcome.fractions)
    given_notes = [f"the {n} rows are given" for n in SPLIT_NAMES if n in outcome.combined.tables]
    how = f"the source is split {percent} into {', '.join(outcome.split_names)}"
    notes = [*given_notes, f"{how}, {_describe_strategy(outcome)}, seed {seed}"]
    if outcome.units.shared.any():
        moved = int(outcome.moved.sum())
        notes.append(
            f"{int(outcome.units.shared.sum())} rows stay with their duplicates or group"
            + (f", which moved {count_phrase(moved, 'row')} to another split" if moved else "")
        )
    if outcome.joined_pairs is not None:
        notes.append(
            f"{count_phrase(outcome.joined_pairs, 'pair')} of rows on one subject with different "
            "labels are kept together like groups"
            + ("" if outcome.joined_pairs else ": a class has too few rows for that")
        )
    because = "; ".join(notes)
    return Decision("split", sizes, because)


def _describe_strategy(outcome: SplitOutcome) -> str:
    """How the rows were split, with the result."""
    strategy, table = outcome.strategy, outcome.combined.tables["source"]
    strata_words = {"several": "set of labels", "number": "range of numbers"}
    strata = [strata_words.get(table.columns.label_kind or "", "class")]
    # Chats and texts to continue are all of one class.
    strata = strata if table.columns.label_kind or len(table.classes) != 1 else []
    strata += ["source"] if "source" in table.rows.column_names else []
    by_class = f"stratified by {' and '.join(strata)}" if strata else "drawn at random"
    if strategy == STRATIFIED:
        return by_class
    because = strategy.because.replace("{side}", outcome.split_names[-1])
    if strategy.by == "time":
        assert strategy.ages is not None
        starts = []
        for number, name in reversed(list(enumerate(outcome.split_names[1:], 1))):
            rows = outcome.kept_rows[outcome.assignment == number]
            first = strategy.moments[int(rows[np.argmin(strategy.ages[rows])])]
            starts.append(f"{name} from {first} on")
        return f"{because}: {', '.join(starts)}"
    if strategy.blocks is not None:
        last = outcome.kept_rows[outcome.assignment == len(outcome.split_names) - 1]
        held_out = [strategy.names[number] for number in np.unique(strategy.blocks[last]).tolist()]
        shown = list_phrase([*map(repr, held_out)], MAX_LISTED_BLOCKS, ", ", " …")
        rest = f"; the other rows are {by_class}" if len(outcome.split_names) > 1 else ""
        return f"{because} ({len(held_out)} of {len(strategy.names)}: {shown}){rest}"
    return f"{because}; it is not stratified, and new rows do not move existing ones"


def _shares(fractions: tuple[float, ...], names: Sequence[str]) -> tuple[float, ...]:
    if len(names) == len(SPLIT_NAMES):
        return fractions
    if len(names) == 1:
        return (1.0,)
    first, second = (fractions[SPLIT_NAMES.index(name)] for name in names)
    # Rounded to one percent, so that the plan prints the fractions that are used: 82/18, not
    # 82.35/17.65.
    share = min(max(round(first / (first + second), 2), 0.01), 0.99)
    return share, 1 - share


def _check_fractions(fractions: tuple[float, ...]) -> None:
    sums_to_one = len(fractions) == len(SPLIT_NAMES) and abs(sum(fractions) - 1) < 1e-6
    if (
        not sums_to_one
        or not all(0 < fraction < 1 for fraction in fractions[:2])
        or fractions[2] < 0
    ):
        raise RecipeError(
            "data.split",
            "needs three fractions that sum to 1, with train and valid above 0 and test at least 0",
            tuple(fractions),
            "For example data.split: {train: 0.7, valid: 0.15, test: 0.15}.",
        )


def _check_tables(table: Table, given: dict[str, Table]) -> None:
    if not len(table):
        raise SplitError(table.source, "has no rows to split", None, "Give a file with rows.")
    if table.column("label").min() < 0:
        raise SplitError(
            table.source, "contains rows without a label", None, "Label or remove them."
        )
    for name, other in given.items():
        if not len(other):
            raise SplitError(
                other.source, f"contains no {name} rows", None, "Give a file with rows."
            )
        if other.classes != table.classes or other.has_pairs != table.has_pairs:
            rule = f"does not have the classes or text columns of {table.source}"
            remedy = "Give files with the same columns and classes."
            raise SplitError(other.source, rule, other.classes, remedy)


def _check_training_classes(
    table: Table,
    labels: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
    remaining: npt.NDArray[np.bool_],
) -> None:
    for number in np.setdiff1d(labels[train], labels[train & remaining]):
        rule = "has no training row left: all duplicate a validation or test row of another group"
        remedy = "Add rows of this class, remove the duplicates, or train without --group."
        raise SplitError(f"the class {table.classes[number]!r}", rule, None, remedy)


def _check_assignment(
    table: Table,
    labels: npt.NDArray[np.int64],
    assignment: Assignment,
    split_names: tuple[str, ...],
    strategy: SplitStrategy,
) -> None:
    """Refuse a class without training rows and a split without rows: a split by time or by hash
    does not guarantee either."""
    how = "by time" if strategy.by == "time" else "by hash"
    for number, name in enumerate(split_names):
        if not (assignment == number).any():
            rule = f"leaves no {name} rows"
            remedy = "Add rows, give this split a larger fraction, or split by rows."
            raise SplitError(f"the split {how}", rule, f"{len(assignment)} rows in total", remedy)
    for label in np.setdiff1d(labels, labels[assignment == 0]):
        raise SplitError(
            f"the class {table.classes[label]!r}",
            f"has no training row in the split {how}",
            f"{int((labels == label).sum())} rows, all of them validation or test rows",
            "Drop small classes with --set data.rare_classes=drop, add rows, or split by rows.",
        )


def _check_remaining_classes(
    table: Table, labels: npt.NDArray[np.int64], combined: CombinedRows
) -> None:
    before = np.bincount(table.column("label"), minlength=len(table.classes))
    after = np.bincount(labels, minlength=len(table.classes))
    for number in np.flatnonzero((before > 0) & (after == 0)):
        given_names = " and ".join(name for name in combined.tables if name != "source")
        rule = f"has no row left: all duplicate the {given_names} rows or share a group with them"
        remedy = f"Add rows of this class to {table.source}, or give other {given_names} rows."
        raise SplitError(f"the class {table.classes[number]!r}", rule, None, remedy)


_REMEDY = "Let Holdfast make the split, or remove these rows from one of the two."


def refuse_leaks(splits: Splits) -> None:
    """Raise ``SplitError`` if splits share a normal form or a group.

    It reads the test rows' texts and groups, but selects nothing by them.
    """
    tables = {"train": splits.train.table, "valid": splits.valid.table, "test": splits.test._table}
    keys = {name: text_keys(table) for name, table in tables.items()}
    for one, other in combinations(tables, 2):
        shared = np.intersect1d(keys[one], keys[other])
        if len(shared):
            first = [
                int(tables[name].column("row")[keys[name] == shared[0]][0]) for name in (one, other)
            ]
            raise SplitError(
                f"{one} and {other}",
                f"share {len(shared)} texts (ignoring case, space and punctuation)",
                f"row {first[0]} of {one}, row {first[1]} of {other}",
                _REMEDY,
            )
    groups = {name: named_groups(t) for name, t in tables.items() if t.has_groups}
    for one, other in combinations(groups, 2):
        if both := groups[one] & groups[other]:
            raise SplitError(f"{one} and {other}", f"share {len(both)} groups", min(both), _REMEDY)


def refuse_shared_copies(
    copies: Duplicates, assignment: npt.NDArray[np.int8], split_names: list[str]
) -> None:
    """Raise ``SplitError`` if verified near-duplicates are in different splits without a reported
    cut.

    ``assignment`` [n] is the split of each text of ``copies``, an index into ``split_names``; -1
    for dropped rows.
    """
    in_split = np.zeros((int(copies.exact.max(initial=-1)) + 1, len(split_names)), dtype=bool)
    in_split[copies.exact[assignment >= 0], assignment[assignment >= 0]] = True
    links = copies.links.where(~copies.crosses_cut)
    for one, other in combinations(range(len(split_names)), 2):
        crossing = (in_split[links.first, one] & in_split[links.second, other]) | (
            in_split[links.first, other] & in_split[links.second, one]
        )
        if crossing.any():
            rule = f"share {count_phrase(int(crossing.sum()), 'pair')} of near-duplicates"
            raise SplitError(f"{split_names[one]} and {split_names[other]}", rule, None, _REMEDY)


def text_keys(table: Table) -> U64:
    """The hash of each row's normal form, [n]."""
    texts, keys = RowTexts(table), [np.empty(0, np.uint64)]
    for at in range(0, len(texts), BLOCK_TEXTS):
        keys.append(content_keys(normal_forms(to_arrow(texts[at : at + BLOCK_TEXTS]))))
    return np.concatenate(keys)
