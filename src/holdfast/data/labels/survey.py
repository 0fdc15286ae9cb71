"""One pass over the meant rows: counts of labels, of missing values, of distinct texts a class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.errors import DataError
from holdfast.data.clean import Numeric, Tally, complete, has_no_group, meant
from holdfast.data.limits import limits
from holdfast.data.raw import Raw
from holdfast.data.table import Columns
from holdfast.data.texts.normal import normal_text


@dataclass(slots=True)
class LabelSurvey:
    """What one pass has seen. ``counts`` are the labels as written, of rows that have a text.
    ``texts`` holds, of each label, its distinct normalised texts, at most ``enough`` of them."""

    enough: int
    counts: Counter[str] = field(default_factory=Counter)
    texts: dict[str, set[str]] = field(default_factory=dict)
    used: int = 0
    no_text: Tally = field(default_factory=Tally)
    no_label: Tally = field(default_factory=Tally)
    no_group: Tally = field(default_factory=Tally)
    numeric: Numeric = field(default_factory=Numeric)


def survey(raw: Raw, columns: Columns, *, enough: int) -> LabelSurvey:
    """Look at every row once; refuse a text column that is all numbers or all empty."""
    seen = LabelSurvey(enough)
    for batch in meant(raw, columns):
        _look(seen, batch)
    _groups(seen, raw, columns)
    _refuse_texts(seen, raw, columns)
    return seen


def _look(seen: LabelSurvey, batch: pa.RecordBatch) -> None:
    kept = complete(batch)
    seen.no_text.add(batch.column("row").filter(pc.invert(kept)))
    batch = batch.filter(kept)
    seen.used += batch.num_rows
    for name in ("text", "text_pair"):
        if name in batch.schema.names:
            seen.numeric.look(name, batch.column(name))
    if "label" not in batch.schema.names:
        return
    labels = batch.column("label")
    seen.no_label.add(batch.column("row").filter(pc.is_null(labels)))
    found = pc.value_counts(labels.drop_null())
    for label, count in zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True):
        seen.counts[label] += count
    _texts_per_label(seen, batch)


def _texts_per_label(seen: LabelSurvey, batch: pa.RecordBatch) -> None:
    # Beyond the classes that may be, the labels are refused: their texts are of no use.
    if not seen.enough or len(seen.counts) > limits().classes:
        return
    # Classes that have shown enough texts are skipped, so that a large file costs little more than
    # reading it.
    done = [label for label, texts in seen.texts.items() if len(texts) >= seen.enough]
    labels = batch.column("label")
    skip = pc.or_(pc.is_in(labels, pa.array(done, pa.string())), pc.is_null(labels))
    batch = batch.filter(pc.invert(skip))
    pairs = batch.column("text_pair") if "text_pair" in batch.schema.names else None
    for n, label in enumerate(batch.column("label").to_pylist()):
        texts = seen.texts.setdefault(label, set())
        if len(texts) < seen.enough:
            pair = "" if pairs is None else f"\n{normal_text(pairs[n].as_py())}"
            texts.add(normal_text(batch.column("text")[n].as_py()) + pair)


def _groups(seen: LabelSurvey, raw: Raw, columns: Columns) -> None:
    if columns.group is None:
        return
    offset = 0
    for values in raw.table[columns.group].chunks:
        missing = pc.indices_nonzero(has_no_group(values))
        seen.no_group.add(pc.add(missing.cast(pa.int64()), offset))
        offset += len(values)


def _refuse_texts(seen: LabelSurvey, raw: Raw, columns: Columns) -> None:
    named = ", ".join(map(repr, columns.text))
    if not seen.used:
        raise DataError(
            f"{raw.source}, column {named}",
            "is empty in every row",
            None,
            "Choose another column with --text.",
        )
    if seen.numeric.names and columns.template is None:
        place = ("text", "text_pair").index(seen.numeric.names[0])
        raise DataError(
            f"{raw.source}, column {columns.text[place]!r}",
            "holds numbers only, not texts",
            None,
            "Choose the column of texts with --text.",
        )
