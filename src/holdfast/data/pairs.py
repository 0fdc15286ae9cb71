"""Rows of a source text and a target text, for sequence-to-sequence models.

read → choose the two columns → drop rows with missing values → findings → write. To choose the
columns, a usual pair of names comes first; then a usual name of either; then, of two columns of
texts, the longer is the source. Where two choices remain, an error asks the user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.decisions import notify, record_decisions
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.printable import shorten
from holdfast.core.records import Decision, Finding, Severity
from holdfast.data.clean import (
    OWN_GROUP,
    Tally,
    has_all_texts,
    report_missing,
    role_columns,
    row_schema,
)
from holdfast.data.columns.profile import (
    Profile,
    column_key,
    columns_by_key,
    profile_columns,
    split_pairs,
)
from holdfast.data.columns.roles import (
    SOURCE,
    TARGET,
    check_named,
    columns_of_template,
    guess_column,
    join_template,
    pair_reason,
    refuse_two_roles,
    usual_pair,
)
from holdfast.data.load import DEFAULT_OPTIONS, read_rows, read_table
from holdfast.data.options import RowOptions
from holdfast.data.raw import BATCH_ROWS, Raw
from holdfast.data.scratch import write_batches
from holdfast.data.table import Columns, Table
from holdfast.data.texts.general import normal_text

if TYPE_CHECKING:
    import datasets

PAIRS = split_pairs(
    """
    dialogue:summary dialog:summary article:highlights article:summary document:summary
    text:summary content:summary conversation:summary body:summary article:abstract
    document:abstract text:headline article:title text:title source:target src:tgt input:output
    input_text:target_text prompt:completion question:answer question:sql question:query
    instruction:output en:fr en:de text:target question:pandas question:code
    """
)
# Pairs that are never a text and its class; the others in ``PAIRS`` may occur in class data too.
CERTAIN_PAIRS = frozenset(
    split_pairs(
        """
    dialogue:summary dialog:summary conversation:summary article:highlights article:summary
    article:abstract document:summary document:abstract source:target src:tgt
    input_text:target_text question:sql question:query question:pandas question:code en:fr en:de
    """
    )
)


def choose_pair(raw: Raw, options: RowOptions) -> Columns:
    """The source and target columns; what was inferred goes into the log. Several ``text`` columns
    without a template are joined by line breaks. Where no label is needed, a missing target is
    left out."""
    group, need, target = options.group, options.need_label, check_named(raw, options)
    free = {name: p for name, p in profile_columns(raw).items() if name != group and not p.numeric}
    template = options.template
    if template is not None:
        # Lists and objects are read as JSON, which a template may use.
        texts = columns_of_template(raw, template, options.text)
    else:
        texts = tuple(options.text or (_choose_source(raw, free, target),))
    target = target or _choose_target(raw, free, texts, need)
    refuse_two_roles((*texts, target, group), "--text, --label and --group")
    if template is None:
        template = join_template(texts, 2, "several source columns are joined by line breaks")
    return Columns(texts, target, group, template)


def _choose_source(raw: Raw, free: dict[str, Profile], target: str | None) -> str:
    candidates = {name: column for name, column in free.items() if name != target}
    pair = usual_pair(PAIRS, candidates, candidates if target is None else (target,))
    if pair is not None:
        return _decided("source", columns_by_key(candidates)[pair[0]], pair_reason(pair))
    guessed = guess_column(SOURCE, candidates)
    if guessed.name is not None:
        return _decided("source", guessed.name, guessed.because)
    usual = any(column_key(name) in SOURCE.usual for name in candidates)
    if (
        len(guessed.among) == 2
        and not usual
        and all(candidates[name].wordy for name in guessed.among)
    ):
        longer, shorter = sorted(guessed.among, key=lambda name: -candidates[name].words)
        if candidates[longer].words >= 1.5 * candidates[shorter].words:
            return _decided("source", longer, f"its texts are longer than those of {shorter!r}")
    raise _undecided_error(raw, "text", guessed.among)


def _choose_target(
    raw: Raw, free: dict[str, Profile], texts: Sequence[str], need: bool
) -> str | None:
    candidates = {name: column for name, column in free.items() if name not in texts}
    pair = usual_pair(PAIRS, texts, candidates)
    if pair is not None:
        return _decided("target", columns_by_key(candidates)[pair[1]], pair_reason(pair))
    guessed = guess_column(TARGET, candidates)
    if guessed.name is not None:
        return _decided("target", guessed.name, guessed.because)
    if need:
        raise _undecided_error(raw, "label", guessed.among)
    return None


def _decided(role: str, name: str, because: str) -> str:
    notify(Decision(f"{role} column", name, because))
    return name


def _undecided_error(raw: Raw, role: str, names: Sequence[str]) -> DataError:
    role_name = "source" if role == "text" else "target"
    if not names:
        return DataError(
            raw.source,
            f"has no column that could be the {role_name}",
            ", ".join(raw.names),
            "Name the columns: --text SOURCE --label TARGET.",
        )
    return DataError(
        raw.source,
        f"several columns could be the {role_name}",
        ", ".join(names),
        f"Choose one, for example --{role} {names[0]}.",
    )


ALL = "all"
PREFIX_WORDS = 5


def load_pairs(source: str | Path, options: RowOptions = DEFAULT_OPTIONS) -> Table:
    """Read a file or a hub data set, choose source and target, and drop rows with missing values.

    Columns of the table: ``row``, ``text`` (the source, or the filled template), ``target``,
    ``label`` (always 0: one class, ``all``) and ``group``, where it is given. The target is the
    ``label`` of the options. Where none is needed, its column may be missing: targets are then
    empty, and no row is dropped for lack of one.

    Raises
    ------
    DataError : the source or a column cannot be used, or no row has both texts.
    RecipeError : two settings contradict each other.
    """
    raw = read_rows(source, options, "a source and a target")
    with record_decisions() as log:
        columns = choose_pair(raw, options)
        rows = _write(raw, columns, options.need_label)
        if not len(rows):
            raise DataError(
                raw.source,
                "has no row with both a source and a target",
                f"{', '.join(columns.text)} → {columns.label}",
                "Choose other columns: --text SOURCE --label TARGET.",
            )
        _report_copied_targets(rows)
    return read_table(raw, rows, (ALL,), columns, log)


def _write(raw: Raw, columns: Columns, need_target: bool) -> datasets.Dataset:
    no_text, no_target, no_group = Tally(), Tally(), Tally()
    schema = row_schema(columns, ("target", pa.string()))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in role_columns(raw, columns):
            is_complete = has_all_texts(batch)
            no_text.add(batch.column("row").filter(pc.invert(is_complete)))
            batch = batch.filter(is_complete)
            if columns.label is None:
                targets = pa.array([""] * batch.num_rows, pa.string())
            else:
                targets = batch.column("label")
            if need_target:
                no_target.add(batch.column("row").filter(pc.is_null(targets)))
                is_complete = pc.is_valid(targets)
                batch, targets = batch.filter(is_complete), targets.filter(is_complete)
            arrays = {name: batch.column(name) for name in batch.schema.names}
            if "group" in arrays:
                own_group = pc.starts_with(arrays["group"], OWN_GROUP)
                no_group.add(batch.column("row").filter(own_group))
            arrays["target"] = pc.fill_null(targets, "")
            arrays["label"] = pa.array(np.zeros(batch.num_rows, dtype=np.int64))
            yield pa.record_batch([arrays[name] for name in schema.names], schema=schema)

    rows = write_batches("pairs", schema, batches())
    report_missing(
        columns, len(raw), text=no_text, label=no_target, group=no_group, label_word="target"
    )
    return rows


def _report_copied_targets(pairs: datasets.Dataset) -> None:
    """Log targets that equal their source, that begin like it, or that many rows share.

    From the first two a model learns to copy; from the last, to produce one output for every input.
    ``begins``: the first ``PREFIX_WORDS`` words are the source's first words.
    """
    equal, begins, counts = Tally(), Tally(), Counter[str]()
    for rows, texts, targets in _blocks(pairs):
        for row, text, target in zip(rows, texts, targets, strict=True):
            if not target:
                continue
            # A copy with other case or punctuation also teaches copying.
            plain, normal_target = normal_text(text), normal_text(target)
            counts[normal_target] += 1
            first = normal_target.split()[:PREFIX_WORDS]
            if plain == normal_target:
                equal.add_row(row)
            elif len(first) == PREFIX_WORDS and plain.split()[:PREFIX_WORDS] == first:
                begins.add_row(row)
    n = max(1, counts.total())
    remedy = "Inspect these rows; remove them unless copying is the task."
    because = "have a target that equals their source: the model learns to copy"
    equal.report("target_is_source", n, because, remedy)
    because = (
        f"have a target whose first {PREFIX_WORDS} words are those of the source: the model may "
        "learn to copy the beginning"
    )
    severity: Severity = "warn" if begins.count > 0.2 * n else "info"
    begins.report("target_begins_like_source", n, because, remedy, severity=severity)
    # One target in at least a tenth of the rows.
    target, most = counts.most_common(1)[0] if counts else ("", 0)
    if n >= 20 and most >= 0.1 * n:
        shown = shorten(target, 60)
        because = (
            f"{most} of {n} rows have the same target ({shown!r}): a model that always generates "
            "it is correct on them"
        )
        remedy = "If the targets are classes, use --task text-classification."
        notify(Finding("one_target_for_many", "warn", most / n, most, (), because, remedy))


def _blocks(pairs: datasets.Dataset) -> Any:
    view = pairs.with_format("arrow")
    for start in range(0, len(pairs), BATCH_ROWS):
        block = view[start : start + BATCH_ROWS]
        yield (block[name].to_pylist() for name in ("row", "text", "target"))


def target_column(label: str | None, target: str | None) -> str | None:
    """The target column, named by ``data.label`` or by its other name ``data.target``.

    Raises ``RecipeError`` where they differ.
    """
    if label and target and label != target:
        rule = f"and data.label name different columns: {label}"
        raise RecipeError("data.target", rule, target, suggest_name(target, [label]))
    return target or label
