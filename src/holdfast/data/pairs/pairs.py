"""Rows of a source text and a target text, for models that turn one into the other.

read → choose the two columns → leave out what is missing → findings → write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.files import disk_errors
from holdfast.core.records import Finding, Severity
from holdfast.data.clean import Tally, complete, meant, missing_findings
from holdfast.data.columns.template import fill_template, named_columns
from holdfast.data.pairs.columns import choose_pair
from holdfast.data.raw import BATCH_ROWS, Raw
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table
from holdfast.data.texts.normal import normal_text

if TYPE_CHECKING:
    import datasets


ALL = "all"
BEGINS_WITH = 5
_LISTED = 100


def load_pairs(
    source: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    target: str | None = None,
    group: str | None = None,
    template: str | None = None,
    encoding: str | None = None,
    config: str | None = None,
    need_target: bool = True,
    view: Callable[[Raw], Raw] | None = None,
) -> Table:
    """Read a file or a hub data set, work out source and target, leave out what is missing.

    Columns of the table: ``row``, ``text`` (the source, or the template filled in), ``target``,
    ``label`` (0 throughout: one class, ``all``) and ``group``, where it is given. With
    ``need_target=False`` the target column may be absent; targets are then empty, and no row is
    left out for one. ``view`` gives the source's columns other names before anything looks at it.

    Raises
    ------
    DataError : the source or a column cannot be used, or no row has both texts.
    RecipeError : two settings contradict each other.
    """
    raw = read_source(source, encoding, config)
    raw = view(raw) if view is not None else raw
    if not len(raw):
        rule = "has a header but no rows" if raw.names else "is empty"
        raise DataError(raw.source, rule, None, "It needs rows with a source and a target.")
    texts = (text,) if isinstance(text, str) else tuple(text or ()) or None
    columns, decisions = choose_pair(
        raw, text=texts, target=target, group=group, template=template, need_target=need_target
    )
    rows, findings = _rows(raw, columns, need_target)
    if not len(rows):
        raise DataError(
            raw.source,
            "has no row with both a source and a target",
            f"{', '.join(columns.text)} → {columns.label}",
            "Choose other columns: --text SOURCE --label TARGET.",
        )
    table = Table(rows, (ALL,), columns, raw.source, len(raw))
    decided = (*raw.decisions, *decisions)
    return replace(table, findings=(*findings, *pair_findings(table)), decisions=decided)


def pairs_from_texts(
    texts: Sequence[str], source: str = "memory", template: str | None = None
) -> Table:
    """Sources without targets, already in memory; every text stays, an empty one too. A
    ``template`` of one column (a prefix, say) is filled in; one of several cannot be."""
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{source}, row {row}", "is not a text", text, "Give a string a row.")
    filled = pa.array(list(texts), pa.string())
    if template is not None:
        filled = _filled(template, filled, source)
    arrays = {
        "row": pa.array(np.arange(len(texts), dtype=np.int64)),
        "text": filled,
        "target": pa.array([""] * len(texts), pa.string()),
        "label": pa.array(np.zeros(len(texts), dtype=np.int64)),
    }
    rows = _mapped([pa.RecordBatch.from_pydict(arrays)])
    return Table(rows, (ALL,), Columns(("text",), None), source, len(texts))


def _filled(template: str, texts: pa.Array, source: str) -> pa.Array:
    names = named_columns(template)
    if len(names) > 1:
        raise DataError(
            source,
            f"holds one text a row, and the run's template reads {len(names)} columns",
            template,
            "Give a file with these columns.",
        )
    return fill_template(template, {names[0]: texts})


def _rows(raw: Raw, columns: Columns, need_target: bool) -> tuple[datasets.Dataset, list[Finding]]:
    no_text, no_target = Tally(), Tally()
    batches = [_batch(b, columns, need_target, no_text, no_target) for b in meant(raw, columns)]
    found = missing_findings(columns, len(raw), text=no_text, label=no_target, group=Tally())
    names = {"missing_text": "missing_source", "missing_label": "missing_target"}
    return _mapped(batches), [replace(finding, check=names[finding.check]) for finding in found]


def _batch(
    batch: pa.RecordBatch, columns: Columns, need_target: bool, no_text: Tally, no_target: Tally
) -> pa.RecordBatch:
    import pyarrow.compute as pc

    kept = complete(batch)
    no_text.add(batch.column("row").filter(pc.invert(kept)))
    batch = batch.filter(kept)
    if columns.label is None:
        targets = pa.array([""] * batch.num_rows, pa.string())
    else:
        targets = batch.column("label")
    if need_target:
        no_target.add(batch.column("row").filter(pc.is_null(targets)))
        keep = pc.is_valid(targets)
        batch, targets = batch.filter(keep), targets.filter(keep)
    arrays = {
        "row": batch.column("row"),
        "text": batch.column("text"),
        "target": pc.fill_null(targets, ""),
        "label": pa.array(np.zeros(batch.num_rows, dtype=np.int64)),
    }
    if columns.group is not None:
        arrays["group"] = batch.column("group")
    return pa.RecordBatch.from_pydict(arrays)


def _mapped(batches: Sequence[pa.RecordBatch]) -> datasets.Dataset:

    path = scratch_file("pairs")
    with disk_errors(path), pa.ipc.new_stream(str(path), batches[0].schema) as sink:
        for batch in batches:
            sink.write_batch(batch)
    return stored_rows(path)


def pair_findings(table: Table) -> tuple[Finding, ...]:
    """Targets that are their source, that begin like it, or that stand for many rows.

    A model learns to copy from the first two, and to say one thing whatever it reads from the
    last. ``begins``: the first ``BEGINS_WITH`` words are the source's first words.
    """
    equal, begins = Tally(), Tally()
    counts: dict[str, int] = {}
    for rows, texts, targets in _blocks(table):
        for row, text, target in zip(rows, texts, targets, strict=True):
            if not target:
                continue
            # A copy that changes case or punctuation is learned as one.
            plain, wanted = normal_text(text), normal_text(target)
            counts[wanted] = counts.get(wanted, 0) + 1
            if plain == wanted:
                _note(equal, row)
            elif _begins(plain, wanted):
                _note(begins, row)
    n = max(1, sum(counts.values()))
    found = [
        _finding(
            "target_is_source",
            equal,
            n,
            "have a target that is their source: the model learns to copy",
            "warn",
        ),
        _finding(
            "target_begins_like_source",
            begins,
            n,
            f"have a target whose first {BEGINS_WITH} "
            "words are the source's: the model may learn to copy the beginning",
            "warn" if begins.count > 0.2 * n else "info",
        ),
        _same_targets(counts, n),
    ]
    return tuple(finding for finding in found if finding is not None)


def _blocks(table: Table) -> Any:
    view = table.rows.with_format("arrow")
    for start in range(0, len(table), BATCH_ROWS):
        block = view[start : start + BATCH_ROWS]
        yield (block[name].to_pylist() for name in ("row", "text", "target"))


def _note(tally: Tally, row: int) -> None:
    tally.count += 1
    if len(tally.rows) < _LISTED:
        tally.rows.append(row)


def _begins(text: str, target: str) -> bool:
    first = target.split()[:BEGINS_WITH]
    return len(first) == BEGINS_WITH and text.split()[:BEGINS_WITH] == first


def _finding(check: str, tally: Tally, n: int, what: str, severity: Severity) -> Finding | None:
    if not tally.count:
        return None
    return Finding(
        check,
        severity,
        tally.count / n,
        tally.count,
        tuple(tally.rows),
        f"{tally.count} row{'s' if tally.count > 1 else ''} {what}",
        "Look at them; take them out unless copying is the task.",
    )


def _same_targets(counts: dict[str, int], n: int) -> Finding | None:
    """One target for a tenth of the rows or more."""
    if n < 20:
        return None
    target, most = max(counts.items(), key=lambda item: item[1])
    if most < 0.1 * n:
        return None
    shown = target if len(target) <= 60 else target[:59] + "…"
    return Finding(
        "one_target_for_many",
        "warn",
        most / n,
        most,
        (),
        f"{most} of {n} rows have the same target ({shown!r}): always giving it is right for them",
        "If the targets are classes, --task text-classification fits better.",
    )


def given_target(label: str | None, target: str | None) -> str | None:
    """The target column that ``data.label`` and its other name ``data.target`` say.

    Raises ``RecipeError`` where they differ.
    """
    if label and target and label != target:
        raise RecipeError(
            "data.target",
            f"and data.label name different columns: {label}",
            target,
            nearest(target, [label]),
        )
    return target or label
