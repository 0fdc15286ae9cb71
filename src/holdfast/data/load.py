"""The front door: from a file or a hub name to a ``Table`` in memory-mapped Arrow.

read → choose the columns → survey → make the classes → write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.core.errors import DataError
from holdfast.data.clean import missing_findings
from holdfast.data.columns.columns import NamedColumns, choose_columns
from holdfast.data.labels.classes import ClassRules, make_classes
from holdfast.data.labels.label_type import label_counts
from holdfast.data.labels.rare import RARE_BELOW, Rare
from holdfast.data.labels.spelling import Labels, missing_labels
from holdfast.data.labels.survey import survey
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.write import write_rows


def load_table(
    source: str | Path,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    template: str | None = None,
    encoding: str | None = None,
    config: str | None = None,
    classes: Sequence[str] | None = None,
    need_label: bool = True,
    rare: Rare = "refuse",
    rare_below: int = RARE_BELOW,
    labels: Labels = "merged",
) -> Table:
    """Read a file or a hub data set, work out its columns, and leave out what is missing.

    Parameters
    ----------
    source : a file (.csv, .tsv, .jsonl, .json, .parquet, each also .gz), or a data set of the hub
        as ``name[:config][@split]``.
    text, label, group, template : the columns, where they are known; two texts are a pair.
    encoding : of a text file; without it, UTF-8 or an error that names the likely one.
    config : of a hub data set; goes before the one in its name.
    classes : those of a run; other labels are refused. Without them, all labels found.
    need_label : if false, the label column may be absent, and a row whose label is missing or
        unknown stays, with label -1.
    rare, rare_below : what to do with a class of fewer than ``rare_below`` distinct texts
        (see ``data/labels/rare.py``). Not asked when ``classes`` are given or labels not needed.
    labels : ``merged`` or ``exact`` (see ``data/labels/spelling.py``).

    Raises
    ------
    DataError : the source, a column or a row cannot be used.
    RecipeError : two settings contradict each other.
    """
    raw = read_source(source, encoding, config)
    text = [text] if isinstance(text, str) else text
    return table_from_raw(
        raw,
        NamedColumns(text, label, group, template),
        ClassRules(classes, need_label, rare, rare_below, labels),
    )


def table_from_raw(raw: Raw, named: NamedColumns, rules: ClassRules) -> Table:
    """The table of a source that was read."""
    refuse_empty(raw)
    columns, chosen, noticed = choose_columns(
        raw,
        text=named.text,
        label=named.label,
        group=named.group,
        template=named.template,
        need_label=rules.needed,
    )
    if columns.label is not None and rules.labels == "merged":
        # Before the survey: what stands for no label must not count as a class.
        missing = missing_labels(label_counts(raw, columns.label), rules.classes or ())
        columns = replace(columns, label_missing=missing)
    fresh = rules.classes is None and rules.needed
    seen = survey(raw, columns, enough=rules.rare_below if fresh else 0)
    made = make_classes(raw, columns, seen, rules)
    lacking = missing_findings(
        columns, len(raw), text=seen.no_text, label=seen.no_label, group=seen.no_group
    )
    if not rules.needed:
        lacking = [finding for finding in lacking if finding.check != "missing_label"]
    rows, treated = write_rows(raw, columns, made, need_label=rules.needed)
    table = Table(rows, made.classes, columns, raw.source, len(raw))
    return replace(
        table,
        findings=(*lacking, *treated, *noticed),
        decisions=(*raw.decisions, *chosen, *made.decisions),
    )


def refuse_empty(raw: Raw) -> None:
    """Refuse a source without rows."""
    if len(raw):
        return
    rule = "has a header but no rows" if raw.names else "is empty"
    raise DataError(raw.source, rule, None, "It needs rows with a text and a label.")
