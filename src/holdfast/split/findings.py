"""Findings on a split, and a note for each row.

The notes are those of ``splits.parquet``. The findings are on duplicates, groups, leakage, cut
chains and uneven splits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Finding, Severity
from holdfast.core.wording import count_phrase, percent_phrase
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import CHAIN_SHARE, SMALLEST_CHAIN, CombinedRows, Duplicates
from holdfast.split.outcome import SplitOutcome
from holdfast.split.strategies import Assignment

MISSING = "missing text or label"
RARE = "its class is too small to split"
# Notes on rows that were dropped when the file was read, by the finding that lists them.
NOTES = {"rare_classes": RARE, "broken_images": "its image cannot be read"}


def split_records(outcome: SplitOutcome) -> Any:
    """The records of all files as one Arrow table, one for each source row."""
    import pyarrow as pa

    source = outcome.combined.tables["source"]
    # Dropped by default: a row that no rule covers must not appear in a split.
    split_of_row = np.full(len(source), "dropped", dtype=object)
    split_of_row[outcome.kept_rows] = np.array(outcome.split_names, dtype=object)[
        outcome.assignment
    ]
    notes = np.array(_drop_notes(outcome, "source"), dtype=object)
    notes[outcome.kept_rows] = np.array(_moved_notes(outcome), dtype=object)
    crossing = outcome.crossing
    for row, of, split in zip(
        crossing.rows, crossing.copy_of.tolist(), crossing.split_of_copy, strict=True
    ):
        place = f"{outcome.combined.describe_position(of)} ({outcome.split_names[split]})"
        notes[row] = f"duplicate or near-duplicate of {place}, which is in another group"
    parts = [_source_records(source, split_of_row.tolist(), notes.tolist())]
    for name in ("valid", "test"):
        if name in outcome.combined.tables:
            reasons = _drop_notes(outcome, name)
            table_splits = ["dropped" if reason else name for reason in reasons]
            parts.append(_source_records(outcome.combined.tables[name], table_splits, reasons))
    strings = pa.string()
    schema = pa.schema(
        {"file": strings, "row": pa.int64(), "split": strings, "group": strings, "note": strings}
    )
    return pa.concat_tables(pa.table(part, schema) for part in parts)


def _source_records(
    table: Table, splits: Sequence[str], row_notes: Sequence[str | None]
) -> dict[str, Any]:
    """The records of one file, including rows that were dropped when it was read."""
    records: dict[str, Any] = {
        "file": np.full(table.source_rows, table.source, dtype=object),
        "row": np.arange(table.source_rows, dtype=np.int64),
        "split": np.full(table.source_rows, "dropped", dtype=object),
        "group": np.full(table.source_rows, None, dtype=object),
        "note": np.array(_left_out_notes(table), dtype=object),
    }
    rows = table.column("row")
    records["split"][rows] = np.array(splits, dtype=object)
    records["note"][rows] = np.array(row_notes, dtype=object)
    if table.has_groups:
        records["group"][rows] = np.array(table.column("group"), dtype=object)
    return records


def _moved_notes(outcome: SplitOutcome) -> list[str | None]:
    """A note for each row that moved with its unit; ``None`` for other rows."""
    units, names = outcome.units, outcome.split_names
    notes: list[str | None] = [None] * len(outcome.assignment)
    rows = outcome.combined.tables["source"].column("row")[outcome.kept_rows]
    first = np.full(len(units.sizes), np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, units.of_row, rows)
    for at in np.flatnonzero(outcome.moved).tolist():
        unit = units.of_row[at]
        others = int(units.sizes[unit]) - 1
        notes[at] = (
            f"moved from {names[outcome.row_assignment[at]]} to "
            f"{names[outcome.assignment[at]]}, to stay with the "
            f"{others} other row{'s' if others > 1 else ''} of its duplicates or group (first: row "
            f"{first[unit]})"
        )
    return notes


def _drop_notes(outcome: SplitOutcome, name: str) -> list[str | None]:
    """Why each row of a table was dropped; ``None`` if it was not."""
    gathered = outcome.combined
    exact, start = gathered.duplicates.exact, gathered.starts[name]
    notes: list[str | None] = [None] * len(gathered.tables[name])
    for drop in (drop for drop in outcome.drops if drop.table_name == name):
        for at in np.flatnonzero(drop.mask).tolist():
            of, similarity = int(drop.copy_of[at]), drop.similarity[at]
            if notes[at] is not None:
                continue
            if of < 0:
                notes[at] = f"its group also has {drop.protected_name} rows"
            # A near-duplicate may have a similarity of 1 too: the same words in another order.
            elif similarity >= 1 and exact[start + at] == exact[of]:
                place = gathered.describe_position(of)
                notes[at] = f"duplicate of {place} ({drop.protected_name})"
            else:
                alike = f"({drop.protected_name}, similarity {similarity:.2f})"
                notes[at] = f"near-duplicate of {gathered.describe_position(of)} {alike}"
    return notes


def _left_out_notes(table: Table) -> list[str]:
    """Why each row that is not in the table was dropped, as far as the findings tell."""
    known = [finding for finding in table.findings if finding.check in NOTES]
    note_of_row = {row: NOTES[finding.check] for finding in known for row in finding.rows}
    rare = [finding for finding in known if NOTES[finding.check] == RARE]
    all_listed = all(finding.count <= len(finding.rows) for finding in rare)
    other = MISSING if all_listed else f"{MISSING}, or {RARE}"
    return [note_of_row.get(row, other) for row in range(table.source_rows)]


# The most rows that a finding lists.
MAX_LISTED_ROWS = 100
WARN_SHARE = 0.01
UNEVEN_SHARE = 0.2


def split_findings(outcome: SplitOutcome) -> tuple[Finding, ...]:
    """All findings on a split, in the order in which they are reported."""
    return (
        *_duplicates(outcome.combined),
        *_copies_across_sources(outcome.combined),
        *_leaks(outcome),
        *_cuts(outcome.combined.duplicates, outcome.full_assignment()),
        *_crossing(outcome),
        *_groups(outcome),
        *_unevenness(outcome),
        *_rows_reaching_across(outcome),
    )


def _duplicates(gathered: CombinedRows) -> Iterator[Finding]:
    """Exact and near-duplicates within the source, and within a given test table."""
    for name in ("source", "test"):
        if name not in gathered.tables:
            continue
        exact_duplicates, near_duplicates = duplicate_rows(gathered, name)
        check_prefix, handled, cut_note = "test_", "the test rows are used as they are", ""
        remedy = "Remove the repeated rows if each text should count once in the score."
        if name == "source":
            check_prefix, handled = "", "duplicates always stay in one split"
            remedy = "No action needed. splits.parquet notes the rows that moved."
            if gathered.duplicates.cuts:
                cut_note = ", except those separated by the cut of a long chain (copy_chains)"
        for check, rows, description in (
            (
                "exact_duplicates",
                exact_duplicates,
                "have the same text as another row (ignoring case, space and punctuation); "
                f"{handled}",
            ),
            (
                "near_duplicates",
                near_duplicates,
                "are near-duplicates of another row (at most one word in eight differs); "
                f"{handled}{cut_note}",
            ),
        ):
            if rows.any():
                yield _finding(
                    f"{check_prefix}{check}",
                    gathered.tables[name],
                    rows,
                    f"{int(rows.sum())} rows {description}",
                    remedy,
                    fixed=name == "source",
                    severity="info" if name == "source" else None,
                )


def duplicate_rows(
    gathered: CombinedRows, name: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which rows of a table have an exact duplicate in it, and which a near-duplicate."""
    copies = gathered.duplicates
    forms = copies.exact[gathered.span(name)]
    rows_of_form = np.bincount(forms, minlength=int(copies.exact.max(initial=-1)) + 1)
    within_table = (rows_of_form[copies.links.first] > 0) & (rows_of_form[copies.links.second] > 0)
    has_near_duplicate = np.zeros(len(rows_of_form), dtype=bool)
    has_near_duplicate[copies.links.first[within_table]] = True
    has_near_duplicate[copies.links.second[within_table]] = True
    return rows_of_form[forms] > 1, has_near_duplicate[forms]


def _copies_across_sources(gathered: CombinedRows) -> Iterator[Finding]:
    table = gathered.tables["source"]
    if "source" not in table.rows.column_names:
        return
    sources = np.asarray(table.column("source"), dtype=object)
    _, place = np.unique(gathered.duplicates.groups[gathered.span("source")], return_inverse=True)
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
            f"{int(rows.sum())} rows in {count_phrase(len(several), 'group')} of duplicates occur "
            f"in several sources ({names}): each group stays in one split",
            "Remove them from all but one source if they should count once.",
            severity="info",
        )


def _leaks(outcome: SplitOutcome) -> Iterator[Finding]:
    """Rows that were dropped because a protected table contains them too."""
    for drop in outcome.drops:
        table = outcome.combined.tables[drop.table_name]
        protected = f"{drop.protected_name} row"
        of = outcome.combined.tables[drop.protected_name].source
        for check, rows, description, remedy in (
            (
                "leaks",
                drop.copy_of >= 0,
                f"duplicate or nearly duplicate a {protected} ({of}) and were dropped",
                "No action needed. splits.parquet names the row that each one duplicates.",
            ),
            (
                "shared_groups",
                drop.shares_group & (drop.copy_of < 0),
                f"are in a group that the {protected}s ({of}) contain too, and were dropped",
                "If the groups of the two files are unrelated, train without --group.",
            ),
        ):
            if rows.any():
                because = f"{int(rows.sum())} rows of {table.source} {description}"
                yield _finding(check, table, rows, because, remedy)


def _cuts(copies: Duplicates, assignment: Assignment) -> Iterator[Finding]:
    """Chains of near-duplicates that were cut, and buckets that were not compared in full.
    ``assignment`` [n] is the split of each text of ``copies``, -1 for none."""
    if copies.cuts:
        texts = sum(cut.texts for cut in copies.cuts)
        links = sum(cut.links for cut in copies.cuts)
        yield Finding(
            "copy_chains",
            "warn",
            min(1.0, texts / max(1, len(copies))),
            texts,
            (),
            f"{count_phrase(len(copies.cuts), 'chain')} of near-duplicates, with {texts} texts in "
            f"total, exceeded max({SMALLEST_CHAIN}, {percent_phrase(CHAIN_SHARE)} of the "
            "texts). Holdfast cut "
            f"them into groups around one text each; this separated {links} pairs of "
            f"near-duplicates, of which {_parted_pairs(copies, assignment)} are in different "
            "splits",
            "If these rows come from a few sources, give the source column with --group.",
            fixed=True,
        )
    if copies.windowed:
        yield Finding(
            "copies_windowed",
            "info",
            min(1.0, copies.windowed / max(1, len(copies))),
            copies.windowed,
            (),
            f"{copies.windowed} texts share their rarest words with so many others that Holdfast "
            "compared each only with the most similar of them",
            "No action needed. If the text column is very uniform, consider a --group.",
        )


def _parted_pairs(copies: Duplicates, assignment: Assignment) -> int:
    """How many pairs of near-duplicates across a cut are in different splits; ``assignment`` [n]
    of each text, -1 for none."""
    splits_of_form = np.zeros(int(copies.exact.max(initial=-1)) + 1, dtype=np.int64)
    used = assignment >= 0
    # One bit per split: the exact duplicates of a text may be in several splits.
    np.bitwise_or.at(splits_of_form, copies.exact[used], 1 << assignment[used].astype(np.int64))
    links = copies.links.where(copies.crosses_cut)
    one, other = splits_of_form[links.first], splits_of_form[links.second]
    both = one | other
    return int(np.sum((one > 0) & (other > 0) & ((both & (both - 1)) > 0)))


def _crossing(outcome: SplitOutcome) -> Iterator[Finding]:
    """Rows that were dropped as duplicates of a row in a more protected split: of another group, or
    in a stable split of any row."""
    table, count = outcome.combined.tables["source"], len(outcome.crossing)
    if not count:
        return
    rows = np.zeros(len(table), dtype=bool)
    rows[outcome.crossing.rows] = True
    many = count > 1
    remedy = "No action needed. splits.parquet names the row that each one duplicates."
    duplicate = "duplicate or nearly duplicate" if many else "duplicates or nearly duplicates"
    because = f"{count} row{'s' if many else ''} {duplicate} a row "
    dropped = f"in a more protected split and {'were' if many else 'was'} dropped:"
    if outcome.strategy.stable:
        check = "copies_across_sides"
        because += f"{dropped} in a stable split no row moves to stay with its duplicates"
    else:
        check = "copies_across_groups"
        remedy += " If the groups belong together, give them one name."
        because += (
            f"of another group {dropped} keeping such groups together would "
            f"have made one block of {outcome.units.largest_parted} of {len(table)} rows"
        )
    yield _finding(check, table, rows, because, remedy)


def _groups(outcome: SplitOutcome) -> Iterator[Finding]:
    """How many rows moved to stay with their group."""
    table = outcome.source
    if table.has_groups:
        yield _finding(
            "groups",
            table,
            outcome.units.shared,
            f"the {len(table)} rows are in {len(set(table.column('group')))} groups; each group "
            f"stays in one split, so {int(outcome.moved.sum())} rows are in another split than in "
            "a plain stratified split",
            "No action needed.",
            severity="info",
        )


def _unevenness(outcome: SplitOutcome) -> Iterator[Finding]:
    """A split whose size differs from its target by more than a fifth and more than two rows."""
    strategy, blocks = outcome.strategy, outcome.units.sizes
    if strategy.blocks is not None:
        blocks = np.bincount(strategy.blocks[outcome.kept_rows])
    largest = int(blocks.max(initial=0))
    sizes = np.bincount(outcome.assignment, minlength=len(outcome.split_names))
    total = int(sizes.sum())
    target_sizes = np.asarray(outcome.fractions) * total
    deviations = np.abs(sizes - target_sizes)
    worst = int(np.argmax(deviations / np.maximum(target_sizes, 1e-9)))
    if deviations[worst] <= max(2.0, UNEVEN_SHARE * target_sizes[worst]):
        return
    if strategy.stable:
        reason = "the sizes of a stable split vary by chance"
        remedy = "No action needed: with more rows the sizes get closer to the fractions."
    elif strategy.by == "time":
        reason = "rows of the same time, duplicates and groups stay together"
        remedy = "Use finer times, or other fractions."
    elif strategy.held_out:
        reason, remedy = "data.split.test_groups selects its rows", "No action needed."
    elif largest < deviations[worst]:
        # No single group explains it: many small classes, each with at least one row per split.
        reason = "every class needs a row in each split, and many classes have few rows"
        remedy = "Add rows of small classes, or merge them with --set data.rare_classes=merge."
    else:
        reason = f"the largest group of rows that must stay together has {largest} of {total}"
        remedy = "Choose a finer --group, or add groups."
    yield Finding(
        "uneven_division",
        "info" if strategy.stable or strategy.held_out else "warn",
        float(min(1.0, deviations[worst] / max(target_sizes[worst], 1e-9))),
        round(float(deviations[worst])),
        (),
        f"{outcome.split_names[worst]} has {sizes[worst]} rows instead of "
        f"{target_sizes[worst]:.0f}: {reason}",
        remedy,
    )


def _rows_reaching_across(outcome: SplitOutcome) -> Iterator[Finding]:
    """Test rows that are in the test set because of duplicates or a group, although they are older
    than a training row, or of a block in the training set."""
    strategy, assignment, names = outcome.strategy, outcome.assignment, outcome.split_names
    if strategy.by in ("rows", "topic") or len(names) < 2:
        return
    last, train = assignment == len(names) - 1, assignment == 0
    if strategy.by == "time":
        assert strategy.ages is not None
        ages = strategy.ages[outcome.kept_rows]
        reaches_across = last & (ages < ages[train].max(initial=-np.inf))
        description = "older than the newest training row"
    else:
        assert strategy.blocks is not None
        blocks = strategy.blocks[outcome.kept_rows]
        reaches_across = last & np.isin(blocks, blocks[train])
        description = f"of a {strategy.by} that training rows have too"
    count = int(reaches_across.sum())
    if count:
        yield _finding(
            "blocks_reach_across",
            outcome.source,
            reaches_across,
            f"{count} {names[-1]} row{'s are' if count > 1 else ' is'} {description}, because "
            "duplicates and groups stay together",
            "No action needed if they are few.",
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
    ids = np.sort(table.column("row")[rows])[:MAX_LISTED_ROWS]
    level = severity or ("warn" if share >= WARN_SHARE else "info")
    return Finding(
        check, level, share, int(rows.sum()), tuple(ids.tolist()), because, remedy, fixed
    )
