"""What a division did, in words: a note a row, and findings.

The notes are those of ``splits.parquet``; findings are on copies, groups, leaks, cuts, unevenness.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Finding, Severity
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import SHARE, SMALLEST, AllRows, Copies
from holdfast.split.division import Division
from holdfast.split.ways import Sides

MISSING = "missing text or label"
RARE = "its class is too small to divide"
# What reading left out, by the finding that lists it.
NOTES = {"rare_classes": RARE, "broken_images": "its picture cannot be read"}


def division_records(divided: Division) -> Any:
    """The records of all files as one Arrow table, one for each source row."""
    import pyarrow as pa

    source = divided.rows.tables["source"]
    # Dropped until something says otherwise: a row that no rule names must not seem divided.
    split = np.full(len(source), "dropped", dtype=object)
    split[divided.kept] = np.array(divided.names, dtype=object)[divided.side]
    notes = np.array(_drop_notes(divided, "source"), dtype=object)
    notes[divided.kept] = np.array(_moved_notes(divided), dtype=object)
    crossing = divided.crossing
    for row, of, side in zip(crossing.rows, crossing.of.tolist(), crossing.side, strict=True):
        place = f"{divided.rows.place(of)} ({divided.names[side]})"
        notes[row] = f"copies or nearly copies {place}, which is of another group"
    parts = [_source_records(source, split.tolist(), notes.tolist())]
    for name in ("valid", "test"):
        if name in divided.rows.tables:
            reasons = _drop_notes(divided, name)
            sides = ["dropped" if reason else name for reason in reasons]
            parts.append(_source_records(divided.rows.tables[name], sides, reasons))
    strings = pa.string()
    schema = pa.schema(
        {"file": strings, "row": pa.int64(), "split": strings, "group": strings, "note": strings}
    )
    return pa.concat_tables(pa.table(part, schema) for part in parts)


def _source_records(
    table: Table, split: Sequence[str], notes: Sequence[str | None]
) -> dict[str, Any]:
    """Those that reading left out included."""
    records: dict[str, Any] = {
        "file": np.full(table.source_rows, table.source, dtype=object),
        "row": np.arange(table.source_rows, dtype=np.int64),
        "split": np.full(table.source_rows, "dropped", dtype=object),
        "group": np.full(table.source_rows, None, dtype=object),
        "note": np.array(_absent_notes(table), dtype=object),
    }
    rows = table.column("row")
    records["split"][rows] = np.array(split, dtype=object)
    records["note"][rows] = np.array(notes, dtype=object)
    if table.has_groups:
        records["group"][rows] = np.array(table.column("group"), dtype=object)
    return records


def _moved_notes(divided: Division) -> list[str | None]:
    """A note for each row of a larger unit that moved; else ``None``."""
    units, names = divided.units, divided.names
    notes: list[str | None] = [None] * len(divided.side)
    rows = divided.rows.tables["source"].column("row")[divided.kept]
    first = np.full(len(units.sizes), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, units.of_row, rows)
    for at in np.flatnonzero(divided.moved).tolist():
        unit = units.of_row[at]
        others = int(units.sizes[unit]) - 1
        notes[at] = (
            f"moved from {names[divided.plain[at]]} to {names[divided.side[at]]}, beside the "
            f"{others} other row{'s' if others > 1 else ''} of its copies or group (first: row "
            f"{first[unit]})"
        )
    return notes


def _drop_notes(divided: Division, name: str) -> list[str | None]:
    """Why each row of a table was dropped; ``None`` where it was not."""
    gathered = divided.rows
    exact, start = gathered.copies.exact, gathered.starts[name]
    notes: list[str | None] = [None] * len(gathered.tables[name])
    for drop in (drop for drop in divided.drops if drop.name == name):
        for at in np.flatnonzero(drop.rows).tolist():
            of, similarity = int(drop.of[at]), drop.similarity[at]
            if notes[at] is not None:
                continue
            if of < 0:
                notes[at] = f"shares its group with the {drop.protected} rows"
            # A near-copy may have a similarity of 1 too: the same words in another order.
            elif similarity >= 1 and exact[start + at] == exact[of]:
                notes[at] = f"copies {gathered.place(of)} ({drop.protected})"
            else:
                alike = f"({drop.protected}, similarity {similarity:.2f})"
                notes[at] = f"nearly copies {gathered.place(of)} {alike}"
    return notes


def _absent_notes(table: Table) -> list[str]:
    """Why a row that is not in the table was left out, as far as the findings say."""
    known = [finding for finding in table.findings if finding.check in NOTES]
    told = {row: NOTES[finding.check] for finding in known for row in finding.rows}
    rare = [finding for finding in known if NOTES[finding.check] == RARE]
    all_listed = all(finding.count <= len(finding.rows) for finding in rare)
    other = MISSING if all_listed else f"{MISSING}, or {RARE}"
    return [told.get(row, other) for row in range(table.source_rows)]


# As many as a finding is written with.
KEPT_ROWS = 100
SERIOUS = 0.01
UNEVEN = 0.2


def division_findings(divided: Division) -> tuple[Finding, ...]:
    """All of them, in the order in which they are reported."""
    return (
        *_copies(divided.rows),
        *_copies_across_sources(divided.rows),
        *_leaks(divided),
        *_cuts(divided.rows.copies, divided.all_sides()),
        *_crossing(divided),
        *_groups(divided),
        *_unevenness(divided),
        *_reach(divided),
    )


def _copies(gathered: AllRows) -> Iterator[Finding]:
    """Exact and near-copies within the source, and within a test table that is used as it is."""
    for name in ("source", "test"):
        if name not in gathered.tables:
            continue
        exact, near = copied_rows(gathered, name)
        before, handled, cuts = "test_", "the test rows are used as is", ""
        if name == "source":
            before, handled = "", "copies always fall on one side"
            if gathered.copies.cuts:
                cuts = ", but for those that the cut of a long chain parted (copy_chains)"
        for check, rows, what in (
            (
                "exact_duplicates",
                exact,
                "are the same text as another after normalising case, space and punctuation; "
                f"{handled}",
            ),
            (
                "near_duplicates",
                near,
                f"differ from another only in few words (at most one in eight); {handled}{cuts}",
            ),
        ):
            if rows.any():
                yield _finding(
                    f"{before}{check}",
                    gathered.tables[name],
                    rows,
                    f"{int(rows.sum())} rows {what}",
                    "Nothing to do: splits.parquet notes those that moved.",
                    fixed=name == "source",
                )


def copied_rows(
    gathered: AllRows, name: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which rows of a table have an exact copy, and which a near-copy, in the same table."""
    copies = gathered.copies
    forms = copies.exact[gathered.span(name)]
    rows_of_form = np.bincount(forms, minlength=int(copies.exact.max(initial=-1)) + 1)
    inside = (rows_of_form[copies.links.first] > 0) & (rows_of_form[copies.links.second] > 0)
    near = np.zeros(len(rows_of_form), dtype=bool)
    near[copies.links.first[inside]] = True
    near[copies.links.second[inside]] = True
    return rows_of_form[forms] > 1, near[forms]


def _copies_across_sources(gathered: AllRows) -> Iterator[Finding]:
    table = gathered.tables["source"]
    if "source" not in table.rows.column_names:
        return
    sources = np.asarray(table.column("source"), dtype=object)
    _, place = np.unique(gathered.copies.groups[gathered.span("source")], return_inverse=True)
    _, number = np.unique(sources, return_inverse=True)
    pairs = np.unique(np.column_stack([place, number]), axis=0)
    several = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    rows = np.isin(place, several)
    if rows.any():
        names = ", ".join(sorted(set(sources[rows].tolist())))
        yield _finding(
            "copies_across_sources",
            table,
            rows,
            f"{int(rows.sum())} rows in {len(several)} groups of copies stand in several sources "
            f"({names}): each group stays on one side",
            "Drop them from one of the sources if they should count once.",
            severity="info",
        )


def _leaks(divided: Division) -> Iterator[Finding]:
    """Rows that were dropped because a protected table holds them too."""
    for drop in divided.drops:
        table = divided.rows.tables[drop.name]
        protected = f"{drop.protected} row"
        of = divided.rows.tables[drop.protected].source
        for check, rows, what, remedy in (
            (
                "leaks",
                drop.of >= 0,
                f"copy or nearly copy a {protected} ({of}) and were dropped",
                "Nothing to do; splits.parquet names the row that each copies.",
            ),
            (
                "shared_groups",
                drop.group & (drop.of < 0),
                f"belong to a group that the {protected}s ({of}) hold too, and were dropped",
                "If the groups of the two files are unrelated, train without --group.",
            ),
        ):
            if rows.any():
                because = f"{int(rows.sum())} rows of {table.source} {what}"
                yield _finding(check, table, rows, because, remedy)


def _cuts(copies: Copies, side: Sides) -> Iterator[Finding]:
    """Chains of near-copies that were cut, and buckets that were not compared in full. ``side``
    [n] is the side of each text of the copies, -1 for none."""
    if copies.cuts:
        texts = sum(cut.texts for cut in copies.cuts)
        links = sum(cut.links for cut in copies.cuts)
        yield Finding(
            "copy_chains",
            "warn",
            min(1.0, texts / max(1, len(copies))),
            texts,
            (),
            f"{len(copies.cuts)} chains of near-copies, of {texts} texts in all, were longer than "
            f"max({SMALLEST}, {SHARE:.0%} of the texts) and were cut into groups around one text "
            f"each; of {links} pairs of near-copies that this parted, "
            f"{_parted_pairs(copies, side)} stand on different sides",
            "If these rows come from a few sources, name the source column with --group.",
            fixed=True,
        )
    if copies.windowed:
        yield Finding(
            "copies_windowed",
            "info",
            min(1.0, copies.windowed / max(1, len(copies))),
            copies.windowed,
            (),
            f"{copies.windowed} texts share their rarest words with so many others that each was "
            "compared with its nearest only",
            "Nothing to do; a very uniform text column may deserve a --group.",
        )


def _parted_pairs(copies: Copies, side: Sides) -> int:
    """How many pairs of near-copies across a cut stand on different sides; ``side`` [n] of each
    text, -1 for none."""
    sides_of_form = np.zeros(int(copies.exact.max(initial=-1)) + 1, dtype=np.int64)
    used = side >= 0
    # A bit a side: the exact copies of a text may stand on several.
    np.bitwise_or.at(sides_of_form, copies.exact[used], 1 << side[used].astype(np.int64))
    links = copies.links.where(copies.permitted)
    one, other = sides_of_form[links.first], sides_of_form[links.second]
    both = one | other
    return int(np.sum((one > 0) & (other > 0) & ((both & (both - 1)) > 0)))


def _crossing(divided: Division) -> Iterator[Finding]:
    """Rows that were dropped as copies of a row of another group, or in a stable division of any
    row, on a more protected side."""
    table, count = divided.rows.tables["source"], len(divided.crossing)
    if not count:
        return
    rows = np.zeros(len(table), dtype=bool)
    rows[divided.crossing.rows] = True
    many = count > 1
    remedy = "Nothing to do; splits.parquet names the row that each copies."
    dropped = f"on a more protected side, and {'were' if many else 'was'} dropped:"
    because = f"{count} row{'s copy' if many else ' copies'}"
    if divided.way.stable:
        check = "copies_across_sides"
        because += (
            f" or nearly cop{'y' if many else 'ies'} a row {dropped} in a stable division no row "
            "moves to stand beside its copies"
        )
    else:
        check = "copies_across_groups"
        remedy += " If the groups are one, give them one name."
        because += (
            f" a row of another group that stands {dropped} to keep such groups together would "
            f"have made one block of {divided.units.block} of {len(table)} rows"
        )
    yield _finding(check, table, rows, because, remedy)


def _groups(divided: Division) -> Iterator[Finding]:
    """How many rows moved to stay beside their group."""
    table = divided.source
    if table.has_groups:
        yield _finding(
            "groups",
            table,
            divided.units.shared,
            f"{len(set(table.column('group')))} groups hold the {len(table)} rows; each falls on "
            f"one side, for which {int(divided.moved.sum())} rows stand elsewhere than in a plain "
            "stratified division",
            "Nothing to do.",
            severity="info",
        )


def _unevenness(divided: Division) -> Iterator[Finding]:
    """A side that is more than a fifth, and more than a row or two, off its fraction."""
    way, blocks = divided.way, divided.units.sizes
    if way.blocks is not None:
        blocks = np.bincount(way.blocks[divided.kept])
    largest = int(blocks.max(initial=0))
    sizes = np.bincount(divided.side, minlength=len(divided.names))
    total = int(sizes.sum())
    wanted = np.asarray(divided.fractions) * total
    off = np.abs(sizes - wanted)
    worst = int(np.argmax(off / np.maximum(wanted, 1e-9)))
    if off[worst] <= max(2.0, UNEVEN * wanted[worst]):
        return
    if way.stable:
        why = "chance makes the sides of a stable division"
        remedy = "Nothing to do: the more rows, the nearer the shares."
    elif way.by == "time":
        why = "rows of one moment, copies and groups stay together"
        remedy = "Give finer times, or another share."
    elif way.held:
        why, remedy = "data.split.held names its rows", "Nothing to do."
    elif largest < off[worst]:
        # No single group explains it: many classes of few rows, each with one row a side at least.
        why = "every class has a row on each side, and many classes have few rows"
        remedy = "Add rows of small classes, or merge them with --set data.rare=merge."
    else:
        why = f"the largest group of rows that must stay together has {largest} of {total}"
        remedy = "Choose a finer --group, or add groups."
    yield Finding(
        "uneven_division",
        "info" if way.stable or way.held else "warn",
        float(min(1.0, off[worst] / max(wanted[worst], 1e-9))),
        round(float(off[worst])),
        (),
        f"{divided.names[worst]} has {sizes[worst]} rows where {wanted[worst]:.0f} were asked for: "
        f"{why}",
        remedy,
    )


def _reach(divided: Division) -> Iterator[Finding]:
    """Test rows that copies or a group hold on that side though they are older than a training row,
    or of a block that is learned."""
    way, side, names = divided.way, divided.side, divided.names
    if way.by in ("rows", "topic") or len(names) < 2:
        return
    last, train = side == len(names) - 1, side == 0
    if way.by == "time":
        assert way.ages is not None
        ages = way.ages[divided.kept]
        reached = last & (ages < ages[train].max(initial=-np.inf))
        what = "older than the newest training row"
    else:
        assert way.blocks is not None
        blocks = way.blocks[divided.kept]
        reached = last & np.isin(blocks, blocks[train])
        what = f"of a {way.by} that the training rows have too"
    count = int(reached.sum())
    if count:
        yield _finding(
            "blocks_reach_across",
            divided.source,
            reached,
            f"{count} {names[-1]} row{'s are' if count > 1 else ' is'} {what}: copies and groups "
            "hold them there",
            "Nothing to do where they are few.",
        )


def _finding(
    check: str,
    table: Table,
    rows: npt.NDArray[np.bool_],
    because: str,
    remedy: str,
    *,
    fixed: bool = True,
    severity: Severity | None = None,
) -> Finding:
    share = float(rows.mean()) if len(rows) else 0.0
    ids = np.sort(table.column("row")[rows])[:KEPT_ROWS]
    chosen = severity or ("warn" if share >= SERIOUS else "info")
    return Finding(
        check, chosen, share, int(rows.sum()), tuple(ids.tolist()), because, remedy, fixed
    )
