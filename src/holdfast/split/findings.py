"""What the division found and did, as findings: copies, groups, leaks, cuts, unevenness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Finding, Severity
from holdfast.data.table import Table
from holdfast.duplicates.chains import SHARE, SMALLEST
from holdfast.duplicates.duplicates import Copies
from holdfast.duplicates.gather import AllRows
from holdfast.duplicates.words import I64
from holdfast.split.cross_group_copies import Crossing
from holdfast.split.division import Drops
from holdfast.split.ways import PLAIN, SplitStrategy

# As many as a finding is written with.
KEPT_ROWS = 100
SERIOUS = 0.01
UNEVEN = 0.2


def copy_findings(gathered: AllRows) -> list[Finding]:
    """Exact and near-copies within the source, and within a test table that is used as it is."""
    found = []
    for name in ("source", "test"):
        if name in gathered.tables:
            exact, near = copied_rows(gathered, name)
            found += [_exact(gathered, name, exact), _near(gathered, name, near)]
    return [finding for finding in found if finding is not None]


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


def _exact(gathered: AllRows, name: str, rows: npt.NDArray[np.bool_]) -> Finding | None:
    table, count = gathered.tables[name], int(rows.sum())
    if not count:
        return None
    return _finding(
        "exact_duplicates" if name == "source" else "test_exact_duplicates",
        table,
        rows,
        f"{count} rows are the same text as another after normalising case, space and "
        f"punctuation; {_handled(name)}",
        "Nothing to do: splits.parquet notes those that moved.",
        name == "source",
    )


def _near(gathered: AllRows, name: str, rows: npt.NDArray[np.bool_]) -> Finding | None:
    table, count = gathered.tables[name], int(rows.sum())
    if not count:
        return None
    cut = name == "source" and gathered.copies.cuts
    but_for_cuts = (
        ", but for those that the cut of a long chain parted (copy_chains)" if cut else ""
    )
    return _finding(
        "near_duplicates" if name == "source" else "test_near_duplicates",
        table,
        rows,
        f"{count} rows differ from another only in few words (at most one in eight); "
        f"{_handled(name)}{but_for_cuts}",
        "Nothing to do: splits.parquet notes those that moved.",
        name == "source",
    )


def _handled(name: str) -> str:
    return "copies always fall on one side" if name == "source" else "the test rows are used as is"


def leak_findings(gathered: AllRows, drops: Sequence[Drops]) -> list[Finding]:
    """Rows that were dropped because a protected table holds them too."""
    found = []
    for drop in drops:
        table = gathered.tables[drop.name]
        protected = gathered.tables[drop.protected].source
        copies, groups = drop.of >= 0, drop.group & (drop.of < 0)
        if copies.any():
            found.append(
                _finding(
                    "leaks",
                    table,
                    copies,
                    f"{int(copies.sum())} rows of {table.source} copy or nearly copy a "
                    f"{drop.protected} row ({protected}) and were dropped",
                    "Nothing to do; splits.parquet names the row that each copies.",
                    True,
                )
            )
        if groups.any():
            found.append(
                _finding(
                    "shared_groups",
                    table,
                    groups,
                    f"{int(groups.sum())} rows of {table.source} belong to a group that the "
                    f"{drop.protected} rows ({protected}) hold too, and were dropped",
                    "If the groups of the two files are unrelated, train without --group.",
                    True,
                )
            )
    return found


def cut_findings(gathered: AllRows, side: npt.NDArray[np.int8]) -> list[Finding]:
    """Chains of near-copies that were cut, and buckets that were not compared in full. ``side``
    [n] is the side of each text of the copies, -1 for none."""
    copies = gathered.copies
    found = []
    if copies.cuts:
        texts = sum(cut.texts for cut in copies.cuts)
        links = sum(cut.links for cut in copies.cuts)
        found.append(
            Finding(
                "copy_chains",
                "warn",
                min(1.0, texts / max(1, len(copies))),
                texts,
                (),
                f"{len(copies.cuts)} chains of near-copies, of {texts} texts in all, were "
                "longer than "
                f"max({SMALLEST}, {SHARE:.0%} of the texts) and were cut into groups around "
                "one text "
                f"each; of {links} pairs of near-copies that this parted, "
                f"{parted_pairs(copies, side)} "
                "stand on different sides",
                "If these rows come from a few sources, name the source column with --group.",
                True,
            )
        )
    if copies.windowed:
        found.append(
            Finding(
                "copies_windowed",
                "info",
                min(1.0, copies.windowed / max(1, len(copies))),
                copies.windowed,
                (),
                f"{copies.windowed} texts share their rarest words with so many others that "
                "each was "
                "compared with its nearest only",
                "Nothing to do; a very uniform text column may deserve a --group.",
            )
        )
    return found


def crossing_findings(
    table: Table, crossing: Crossing, block: int, stable: bool = False
) -> list[Finding]:
    """Rows that were dropped as copies of a row of another group, or in a stable division of any
    row, on a more protected side."""
    if not len(crossing):
        return []
    rows = np.zeros(len(table), dtype=bool)
    rows[crossing.rows] = True
    count = len(crossing)
    if stable:
        return [
            _finding(
                "copies_across_sides",
                table,
                rows,
                f"{count} row{'s copy' if count > 1 else ' copies'} or nearly "
                f"cop{'y' if count > 1 else 'ies'} a row on a more protected side, and "
                f"{'were' if count > 1 else 'was'} dropped: in a stable division no row moves to "
                "stand beside its copies",
                "Nothing to do; splits.parquet names the row that each copies.",
                True,
            )
        ]
    return [
        _finding(
            "copies_across_groups",
            table,
            rows,
            f"{count} row{'s copy' if count > 1 else ' copies'} a row of another group that stands "
            f"on a more protected side, and {'were' if count > 1 else 'was'} dropped: to keep such "
            f"groups together would have made one block of {block} of {len(table)} rows",
            "Nothing to do; splits.parquet names the row that each copies. If the groups are one, "
            "give them one name.",
            True,
        )
    ]


def parted_pairs(copies: Copies, side: npt.NDArray[np.int8]) -> int:
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


def group_finding(
    table: Table, moved: npt.NDArray[np.bool_], shared: npt.NDArray[np.bool_]
) -> Finding | None:
    """How many rows moved to stay beside their group."""
    if not table.has_groups:
        return None
    names = len(set(table.column("group")))
    return _finding(
        "groups",
        table,
        shared,
        f"{names} groups hold the {len(table)} rows; each falls on one side, for which "
        f"{int(moved.sum())} rows stand elsewhere than in a plain stratified division",
        "Nothing to do.",
        True,
        "info",
    )


def uneven_finding(
    sizes: I64,
    fractions: Sequence[float],
    names: Sequence[str],
    largest: int,
    way: SplitStrategy = PLAIN,
) -> Finding | None:
    """A side that is more than a fifth, and more than a row or two, off its fraction."""
    total = int(sizes.sum())
    wanted = np.asarray(fractions) * total
    off = np.abs(sizes - wanted)
    worst = int(np.argmax(off / np.maximum(wanted, 1e-9)))
    if off[worst] <= max(2.0, UNEVEN * wanted[worst]):
        return None
    why = f"the largest group of rows that must stay together has {largest} of {total}"
    remedy = "Choose a finer --group, or add groups."
    if largest < off[worst]:
        # No single group explains it: many classes of few rows, each with one row a side at least.
        why = "every class has a row on each side, and many classes have few rows"
        remedy = "Add rows of small classes, or merge them with --set data.rare=merge."
    if way.stable:
        why = "chance makes the sides of a stable division"
        remedy = "Nothing to do: the more rows, the nearer the shares."
    elif way.by == "time":
        why = "rows of one moment, copies and groups stay together"
        remedy = "Give finer times, or another share."
    elif way.held:
        why, remedy = "data.split.held names its rows", "Nothing to do."
    return Finding(
        "uneven_division",
        "info" if way.stable or way.held else "warn",
        float(min(1.0, off[worst] / max(wanted[worst], 1e-9))),
        round(float(off[worst])),
        (),
        f"{names[worst]} has {sizes[worst]} rows where {wanted[worst]:.0f} were asked for: {why}",
        remedy,
    )


def reach_finding(
    table: Table, side: npt.NDArray[np.int8], way: SplitStrategy, kept: I64, names: Sequence[str]
) -> Finding | None:
    """Test rows that copies or a group hold on that side though they are older than a training row,
    or of a block that is learned. ``side`` [m] of the rows ``kept`` [m], those of ``table``."""
    if way.by in ("rows", "topic") or len(names) < 2:
        return None
    last, train = side == len(names) - 1, side == 0
    if way.by == "time":
        assert way.ages is not None
        ages = way.ages[kept]
        reached = last & (ages < ages[train].max(initial=-np.inf))
        what = "older than the newest training row"
    else:
        assert way.blocks is not None
        blocks = way.blocks[kept]
        reached = last & np.isin(blocks, blocks[train])
        what = f"of a {way.by} that the training rows have too"
    count = int(reached.sum())
    if not count:
        return None
    return _finding(
        "blocks_reach_across",
        table,
        reached,
        f"{count} {names[-1]} row{'s are' if count > 1 else ' is'} {what}: copies and groups hold "
        "them there",
        "Nothing to do where they are few.",
        True,
    )


def _finding(
    check: str,
    table: Table,
    rows: npt.NDArray[np.bool_],
    because: str,
    remedy: str,
    fixed: bool,
    severity: Severity | None = None,
) -> Finding:
    share = float(rows.mean()) if len(rows) else 0.0
    ids = np.sort(table.column("row")[rows])[:KEPT_ROWS]
    chosen = severity or ("warn" if share >= SERIOUS else "info")
    return Finding(
        check, chosen, share, int(rows.sum()), tuple(ids.tolist()), because, remedy, fixed
    )
