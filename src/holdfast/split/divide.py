"""Divide a table into train, validation and test rows that share no copies and no groups.

By default 70/15/15, stratified by class, seeded, and the same whatever the order of the rows in
the file. Copies (``duplicates.py``) and groups are joined to units (``division.py``), and each unit
falls on one side (``assign.py``). With a given test table the source is divided 82/18 into
training and validation rows, and source rows that copy or nearly copy a test row are dropped.

Nothing of it is trusted: normal forms are computed again from the rows that each side really holds
(``refuse_leaks``), and verified near-copies are those of the one search; a link across a reported
cut of chains is the only one that may cross.
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
from holdfast.core.wording import listing
from holdfast.data.table import HeldOut, Splits, Table, TrainSplit, ValidSplit
from holdfast.duplicates.duplicates import AllRows, Copies, gather
from holdfast.duplicates.normalise import content_keys, normal_forms, to_arrow
from holdfast.duplicates.words import BLOCK, I64, U64, RowTexts
from holdfast.split.assign import assign, by_source
from holdfast.split.division import (
    SIDES,
    Division,
    Drops,
    Units,
    dropped,
    find_crossing,
    find_drops,
    make_units,
)
from holdfast.split.findings import division_findings, division_records
from holdfast.split.ways import (
    PLAIN,
    Sides,
    SplitStrategy,
    by_blocks,
    by_hash,
    by_time,
    whole_units,
)

FRACTIONS = (0.7, 0.15, 0.15)
# Names of blocks in the decision's line.
SHOWN = 5


def divide(
    table: Table,
    *,
    seed: int,
    fractions: tuple[float, float, float] = FRACTIONS,
    test: Table | None = None,
    valid: Table | None = None,
    way: SplitStrategy = PLAIN,
) -> Splits:
    """Divide ``table``, or what a given ``test`` or ``valid`` table leaves of it.

    A row has *moved* when it shares its unit with another row and its side is not the one that the
    same seed gives it where every row is its own unit.

    Parameters
    ----------
    table : the rows to divide.
    seed : equal seeds and rows give equal divisions.
    fractions : train, valid and test, summing to 1, train and valid above 0. A test share of 0
        divides into training and validation rows only; the test rows are then empty. With a given
        table the other two keep their proportion, to a whole percent: 82/18 by default.
    test, valid : used as they are, with the classes of ``table``. Rows of ``table`` that copy one
        of theirs, or share a group, are dropped; so are those of ``valid`` against ``test``.
    way : by rows, evenly by class; or by time, by whole blocks, or by hash (``ways.py``).

    Raises ``RecipeError`` for impossible fractions, ``SplitError`` where no row is left, or a class
    cannot be on every side.
    """
    _check_fractions(fractions)
    given = {n: t for n, t in (("valid", valid), ("test", test)) if t is not None}
    _check_tables(table, given)
    # One search over all files: copies between them are found with the same rule as within.
    gathered = gather(table, given, derive_seed(seed, "copies"))
    divided = _divide_source(gathered, find_drops(gathered), fractions, seed, way)
    # Not trusted but checked again: a leak here would make every later number wrong.
    refuse_shared_copies(gathered.copies, divided.all_sides(), list(SIDES))
    splits = _wrap(divided, seed)
    refuse_leaks(splits)
    return splits


def _divide_source(
    gathered: AllRows,
    drops: tuple[Drops, ...],
    fractions: tuple[float, ...],
    seed: int,
    way: SplitStrategy,
) -> Division:
    table = gathered.tables["source"]
    kept = np.flatnonzero(~dropped(drops, "source", len(table)))
    labels = table.column("label")[kept]
    _check_left(table, labels, gathered)
    wanted = [name for name, share in zip(SIDES, fractions, strict=True) if share > 0]
    names = tuple(name for name in wanted if name not in gathered.tables)
    shares = _shares(fractions, names)
    copies, groups = gathered.copies, None
    if table.has_groups:
        numbers: dict[str, int] = {}
        every = [numbers.setdefault(name, len(numbers)) for name in table.column("group")]
        groups = np.array(every, dtype=np.int64)[kept]
    units = make_units(copies.groups[kept], copies.contents[kept], labels, groups, seed)
    side, plain = _sides(table, kept, units, shares, seed, way)
    # ``names`` goes from train to test, the least to the most protected. Without a parted block no
    # copy can cross, and nothing is searched; by hash any may.
    order = tuple(reversed(range(len(names)))) if units.block or way.stable else ()
    crossing = find_crossing(copies, kept, side, order)
    left = ~np.isin(kept, crossing.rows)
    if way.by == "time" or way.stable:
        _check_sides(table, labels, side, names, way)
    _check_train(table, labels, side == names.index("train"), left)
    return Division(
        gathered,
        drops,
        kept[left],
        names,
        shares,
        units.where(left),
        side[left],
        plain[left],
        crossing,
        way,
    )


def _sides(
    table: Table, kept: I64, units: Units, shares: tuple[float, ...], seed: int, way: SplitStrategy
) -> tuple[Sides, Sides]:
    """The side of each row that is kept, and what it would be without copies and groups."""
    labels = table.column("label")[kept]
    if way.stable:
        # What a row is, as a hash: its group's name, else its normal form.
        if table.has_groups:
            identity = content_keys(pa.array(table.column("group"), pa.large_string()))[kept]
        else:
            identity = text_keys(table)[kept]
        side = by_hash(identity, shares, seed)
    elif way.by == "time":
        assert way.ages is not None
        side = by_time(units.of_row, way.ages[kept], units.keys, shares)[units.of_row]
    elif way.by != "rows":
        assert way.blocks is not None
        blocks = way.blocks[kept]
        if way.by == "topic":
            # What a topic is, is a guess: what must stay together has one.
            blocks = whole_units(units.of_row, blocks)
        side = by_blocks(units.of_row, blocks, labels, units.keys, shares, table.classes, way.held)
    else:
        strata, called = labels, table.classes
        if way == PLAIN and "source" in table.rows.column_names:
            sources = np.asarray(table.column("source"), dtype=object)[kept]
            strata, called = by_source(labels, sources, units.of_row, len(shares), table.classes)
        side = assign(units.of_row, strata, units.keys, shares, called)[units.of_row]
        if way == PLAIN:
            # It says which rows copies and groups moved.
            alone = np.arange(len(kept), dtype=np.int64)
            return side, assign(alone, strata, units.row_keys, shares, called)
    return side, side


def _wrap(divided: Division, seed: int) -> Splits:
    source, given = divided.rows.tables["source"], divided.rows.tables
    tables, units = {}, {}
    for number, name in enumerate(divided.names):
        here = divided.side == number
        tables[name], units[name] = source.take(divided.kept[here]), divided.units.of_row[here]
    if "valid" in given:
        kept = np.flatnonzero(~dropped(divided.drops, "valid", len(given["valid"])))
        tables["valid"] = given["valid"].take(kept)
        if not len(kept):
            raise SplitError(
                given["valid"].source,
                "has no row left that is no copy of a test row",
                None,
                "Give other validation rows, or none: they are then taken from the source.",
            )
        # Given rows share no copy and no group with the source: what does was dropped.
        copies = divided.rows.copies.groups[divided.rows.span("valid")][kept]
        units["valid"] = len(divided.units.sizes) + copies
    # Empty, not absent: there are three sides, whatever was asked for.
    tables.setdefault("test", given.get("test", source.take([])))
    return Splits(
        TrainSplit(tables["train"]),
        ValidSplit(tables["valid"]),
        HeldOut(tables["test"]),
        division_records(divided),
        division_findings(divided),
        (_decision(divided, tables, seed),),
        moved=int(divided.moved.sum()),
        units=np.concatenate([units["train"], units["valid"]]),
    )


def _decision(divided: Division, tables: dict[str, Table], seed: int) -> Decision:
    chosen = ", ".join(f"{name} {len(tables[name])}" for name in SIDES)
    percent = "/".join(f"{share:.0%}".rstrip("%") for share in divided.fractions)
    given = [f"the {n} rows are given" for n in SIDES if n in divided.rows.tables]
    how = f"the source is divided {percent} into {', '.join(divided.names)}"
    units = divided.units
    kept = (
        f"{int(units.shared.sum())} rows are kept with their copies or group in "
        f"{int((units.sizes > 1).sum())} units, and {int(divided.moved.sum())} were moved for this"
    )
    because = "; ".join([*given, f"{how}, {_how(divided)}, seed {seed}", kept])
    return Decision("division", chosen, because)


def _how(divided: Division) -> str:
    """By what the rows were divided, with what it came to."""
    way, table = divided.way, divided.rows.tables["source"]
    kinds = {"several": "set of labels", "number": "range of numbers"}
    by_class = f"stratified by {kinds.get(table.columns.label_kind or '', 'class')}"
    if "source" in table.rows.column_names:
        by_class += " and source"
    if way == PLAIN:
        return by_class
    because = way.because.replace("{side}", divided.names[-1])
    if way.by == "time":
        assert way.ages is not None
        starts = []
        for number, name in reversed(list(enumerate(divided.names[1:], 1))):
            rows = divided.kept[divided.side == number]
            first = way.moments[int(rows[np.argmin(way.ages[rows])])]
            starts.append(f"{name} from {first} on")
        return f"{because}: {', '.join(starts)}"
    if way.blocks is not None:
        last = divided.kept[divided.side == len(divided.names) - 1]
        held = [way.names[number] for number in np.unique(way.blocks[last]).tolist()]
        shown = listing([*map(repr, held)], SHOWN, ", ", " …")
        rest = f"; the others are {by_class}" if len(divided.names) > 1 else ""
        return f"{because} ({len(held)} of {len(way.names)}: {shown}){rest}"
    return f"{because}; no class is kept in proportion, and rows that are added move none"


def _shares(fractions: tuple[float, ...], names: Sequence[str]) -> tuple[float, ...]:
    if len(names) == len(SIDES):
        return fractions
    if len(names) == 1:
        return (1.0,)
    first, second = (fractions[SIDES.index(name)] for name in names)
    # To a whole per cent, so that the plan names the numbers that are used: 82/18, not 82.35/17.65.
    share = min(max(round(first / (first + second), 2), 0.01), 0.99)
    return share, 1 - share


def _check_fractions(fractions: tuple[float, ...]) -> None:
    whole = len(fractions) == len(SIDES) and abs(sum(fractions) - 1) < 1e-6
    if not whole or not all(0 < fraction < 1 for fraction in fractions[:2]) or fractions[2] < 0:
        raise RecipeError(
            "data.split",
            "needs three fractions that sum to 1, train and valid above 0 and test not below",
            tuple(fractions),
            "For example data.split: {train: 0.7, valid: 0.15, test: 0.15}.",
        )


def _check_tables(table: Table, given: dict[str, Table]) -> None:
    if not len(table):
        raise SplitError(table.source, "has no rows to divide", None, "Give a file with rows.")
    if table.column("label").min() < 0:
        raise SplitError(
            table.source, "holds rows without a label", None, "Label them, or leave them out."
        )
    for name, other in given.items():
        if not len(other):
            raise SplitError(other.source, f"holds no {name} rows", None, "Give a file with rows.")
        if other.classes != table.classes or other.has_pairs != table.has_pairs:
            raise SplitError(
                other.source,
                f"does not have the classes or text columns of {table.source}",
                other.classes,
                "Give files of the same shape.",
            )


def _check_train(
    table: Table,
    labels: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
    left: npt.NDArray[np.bool_],
) -> None:
    for number in np.setdiff1d(labels[train], labels[train & left]):
        raise SplitError(
            f"the class {table.classes[number]!r}",
            "has no training row that is no copy of a validation or test row of another group",
            None,
            "Add rows of this class, take the copies out, or train without --group.",
        )


def _check_sides(
    table: Table,
    labels: npt.NDArray[np.int64],
    side: Sides,
    names: tuple[str, ...],
    way: SplitStrategy,
) -> None:
    """A class that is not learned, or a side without rows: chance, or the course of time, made the
    sides and not the classes."""
    how = "by time" if way.by == "time" else "by hash"
    for number, name in enumerate(names):
        if not (side == number).any():
            raise SplitError(
                f"the division {how}",
                f"leaves no {name} rows",
                f"{len(side)} rows in all",
                "Add rows, give this side a larger share, or divide by rows.",
            )
    for label in np.setdiff1d(labels, labels[side == 0]):
        raise SplitError(
            f"the class {table.classes[label]!r}",
            f"has no training row in the division {how}",
            f"{int((labels == label).sum())} rows, all of them validation or test rows",
            "Leave small classes out with --set data.rare=drop, add rows, or divide by rows.",
        )


def _check_left(table: Table, labels: npt.NDArray[np.int64], gathered: AllRows) -> None:
    before = np.bincount(table.column("label"), minlength=len(table.classes))
    after = np.bincount(labels, minlength=len(table.classes))
    for number in np.flatnonzero((before > 0) & (after == 0)):
        kinds = " and ".join(name for name in gathered.tables if name != "source")
        raise SplitError(
            f"the class {table.classes[number]!r}",
            f"has no row left that is no copy of, and in no group of, the {kinds} rows",
            None,
            f"Add rows of this class to {table.source}, or give other {kinds} rows.",
        )


_REMEDY = "Divide again with holdfast's own division, or leave these rows out of one side."


def refuse_leaks(splits: Splits) -> None:
    """Raise ``SplitError`` where sides share a normal form or a group.

    Reads the test rows' texts and groups without opening them: nothing is chosen by it.
    """
    sides = {"train": splits.train.table, "valid": splits.valid.table, "test": splits.test._table}
    keys = {name: text_keys(table) for name, table in sides.items()}
    for one, other in combinations(sides, 2):
        shared = np.intersect1d(keys[one], keys[other])
        if len(shared):
            first = [
                int(sides[name].column("row")[keys[name] == shared[0]][0]) for name in (one, other)
            ]
            raise SplitError(
                f"{one} and {other}",
                f"share {len(shared)} texts (equal after normalising)",
                f"row {first[0]} of {one}, row {first[1]} of {other}",
                _REMEDY,
            )
    groups = {name: set(t.column("group")) for name, t in sides.items() if t.has_groups}
    for one, other in combinations(groups, 2):
        if both := groups[one] & groups[other]:
            raise SplitError(f"{one} and {other}", f"share {len(both)} groups", min(both), _REMEDY)


def refuse_shared_copies(copies: Copies, side: npt.NDArray[np.int8], names: list[str]) -> None:
    """Raise ``SplitError`` where a verified near-copy crosses sides without a reported cut.

    ``side`` [n] is the side of each text of ``copies``, an index into ``names``; -1 for dropped.
    """
    stands_on = np.zeros((int(copies.exact.max(initial=-1)) + 1, len(names)), dtype=bool)
    stands_on[copies.exact[side >= 0], side[side >= 0]] = True
    links = copies.links.where(~copies.permitted)
    for one, other in combinations(range(len(names)), 2):
        crossing = (stands_on[links.first, one] & stands_on[links.second, other]) | (
            stands_on[links.first, other] & stands_on[links.second, one]
        )
        if crossing.any():
            raise SplitError(
                f"{names[one]} and {names[other]}",
                f"share {int(crossing.sum())} pairs of near-copies",
                None,
                _REMEDY,
            )


def text_keys(table: Table) -> U64:
    """The hash of each row's normal form, [n]."""
    texts, keys = RowTexts(table), [np.empty(0, np.uint64)]
    for at in range(0, len(texts), BLOCK):
        keys.append(content_keys(normal_forms(to_arrow(texts[at : at + BLOCK]))))
    return np.concatenate(keys)
