"""Sentences as lists of words with a tag each: CoNLL files, or rows with two lists.

read → choose the two columns → leave out what is missing → check the tags → write.
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
from holdfast.data.clean import Tally, has_no_group, row_schema
from holdfast.data.columns.profile import listed
from holdfast.data.columns.roles import check_column, check_present, refuse_twice, usual_names
from holdfast.data.labels.bins import strata_like
from holdfast.data.labels.classes import refuse_unknown
from holdfast.data.limits import check_classes
from holdfast.data.load import PLAIN, read_rows, read_table
from holdfast.data.options import Labels, RowOptions
from holdfast.data.raw import BATCH_ROWS, Raw
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_first, read_source
from holdfast.data.table import Columns, Table
from holdfast.data.tags.conll import (
    DOCUMENT,
    LINE,
    is_conll_file,
    looks_like_conll,
    may_be_conll,
    read_conll,
)
from holdfast.data.tags.scheme import (
    NAMELESS,
    Break,
    FoundScheme,
    are_bare,
    entity_types,
    find_scheme,
    order_of_tags,
)
from holdfast.data.texts.general import normal_text

if TYPE_CHECKING:
    import datasets


TOKEN_NAMES = ("tokens", "words", "token", "word")
TAG_NAMES = listed(
    """
    ner_tags tags ner labels entities entity_tags pos_tags chunk_tags label
    """
)
FEW = 5
LOOKED_AT = 20


@dataclass(slots=True)
class _Gathered:
    """The sentences that stay, and what was left out."""

    rows: list[int] = field(default_factory=list)
    tags: list[list[str]] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    no_words: Tally = field(default_factory=Tally)
    no_tags: Tally = field(default_factory=Tally)
    empty_words: Tally = field(default_factory=Tally)


def read_tagged(
    source: str | Path, encoding: str | None, config: str | None = None, *, first: bool = False
) -> Raw:
    """The source as rows with lists: a CoNLL file, or whatever ``read_source`` reads. A ``.tsv``
    whose header names a column of words is a table, a ``.txt`` never is. ``first``: of a table the
    first batch alone."""
    if is_conll_file(source):
        return read_conll(source, encoding)
    if may_be_conll(source):
        bare = str(source).lower().removesuffix(".gz")
        # A .tsv may be a table with a header; its first lines tell, then its names.
        if bare.endswith(".txt") or looks_like_conll(source, encoding):
            return read_conll(source, encoding)
        if not usual_names(read_first(source, encoding, None).names, TOKEN_NAMES):
            return read_conll(source, encoding)
    return (read_first if first else read_source)(source, encoding, config)


def tagged_shape(
    raw: Raw, text: Sequence[str] | None = None, label: str | None = None
) -> str | None:
    """Why these rows are sentences of tagged words; ``None`` where nothing says so: a column of
    lists of words and one of lists of as many tags in most rows, which have usual names or are
    named."""
    words = list(text or usual_names(raw.names, TOKEN_NAMES))[:1]
    tags = [label] if label else usual_names(raw.names, TAG_NAMES)
    if not set(raw.names).issuperset(words) or not words:
        return None
    first = raw.table.slice(0, LOOKED_AT)
    for name in (name for name in tags if name in raw.names and name != words[0]):
        cells = zip(*(first[column].to_pylist() for column in (words[0], name)), strict=True)
        # A CSV file holds its lists as texts.
        full = [(_list_or_none(one), _list_or_none(two)) for one, two in cells if one and two]
        full = [(one, two) for one, two in full if one != [] and two != []]
        alike = sum(bool(one and two and len(one) == len(two)) for one, two in full)
        # Most rows say what all are meant to be; one that differs is then refused by its place.
        if alike and 2 * alike >= len(full):
            return f"each row has a list of words ({words[0]!r}) and as many tags ({name!r})"
    return None


def choose_tagged(raw: Raw, options: RowOptions) -> Columns:
    """The columns of words, tags and groups: as given, else by their usual names, which goes into
    the log.

    Raises ``DataError`` where a column is not there, or none has such a name.
    """
    text, tags = options.text, options.label
    if text and len(text) > 1:
        rule = "names one column of lists of words for this task"
        raise DataError("--text", rule, ", ".join(text), "Name one.")
    words = text[0] if text else _chosen(raw, "text", TOKEN_NAMES)
    if tags is None and (options.need_label or usual_names(raw.names, TAG_NAMES)):
        tags = _chosen(raw, "label", TAG_NAMES)
    if not options.need_label and tags not in raw.names:
        tags = None
    for name in (words, tags):
        if name is not None:
            check_present(raw, name)
    if options.group is not None:
        check_column(raw, options.group)
    refuse_twice([words, tags, options.group], "--text, --label and --group")
    return Columns((words,), tags, options.group, label_kind="several")


def load_tagged(source: str, options: RowOptions = PLAIN) -> Table:
    """The sentences of a source with their tags.

    Columns of the table: ``row``; ``text``, the words joined by spaces, by which copies are found;
    ``tokens``, a list of words; ``tags``, a list of indices into ``names``; ``label``, the stratum
    of the division: the set of entity types; ``group``, where it is given. The ``classes`` of the
    options are the tags of a run, in the order of its outputs.

    Raises ``DataError``: a row has not as many tags as words, a tag is unknown or breaks the scheme
    of the others (with the line of a CoNLL file, else the row), or all words have one tag.
    """
    raw = read_rows(source, options, "words and tags", read_tagged)
    like = options.like
    given = tuple(options.classes) if options.classes else like.names if like else None
    with record_decisions() as log:
        columns = choose_tagged(raw, options)
        found = _gather(raw, columns)
        if not found.rows:
            remedy = "Name the columns that hold them."
            raise DataError(raw.source, "has no row with words and tags", None, remedy)
        known = _names(raw, columns, found, given, options.labels)
        types = [entity_types(tags, are_bare(known)) for tags in found.tags]
        units = np.unique(found.units, return_inverse=True)[1]
        classes, places = strata_like(types, units, None if like is None else like.classes)
        _notice_left_out(columns, found, len(raw))
        if given is None:
            _notice_few(found, known)
            _notice_documents(raw, columns)
    rows = _write(raw, columns, found, known, places)
    return read_table(raw, rows, classes, columns, log, names=known)


def untagged(raw: Raw, columns: Columns) -> Table:
    """The sentences to be predicted: as ``load_tagged``, without tags. A row without words is not
    among them."""
    plain = replace(columns, label=None, group=None)
    found = _gather(raw, plain)
    rows = _write(raw, plain, found, (), np.zeros(len(found.rows)))
    return Table(rows, (), columns, raw.source, len(raw))


def words_of(raw: Raw, name: str, row: int, cell: str | None) -> list[str] | None:
    """The words of a cell; ``None`` where there are none.

    Raises ``DataError`` where it holds no list of texts.
    """
    found = _list(raw, name, row, cell)
    if not found:
        return None
    for place, word in enumerate(found):
        if not isinstance(word, str) or "\0" in word:
            what, value = "is no text", word
            if isinstance(word, str):
                what, value = "holds a NUL character, which no text has", None
            remedy = "Words are texts; write numbers in quotation marks."
            raise DataError(_place(raw, row, name, place), what, value, remedy)
    return found


def _list(raw: Raw, name: str, row: int, cell: str | None) -> list[Any] | None:
    if cell is None or not cell.strip():
        return None
    found = _list_or_none(cell)
    if found is None:
        raise DataError(
            _place(raw, row, name),
            "holds no list",
            cell[:80],
            'Write a JSON list, ["Anna", "lives", …], or give a CoNLL file.',
        )
    return found


def _list_or_none(cell: str | None) -> list[Any] | None:
    try:
        found = read_json_cell(cell or "null")
    except ValueError:
        return None
    return found if isinstance(found, list) else None


def _place(raw: Raw, row: int, name: str, word: int | None = None) -> str:
    """Where a word is: by the line of a CoNLL file, else by its row."""
    if word is not None and from_conll(raw):
        return f"{raw.source}, line {int(raw.table[LINE][row].as_py()) + word}"
    at = f", word {word + 1}" if word is not None else ""
    return f"{raw.source}, row {row}, column {name!r}{at}"


def from_conll(raw: Raw) -> bool:
    """Whether these rows were read from a CoNLL file, whose columns have no names."""
    # A table may have a column of this name too.
    return raw.kinds.get(LINE) == {"integer"} and (
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
            cells = block[columns.group].combine_chunks()
            alone = has_no_group(cells).to_pylist()
            groups = [
                f"(no group) row {start + i}" if alone[i] else cell.strip()
                for i, cell in enumerate(cells.to_pylist())
            ]
        yield start, block[columns.text[0]].to_pylist(), tags, groups


def _gather(raw: Raw, columns: Columns) -> _Gathered:
    found = _Gathered()
    for start, cells, marks, groups in _blocks(raw, columns):
        for row, (cell, mark, group) in enumerate(zip(cells, marks, groups, strict=True), start):
            words = words_of(raw, columns.text[0], row, cell)
            # White space has no piece: there would be nothing to read.
            if words is None or not any(map(str.strip, words)):
                found.no_words.note(row)
                continue
            tags: list[str] = []
            if columns.label is not None:
                given = _list(raw, columns.label, row, mark)
                if not given:
                    found.no_tags.note(row)
                    continue
                tags = _tags(raw, columns, row, words, given)
            if not all(map(str.strip, words)):
                found.empty_words.note(row)
            found.rows.append(row)
            found.tags.append(tags)
            found.units.append(hash(group if group is not None else normal_text(" ".join(words))))
    return found


def _tags(raw: Raw, columns: Columns, row: int, words: list[str], tags: list[Any]) -> list[str]:
    name = str(columns.label)
    if len(tags) != len(words):
        raise DataError(
            _place(raw, row, name),
            f"has {count_phrase(len(tags), 'tag')} for the {count_phrase(len(words), 'word')} of "
            f"{columns.text[0]!r}",
            None,
            "Give each word one tag.",
        )
    for place, tag in enumerate(tags):
        if isinstance(tag, str) and tag.strip():
            continue
        if isinstance(tag, int) and not isinstance(tag, bool):
            raise DataError(
                _place(raw, row, name, place),
                "is a number without a name",
                tag,
                "Write the tags themselves (B-PER, O), or give a data set whose features name "
                "them.",
            )
        raise DataError(
            _place(raw, row, name, place), "is no tag", tag, "Tags are texts: B-PER, O."
        )
    return [tag.strip() for tag in tags]


def _names(
    raw: Raw, columns: Columns, found: _Gathered, given: tuple[str, ...] | None, labels: Labels
) -> tuple[str, ...]:
    counts = Counter(tag for tags in found.tags for tag in tags)
    if given is not None:
        known = set(given)
        if unknown := next((tag for tag in counts if tag not in known), None):
            at = next(i for i, tags in enumerate(found.tags) if unknown in tags)
            word = found.tags[at].index(unknown)
            where = _place(raw, found.rows[at], str(columns.label), word)
            raise refuse_unknown(where, unknown, given)
        return given
    where = f"{raw.source}, column {columns.label!r}"
    if len(counts) < 2:
        raise DataError(
            where,
            "has the same tag on every word, so there is nothing to learn",
            next(iter(counts)),
            "Choose another column of tags with --label.",
        )
    # Each tag is an output of the network: a column of texts would make millions.
    check_classes(where, len(counts))
    scheme = find_scheme(found.tags)
    if scheme.breaks and labels != "exact":
        raise _broken(raw, columns, found, scheme)
    notify(_told(scheme, counts))
    return order_of_tags(counts)


def _broken(raw: Raw, columns: Columns, found: _Gathered, scheme: FoundScheme) -> DataError:
    first: Break = scheme.breaks[0]
    more = f"; it is the first of {len(scheme.breaks)}" if len(scheme.breaks) > 1 else ""
    end = first.word == len(found.tags[first.row])
    word = first.word - 1 if end else first.word
    what = f"ends with {first.before}" if end else f"has {first.tag} after {first.before}"
    return DataError(
        _place(raw, found.rows[first.row], str(columns.label), word),
        f"{what}, which {scheme.scheme}, the scheme of the other tags, does not have{more}",
        None,
        f"It should be {first.better}; or take the tags as they are, by the rules of conlleval, "
        "with --set data.labels=exact.",
    )


def _told(scheme: FoundScheme, counts: Counter[str]) -> Decision:
    types = entity_types(counts, are_bare(counts))
    words = sum(counts.values())
    if scheme.scheme == "plain":
        because = f"{len(counts)} tags without a prefix: a run of one tag counts as one entity"
    else:
        because = f"{len(types)} types of entity in {words:,} words: {', '.join(types[:12])}"
        if types == (NAMELESS,):
            because = f"one type of entity, without a name, in {words:,} words"
    if scheme.breaks:
        because += f"; {len(scheme.breaks)} tags break the scheme and are read as conlleval does"
    return Decision("scheme of the tags", scheme.scheme, because)


def _write(
    raw: Raw, columns: Columns, found: _Gathered, names: Sequence[str], places: Floats | Ints
) -> datasets.Dataset:
    """The sentences on disk, block by block."""
    index = {name: number for number, name in enumerate(names)}
    # Read a second time: the words of a large file are not held in memory.
    kept = dict(zip(found.rows, range(len(found.rows)), strict=True))
    tags = ("tags", pa.list_(pa.int64()))
    schema = row_schema(columns, ("tokens", pa.list_(pa.string())), tags)

    def batches() -> Iterator[pa.RecordBatch]:
        for start, cells, _, groups in _blocks(raw, columns):
            rows = [row for row in range(start, start + len(cells)) if row in kept]
            words = [words_of(raw, columns.text[0], row, cells[row - start]) or [] for row in rows]
            made = {
                "row": rows,
                "text": [" ".join(one) for one in words],
                "tokens": words,
                "tags": [[index[tag] for tag in found.tags[kept[row]]] for row in rows],
                "label": [int(places[kept[row]]) for row in rows],
                "group": [groups[row - start] for row in rows],
            }
            arrays = [pa.array(made[name], schema.field(name).type) for name in schema.names]
            yield pa.record_batch(arrays, schema=schema)

    return write_batches("tagged", schema, batches())


def _notice_left_out(columns: Columns, found: _Gathered, rows: int) -> None:
    fill = "Fill them in the source, if they matter."
    without = f"without words in {columns.text[0]!r}: left out"
    found.no_words.notice("missing_text", rows, without, fill, fixed=True)
    without = f"without tags in {columns.label!r}: left out"
    found.no_tags.notice("missing_label", rows, without, fill, fixed=True)
    what = "with a word that is empty or white space: it is not read, and takes part in no loss"
    found.empty_words.notice("empty_words", rows, what, fill)


def _notice_documents(raw: Raw, columns: Columns) -> None:
    """Documents that a division by sentences takes apart. Groups are never taken unasked."""
    if columns.group is None and DOCUMENT in raw.names and LINE in raw.names:
        count = len(raw.table[DOCUMENT].unique())
        because = (
            f"the sentences are of {count} documents, whose names and topics recur on every side "
            "of the division: a score on new documents may be lower"
        )
        remedy = f"Add --group {DOCUMENT} to keep each document on one side."
        notify(Finding("documents", "info", 0.0, count, (), because, remedy))


def _notice_few(found: _Gathered, names: Sequence[str]) -> None:
    """Types of entity that hardly any sentence holds: they cannot stand on every side."""
    bare = are_bare(names)
    held = Counter(entity for tags in found.tags for entity in entity_types(tags, bare))
    few = {entity: held[entity] for entity in entity_types(names, bare) if held[entity] < FEW}
    if few:
        shown = ", ".join(f"{entity} ({count})" for entity, count in list(few.items())[:8])
        because = (
            f"fewer than {FEW} sentences hold {count_phrase(len(few), 'type')} of entity: {shown}; what "
            "is learnt or scored there says little"
        )
        remedy = "Add sentences that hold them, or give them the tag of another type."
        share = len(few) / len(held)
        notify(Finding("rare_entities", "warn", share, len(few), (), because, remedy))


def _chosen(raw: Raw, role: str, usual: Sequence[str]) -> str:
    found = usual_names(raw.names, usual)
    what = "words" if role == "text" else "tags"
    if not found and what == "tags" and from_conll(raw):
        raise DataError(
            raw.source,
            "has one column: words without tags",
            None,
            "Put each word's tag behind it, parted by a tab or a space.",
        )
    if not found:
        raise DataError(
            raw.source,
            f"has no column that could hold the {what}",
            ", ".join(raw.names),
            f"{suggest_name(usual[0], raw.names)} Name it with --{role} COLUMN.",
        )
    because = "it has a usual name" if len(found) == 1 else f"the others: {', '.join(found[1:])}"
    notify(Decision(f"{what} column", found[0], because))
    return found[0]
