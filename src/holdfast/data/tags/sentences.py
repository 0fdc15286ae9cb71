"""Sentences as lists of words with a tag each: CoNLL files, or rows with two lists.

read → choose the two columns → leave out what is missing → check the tags → write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from holdfast.core.discovery import nearest
from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.records import Decision, Finding, Floats, Ints
from holdfast.core.wording import counted
from holdfast.data.cells import read_json_cell
from holdfast.data.clean import Tally, has_no_group
from holdfast.data.columns.roles import check_column, check_present, refuse_twice, usual_names
from holdfast.data.labels.bins import strata
from holdfast.data.labels.classes import refuse_unknown
from holdfast.data.labels.spelling import Labels
from holdfast.data.limits import check_classes
from holdfast.data.raw import BATCH_ROWS, Raw
from holdfast.data.scratch import scratch_file, stored_rows
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
from holdfast.data.texts.normal import normal_text

if TYPE_CHECKING:
    import datasets


TOKEN_NAMES = ("tokens", "words", "token", "word")
TAG_NAMES = (
    "ner_tags",
    "tags",
    "ner",
    "labels",
    "entities",
    "entity_tags",
    "pos_tags",
    "chunk_tags",
    "label",
)
FEW = 5
LOOKED_AT = 20
_LISTED = 100


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
    source: str, encoding: str | None, config: str | None = None, *, first: bool = False
) -> Raw:
    """The source as rows with lists: a CoNLL file, or whatever ``read_source`` reads. A ``.tsv``
    whose header names a column of words is a table, a ``.txt`` never is. ``first``: of a table the
    first batch alone."""
    if is_conll_file(source):
        return read_conll(source, encoding)
    if may_be_conll(source):
        bare = source.lower().removesuffix(".gz")
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


def choose_tagged(
    raw: Raw,
    *,
    text: Sequence[str] | None,
    label: str | None,
    group: str | None,
    need_tags: bool = True,
) -> tuple[Columns, tuple[Decision, ...]]:
    """The columns of words, tags and groups: as given, else by their usual names.

    Raises ``DataError`` where a column is not there, or none has such a name.
    """
    decisions: list[Decision] = []
    if text and len(text) > 1:
        raise DataError(
            "--text",
            "names one column of lists of words for this task",
            ", ".join(text),
            "Name one.",
        )
    words = text[0] if text else _chosen(raw, "text", TOKEN_NAMES, decisions)
    tags = label
    if tags is None and (need_tags or usual_names(raw.names, TAG_NAMES)):
        tags = _chosen(raw, "label", TAG_NAMES, decisions)
    if not need_tags and tags not in raw.names:
        tags = None
    for name in (words, tags):
        if name is not None:
            check_present(raw, name)
    if group is not None:
        check_column(raw, group)
    refuse_twice([words, tags, group], "--text, --label and --group")
    return Columns((words,), tags, group, label_kind="several"), tuple(decisions)


def load_tagged(
    source: str,
    *,
    text: Sequence[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    encoding: str | None = None,
    config: str | None = None,
    names: Sequence[str] | None = None,
    like: Table | None = None,
    labels: Labels = "merged",
) -> Table:
    """The sentences of a source with their tags.

    Columns of the table: ``row``; ``text``, the words joined by spaces, by which copies are found;
    ``tokens``, a list of words; ``tags``, a list of indices into ``names``; ``label``, the stratum
    of the division: the set of entity types; ``group``, where it is given.

    Parameters
    ----------
    names : the tags of a run, in the order of its outputs; others are refused.
    like : the table that these rows are divided or scored with.
    labels : ``exact`` takes tags that break their scheme as they are.

    Raises ``DataError``: a row has not as many tags as words, a tag is unknown or breaks the scheme
    of the others (with the line of a CoNLL file, else the row), or all words have one tag.
    """
    raw = read_tagged(source, encoding, config)
    if not len(raw):
        rule = "has a header but no rows" if raw.names else "is empty"
        raise DataError(raw.source, rule, None, "It needs rows with words and tags.")
    columns, chosen = choose_tagged(raw, text=text, label=label, group=group)
    found = _gather(raw, columns)
    if not found.rows:
        raise DataError(
            raw.source, "has no row with words and tags", None, "Name the columns that hold them."
        )
    given = tuple(names) if names else like.names if like else None
    known, told = _names(raw, columns, found, given, labels)
    types = [entity_types(tags, are_bare(known)) for tags in found.tags]
    classes, places = strata(types, np.unique(found.units, return_inverse=True)[1])
    if like is not None:
        # Both sides of a division must have the same strata; given rows are not divided.
        at = {name: number for number, name in enumerate(like.classes)}
        places = np.array([at.get(classes[place], 0) for place in places], dtype=np.int64)
        classes = like.classes
    rows = _write(raw, columns, found, known, places)
    return Table(
        rows,
        classes,
        columns,
        raw.source,
        len(raw),
        findings=(
            *_findings(columns, found, len(raw), known if given is None else ()),
            *(_documents(raw, columns) if given is None else ()),
        ),
        decisions=(*raw.decisions, *chosen, *told),
        names=known,
    )


def untagged(raw: Raw, columns: Columns) -> Table:
    """The sentences to be predicted: as ``load_tagged``, without tags. A row without words is not
    among them."""
    found = _gather(raw, replace(columns, label=None, group=None))
    rows = _write(
        raw, replace(columns, label=None, group=None), found, (), np.zeros(len(found.rows))
    )
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
            what = (
                "holds a NUL character, which no text has"
                if isinstance(word, str)
                else "is no text"
            )
            raise DataError(
                _place(raw, row, name, place),
                what,
                word if not isinstance(word, str) else None,
                "Words are texts; write numbers in quotation marks.",
            )
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
                _note(found.no_words, row)
                continue
            tags: list[str] = []
            if columns.label is not None:
                given = _list(raw, columns.label, row, mark)
                if not given:
                    _note(found.no_tags, row)
                    continue
                tags = _tags(raw, columns, row, words, given)
            if not all(map(str.strip, words)):
                _note(found.empty_words, row)
            found.rows.append(row)
            found.tags.append(tags)
            found.units.append(hash(group if group is not None else normal_text(" ".join(words))))
    return found


def _tags(raw: Raw, columns: Columns, row: int, words: list[str], tags: list[Any]) -> list[str]:
    name = str(columns.label)
    if len(tags) != len(words):
        raise DataError(
            _place(raw, row, name),
            f"has {counted(len(tags), 'tag')} for the {counted(len(words), 'word')} of "
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
) -> tuple[tuple[str, ...], tuple[Decision, ...]]:
    counts = Counter(tag for tags in found.tags for tag in tags)
    if given is not None:
        known = set(given)
        if unknown := [tag for tag in counts if tag not in known]:
            row, word = _first(found, unknown[0])
            raise refuse_unknown(_place(raw, row, str(columns.label), word), unknown[0], given)
        return given, ()
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
    return order_of_tags(counts), (_told(scheme, counts),)


def _first(found: _Gathered, tag: str) -> tuple[int, int]:
    place = next(i for i, tags in enumerate(found.tags) if tag in tags)
    return found.rows[place], found.tags[place].index(tag)


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
    schema = _schema(columns)
    path = scratch_file("tagged")
    with disk_errors(path), pa.ipc.new_stream(str(path), schema) as sink:
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
            sink.write_batch(pa.record_batch(arrays, schema=schema))
    return stored_rows(path)


def _schema(columns: Columns) -> pa.Schema:
    fields = [
        ("row", pa.int64()),
        ("text", pa.string()),
        ("tokens", pa.list_(pa.string())),
        ("tags", pa.list_(pa.int64())),
        ("label", pa.int64()),
    ]
    return pa.schema([*fields, *([("group", pa.string())] if columns.group is not None else [])])


def _findings(
    columns: Columns, found: _Gathered, rows: int, names: Sequence[str]
) -> tuple[Finding, ...]:
    words, tags = columns.text[0], columns.label
    tallies = [
        ("missing_text", found.no_words, f"without words in {words!r}: left out", True),
        ("missing_label", found.no_tags, f"without tags in {tags!r}: left out", True),
        (
            "empty_words",
            found.empty_words,
            "with a word that is empty or white space: it is not read, and takes part in no loss",
            False,
        ),
    ]
    made = [
        Finding(
            check,
            "warn",
            tally.count / rows,
            tally.count,
            tuple(tally.rows),
            f"{tally.count} row{'s' if tally.count > 1 else ''} {what}",
            "Fill them in the source, if they matter.",
            fixed,
        )
        for check, tally, what, fixed in tallies
        if tally.count
    ]
    return (*made, *_few(found, names))


def _documents(raw: Raw, columns: Columns) -> tuple[Finding, ...]:
    """Documents that a division by sentences takes apart. Groups are never taken unasked."""
    if columns.group is not None or DOCUMENT not in raw.names or LINE not in raw.names:
        return ()
    count = len(raw.table[DOCUMENT].unique())
    return (
        Finding(
            "documents",
            "info",
            0.0,
            count,
            (),
            f"the sentences are of {count} documents, whose names and topics recur on every side "
            "of the division: a score on new documents may be lower",
            f"Add --group {DOCUMENT} to keep each document on one side.",
        ),
    )


def _few(found: _Gathered, names: Sequence[str]) -> tuple[Finding, ...]:
    """Types of entity that hardly any sentence holds: they cannot stand on every side."""
    if not names:
        return ()
    bare = are_bare(names)
    held = Counter(entity for tags in found.tags for entity in entity_types(tags, bare))
    few = {entity: held[entity] for entity in entity_types(names, bare) if held[entity] < FEW}
    if not few:
        return ()
    shown = ", ".join(f"{entity} ({count})" for entity, count in list(few.items())[:8])
    return (
        Finding(
            "rare_entities",
            "warn",
            len(few) / len(held),
            len(few),
            (),
            f"fewer than {FEW} sentences hold {counted(len(few), 'type')} of entity: {shown}; what "
            "is learnt or scored there says little",
            "Add sentences that hold them, or give them the tag of another type.",
        ),
    )


def _chosen(raw: Raw, role: str, usual: Sequence[str], decisions: list[Decision]) -> str:
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
            f"{nearest(usual[0], raw.names)} Name it with --{role} COLUMN.",
        )
    because = "it has a usual name" if len(found) == 1 else f"the others: {', '.join(found[1:])}"
    decisions.append(Decision(f"{what} column", found[0], because))
    return found[0]


def _note(tally: Tally, row: int) -> None:
    tally.count += 1
    if len(tally.rows) < _LISTED:
        tally.rows.append(row)
