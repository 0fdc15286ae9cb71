"""Sentences as lists of words with a tag each: CoNLL files, or rows with two lists.

read → choose the two columns → drop rows with missing values → check the tags → write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from holdfast.core.decisions import notify, record_decisions
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import count_phrase
from holdfast.data.cells import read_json_cell
from holdfast.data.clean import OWN_GROUP, Tally, group_names, report_missing_groups, row_schema
from holdfast.data.columns.profile import split_names
from holdfast.data.columns.roles import check_column, check_present, refuse_two_roles, usual_names
from holdfast.data.labels.bins import label_set_strata_like
from holdfast.data.labels.classes import unknown_label_error
from holdfast.data.limits import check_classes
from holdfast.data.load import DEFAULT_OPTIONS, read_rows, read_table
from holdfast.data.options import LabelSpelling, RowOptions
from holdfast.data.raw import BATCH_ROWS, Raw
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_first_batch, read_source
from holdfast.data.table import Columns, Table
from holdfast.data.tags.conll import (
    DOCUMENT,
    LINE,
    has_conll_content,
    is_conll_file,
    may_be_conll,
    read_conll,
)
from holdfast.data.tags.scheme import (
    UNTYPED,
    DetectedScheme,
    SchemeBreak,
    are_untyped,
    detect_scheme,
    entity_types,
    tag_order,
)
from holdfast.data.texts.general import normal_text

if TYPE_CHECKING:
    import datasets


TOKEN_NAMES = ("tokens", "words", "token", "word")
TAG_NAMES = split_names(
    """
    ner_tags tags ner labels entities entity_tags pos_tags chunk_tags label
    """
)
FEW = 5
LOOKED_AT = 20


@dataclass(slots=True)
class _Gathered:
    """The sentences that are kept, and the tallies of dropped ones."""

    rows: list[int] = field(default_factory=list)
    tags: list[list[str]] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    no_words: Tally = field(default_factory=Tally)
    no_tags: Tally = field(default_factory=Tally)
    empty_words: Tally = field(default_factory=Tally)
    no_group: Tally = field(default_factory=Tally)


def read_tagged(
    source: str | Path, encoding: str | None, config: str | None = None, *, first: bool = False
) -> Raw:
    """The source as rows with lists: a CoNLL file, or any source of ``read_source``. A ``.tsv``
    whose header names a column of words is a table, a ``.txt`` never is. With ``first``, only the
    first batch of a table."""
    if is_conll_file(source):
        return read_conll(source, encoding)
    if may_be_conll(source):
        bare = str(source).lower().removesuffix(".gz")
        # A .tsv may be a table with a header: check its first lines, then its column names.
        if bare.endswith(".txt") or has_conll_content(source, encoding):
            return read_conll(source, encoding)
        if not usual_names(read_first_batch(source, encoding, None).names, TOKEN_NAMES):
            return read_conll(source, encoding)
    return (read_first_batch if first else read_source)(source, encoding, config)


def tagged_shape(
    raw: Raw, text: Sequence[str] | None = None, label: str | None = None
) -> str | None:
    """Why these rows are sentences of tagged words, or ``None`` if they are not. They have a column
    with lists of words and one with lists of equally many tags in most rows, and these columns
    have usual names or are named."""
    words = list(text or usual_names(raw.names, TOKEN_NAMES))[:1]
    tags = [label] if label else usual_names(raw.names, TAG_NAMES)
    if not set(raw.names).issuperset(words) or not words:
        return None
    first = raw.table.slice(0, LOOKED_AT)
    for name in (name for name in tags if name in raw.names and name != words[0]):
        cells = zip(*(first[column].to_pylist() for column in (words[0], name)), strict=True)
        # A CSV file stores lists as texts.
        full = [(_list_or_none(one), _list_or_none(two)) for one, two in cells if one and two]
        full = [(one, two) for one, two in full if one != [] and two != []]
        alike = sum(bool(one and two and len(one) == len(two)) for one, two in full)
        # Most rows decide; a row that differs is then refused with its position.
        if alike and 2 * alike >= len(full):
            return f"each row has a list of words ({words[0]!r}) and as many tags ({name!r})"
    return None


def choose_tagged(raw: Raw, options: RowOptions) -> Columns:
    """The columns of words, tags and groups: as given, else by their usual names, which is logged.

    Raises ``DataError`` where a column is missing, or none has such a name.
    """
    text, tags = options.text, options.label
    if text and len(text) > 1:
        rule = "must name one column, with lists of words, for this task"
        raise DataError("--text", rule, ", ".join(text), "Name one column.")
    words = text[0] if text else _choose_usual_column(raw, "text", TOKEN_NAMES)
    if tags is None and (options.need_label or usual_names(raw.names, TAG_NAMES)):
        tags = _choose_usual_column(raw, "label", TAG_NAMES)
    if not options.need_label and tags not in raw.names:
        tags = None
    for name in (words, tags):
        if name is not None:
            check_present(raw, name)
    if options.group is not None:
        check_column(raw, options.group)
    refuse_two_roles([words, tags, options.group], "--text, --label and --group")
    return Columns((words,), tags, options.group, label_kind="several")


def load_tagged(source: str, options: RowOptions = DEFAULT_OPTIONS) -> Table:
    """The sentences of a source with their tags.

    Columns of the table: ``row``; ``text``, the words joined by spaces, for finding duplicates;
    ``tokens``, a list of words; ``tags``, a list of indices into ``names``; ``label``, the stratum
    of the split: the set of entity types; ``group``, where it is given. The ``classes`` of the
    options are the tags of a run, in the order of its outputs.

    Raises ``DataError``: a row has another number of tags than words, a tag is unknown or breaks
    the scheme of the others (with the line of a CoNLL file, else the row), or all words have the
    same tag.
    """
    raw = read_rows(source, options, "words and tags", read_tagged)
    like = options.like
    given = tuple(options.classes) if options.classes else like.names if like else None
    with record_decisions() as log:
        columns = choose_tagged(raw, options)
        gathered = _gather(raw, columns)
        if not gathered.rows:
            remedy = "Name the columns that hold them."
            raise DataError(raw.source, "has no row with words and tags", None, remedy)
        known = _tag_names(raw, columns, gathered, given, options.labels)
        types = [entity_types(tags, are_untyped(known)) for tags in gathered.tags]
        units = np.unique(gathered.units, return_inverse=True)[1]
        classes, places = label_set_strata_like(
            types, units, None if like is None else like.classes
        )
        _report_left_out(columns, gathered, len(raw))
        if given is None:
            _report_rare_types(gathered, known)
            _report_documents(raw, columns)
    rows = _write(raw, columns, gathered, known, places)
    return read_table(raw, rows, classes, columns, log, names=known)


def untagged_table(raw: Raw, columns: Columns) -> Table:
    """The sentences to predict: as ``load_tagged``, without tags. Rows without words are
    dropped."""
    plain = replace(columns, label=None, group=None)
    gathered = _gather(raw, plain)
    rows = _write(raw, plain, gathered, (), np.zeros(len(gathered.rows)))
    return Table(rows, (), columns, raw.source, len(raw))


def parse_words(raw: Raw, name: str, row: int, cell: str | None) -> list[str] | None:
    """The words of a cell; ``None`` where it is empty.

    Raises ``DataError`` where it does not hold a list of texts.
    """
    words = _parse_list(raw, name, row, cell)
    if not words:
        return None
    for place, word in enumerate(words):
        if not isinstance(word, str) or "\0" in word:
            rule, value = "is not a text", word
            if isinstance(word, str):
                rule, value = "holds a NUL character, which is not valid in text", None
            remedy = "Write each word as a text, and numbers in quotation marks."
            raise DataError(_place(raw, row, name, place), rule, value, remedy)
    return words


def _parse_list(raw: Raw, name: str, row: int, cell: str | None) -> list[Any] | None:
    if cell is None or not cell.strip():
        return None
    items = _list_or_none(cell)
    if items is None:
        remedy = 'Write a JSON list such as ["Anna", "lives", …], or give a CoNLL file.'
        raise DataError(_place(raw, row, name), "does not hold a list", cell[:80], remedy)
    return items


def _list_or_none(cell: str | None) -> list[Any] | None:
    try:
        value = read_json_cell(cell or "null")
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def _place(raw: Raw, row: int, name: str, word: int | None = None) -> str:
    """The position of a word: the line of a CoNLL file, else its row."""
    if word is not None and from_conll(raw):
        return f"{raw.source}, line {int(raw.table[LINE][row].as_py()) + word}"
    at = f", word {word + 1}" if word is not None else ""
    return f"{raw.source}, row {row}, column {name!r}{at}"


def from_conll(raw: Raw) -> bool:
    """Whether these rows were read from a CoNLL file, whose columns have no names."""
    # A table may have a column of this name too.
    return raw.column_types.get(LINE) == {"integer"} and (
        is_conll_file(raw.source) or may_be_conll(raw.source)
    )


def _blocks(raw: Raw, columns: Columns) -> Iterator[tuple[int, list[Any], list[Any], list[Any]]]:
    """The first row of each block, and the cells of its words, tags and groups."""
    for start in range(0, len(raw), BATCH_ROWS):
        block = raw.table.slice(start, BATCH_ROWS)
        none = [None] * len(block)
        tags = block[columns.label].to_pylist() if columns.label else none
        groups: list[Any] = none
        if columns.group is not None:
            rows = pa.array(range(start, start + len(block)))
            groups = group_names(block[columns.group].combine_chunks(), rows).to_pylist()
        yield start, block[columns.text[0]].to_pylist(), tags, groups


def _gather(raw: Raw, columns: Columns) -> _Gathered:
    gathered = _Gathered()
    for start, cells, marks, groups in _blocks(raw, columns):
        for row, (cell, mark, group) in enumerate(zip(cells, marks, groups, strict=True), start):
            words = parse_words(raw, columns.text[0], row, cell)
            # A word of white space has no token.
            if words is None or not any(map(str.strip, words)):
                gathered.no_words.add_row(row)
                continue
            tags: list[str] = []
            if columns.label is not None:
                given = _parse_list(raw, columns.label, row, mark)
                if not given:
                    gathered.no_tags.add_row(row)
                    continue
                tags = _tags(raw, columns, row, words, given)
            if not all(map(str.strip, words)):
                gathered.empty_words.add_row(row)
            if group is not None and group.startswith(OWN_GROUP):
                gathered.no_group.add_row(row)
            gathered.rows.append(row)
            gathered.tags.append(tags)
            gathered.units.append(
                hash(group if group is not None else normal_text(" ".join(words)))
            )
    return gathered


def _tags(raw: Raw, columns: Columns, row: int, words: list[str], tags: list[Any]) -> list[str]:
    name = str(columns.label)
    if len(tags) != len(words):
        rule = (
            f"has {count_phrase(len(tags), 'tag')} but "
            f"{count_phrase(len(words), 'word')} in {columns.text[0]!r}"
        )
        raise DataError(_place(raw, row, name), rule, None, "Give each word one tag.")
    for place, tag in enumerate(tags):
        if isinstance(tag, str) and tag.strip():
            continue
        if isinstance(tag, int) and not isinstance(tag, bool):
            raise DataError(
                _place(raw, row, name, place),
                "is a number without a name",
                tag,
                "Write the tags as texts (B-PER, O), or give a data set whose features name them.",
            )
        remedy = "Write tags as texts, such as B-PER or O."
        raise DataError(_place(raw, row, name, place), "is not a valid tag", tag, remedy)
    return [tag.strip() for tag in tags]


def _tag_names(
    raw: Raw,
    columns: Columns,
    gathered: _Gathered,
    given: tuple[str, ...] | None,
    labels: LabelSpelling,
) -> tuple[str, ...]:
    counts = Counter(tag for tags in gathered.tags for tag in tags)
    if given is not None:
        known = set(given)
        if unknown := next((tag for tag in counts if tag not in known), None):
            at = next(i for i, tags in enumerate(gathered.tags) if unknown in tags)
            word = gathered.tags[at].index(unknown)
            where = _place(raw, gathered.rows[at], str(columns.label), word)
            raise unknown_label_error(where, unknown, given)
        return given
    where = f"{raw.source}, column {columns.label!r}"
    if len(counts) < 2:
        rule = "has the same tag on every word, so there is nothing to learn"
        remedy = "Choose another column of tags with --label."
        raise DataError(where, rule, next(iter(counts)), remedy)
    # Each tag is an output of the network: a column of free text would make millions.
    check_classes(where, len(counts))
    scheme = detect_scheme(gathered.tags)
    if scheme.breaks and labels != "exact":
        raise _broken_scheme_error(raw, columns, gathered, scheme)
    notify(_scheme_decision(scheme, counts))
    return tag_order(counts)


def _broken_scheme_error(
    raw: Raw, columns: Columns, gathered: _Gathered, scheme: DetectedScheme
) -> DataError:
    first: SchemeBreak = scheme.breaks[0]
    more = f" ({len(scheme.breaks)} breaks in total)" if len(scheme.breaks) > 1 else ""
    end = first.word == len(gathered.tags[first.row])
    word = first.word - 1 if end else first.word
    violation = f"ends with {first.before}" if end else f"has {first.tag} after {first.before}"
    return DataError(
        _place(raw, gathered.rows[first.row], str(columns.label), word),
        f"{violation}, which {scheme.scheme}, the scheme of the other tags, does not allow{more}",
        None,
        f"It should be {first.better}. To keep the tags as they are, to be read by the rules of "
        "conlleval, use --set data.labels=exact.",
    )


def _scheme_decision(scheme: DetectedScheme, counts: Counter[str]) -> Decision:
    types = entity_types(counts, are_untyped(counts))
    words = sum(counts.values())
    if scheme.scheme == "plain":
        because = f"{len(counts)} tags without a prefix: a run of one tag counts as one entity"
    else:
        because = f"{len(types)} entity types in {words:,} words: {', '.join(types[:12])}"
        if types == (UNTYPED,):
            because = f"one unnamed entity type in {words:,} words"
    if scheme.breaks:
        because += f"; {len(scheme.breaks)} tags break the scheme and are read as in conlleval"
    return Decision("scheme of the tags", scheme.scheme, because)


def _write(
    raw: Raw, columns: Columns, gathered: _Gathered, names: Sequence[str], places: Floats | Ints
) -> datasets.Dataset:
    """Write the sentences to disk, block by block."""
    index = {name: number for number, name in enumerate(names)}
    # Read a second time: the words of a large file are not held in memory.
    index_of_row = dict(zip(gathered.rows, range(len(gathered.rows)), strict=True))
    tags = ("tags", pa.list_(pa.int64()))
    schema = row_schema(columns, ("tokens", pa.list_(pa.string())), tags)

    def batches() -> Iterator[pa.RecordBatch]:
        for start, cells, _, groups in _blocks(raw, columns):
            rows = [row for row in range(start, start + len(cells)) if row in index_of_row]
            words = [
                parse_words(raw, columns.text[0], row, cells[row - start]) or [] for row in rows
            ]
            columns_written = {
                "row": rows,
                "text": [" ".join(one) for one in words],
                "tokens": words,
                "tags": [[index[tag] for tag in gathered.tags[index_of_row[row]]] for row in rows],
                "label": [int(places[index_of_row[row]]) for row in rows],
                "group": [groups[row - start] for row in rows],
            }
            arrays = [
                pa.array(columns_written[name], schema.field(name).type) for name in schema.names
            ]
            yield pa.record_batch(arrays, schema=schema)

    return write_batches("tagged", schema, batches())


def _report_left_out(columns: Columns, gathered: _Gathered, rows: int) -> None:
    fill = "Fill them in the source, if they matter."
    without = f"without words in {columns.text[0]!r}: dropped"
    gathered.no_words.report("missing_text", rows, without, fill, fixed=True)
    without = f"without tags in {columns.label!r}: dropped"
    gathered.no_tags.report("missing_label", rows, without, fill, fixed=True)
    report_missing_groups(columns.group, rows, gathered.no_group)
    description = "with a word that is empty or white space: the word is ignored, in the loss too"
    gathered.empty_words.report("empty_words", rows, description, fill)


def _report_documents(raw: Raw, columns: Columns) -> None:
    """Log documents that a split by sentences would divide. Groups are never inferred."""
    if columns.group is None and DOCUMENT in raw.names and LINE in raw.names:
        count = len(raw.table[DOCUMENT].unique())
        because = (
            f"the sentences are from {count} documents, and names and topics of a document occur "
            "in several splits: a score on new documents may be lower"
        )
        remedy = f"Add --group {DOCUMENT} to keep each document in one split."
        notify(Finding("documents", "info", 0.0, count, (), because, remedy))


def _report_rare_types(gathered: _Gathered, names: Sequence[str]) -> None:
    """Log entity types with too few sentences for every split."""
    bare = are_untyped(names)
    sentences_with = Counter(
        entity for tags in gathered.tags for entity in entity_types(tags, bare)
    )
    few = {
        entity: sentences_with[entity]
        for entity in entity_types(names, bare)
        if sentences_with[entity] < FEW
    }
    if few:
        shown = ", ".join(f"{entity} ({count})" for entity, count in list(few.items())[:8])
        because = (
            f"fewer than {FEW} sentences contain {count_phrase(len(few), 'entity type')}: "
            f"{shown}; the model can hardly "
            "learn them, and their scores are unreliable"
        )
        remedy = "Add sentences with these types, or merge them with another type."
        share = len(few) / len(sentences_with)
        notify(Finding("rare_entities", "warn", share, len(few), (), because, remedy))


def _choose_usual_column(raw: Raw, role: str, usual: Sequence[str]) -> str:
    candidates = usual_names(raw.names, usual)
    content = "words" if role == "text" else "tags"
    if not candidates and content == "tags" and from_conll(raw):
        remedy = "Write each word's tag behind it, separated by a tab or a space."
        raise DataError(raw.source, "has one column: words without tags", None, remedy)
    if not candidates:
        rule = f"has no column that could hold the {content}"
        remedy = f"{suggest_name(usual[0], raw.names)} Name it with --{role} COLUMN."
        raise DataError(raw.source, rule, ", ".join(raw.names), remedy)
    because = (
        "it is the only column with a usual name"
        if len(candidates) == 1
        else f"it has a usual name; other candidates: {', '.join(candidates[1:])}"
    )
    notify(Decision(f"{content} column", candidates[0], because))
    return candidates[0]
