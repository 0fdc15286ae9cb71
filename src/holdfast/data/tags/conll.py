"""CoNLL: one word per line with its tag in the last column, a blank line after each sentence.

The columns are separated by tabs where the first line of words has one, else by spaces. A line
whose first column is ``-DOCSTART-`` begins a document. A line at the beginning of a sentence that
starts with ``#`` and has another number of columns than the words is a comment. Nothing is
repaired: a line with more or fewer columns is refused with its number.

Source: Tjong Kim Sang and De Meulder 2003, cs/0306050; the file format of CoNLL-2000 to 2003.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.data.cells import write_json_cell
from holdfast.data.limits import check_row
from holdfast.data.raw import Batch, ColumnType, Raw, batched, read_errors, source_path, store
from holdfast.data.readers.text import is_gzipped, open_lines

TOKENS, TAGS, LINE, DOCUMENT = "tokens", "tags", "line", "document"
DOCSTART = "-DOCSTART-"
SUFFIX = ".conll"
SHARED_SUFFIXES = (".txt", ".tsv")
PREFIXED = re.compile(r"[BIESLU]-\S+")
SPACES = re.compile(r"[ \t]+")
# Lines of a text or a table that are checked to recognise CoNLL.
SAMPLED_LINES = 2000


@dataclass(slots=True)
class _ConllSentence:
    """The lines of one sentence; ``line`` is that of its first word, counted from 1, ``document``
    the number of its document, 0 before the first ``-DOCSTART-``."""

    line: int
    document: int
    words: list[list[str]] = field(default_factory=list)
    size: int = 0


def is_conll_file(source: str | Path) -> bool:
    """Whether the source is a file that ends in ``.conll``, also compressed."""
    path = source_path(source)
    return path.is_file() and _bare_name(path).endswith(SUFFIX)


def may_be_conll(source: str | Path) -> bool:
    """Whether the source is a file with an ending that CoNLL shares with other formats."""
    path = source_path(source)
    return path.is_file() and _bare_name(path).endswith(SHARED_SUFFIXES)


def has_conll_content(source: str | Path, encoding: str | None = None) -> bool:
    """Whether a ``.txt`` or ``.tsv`` begins with words and tags such as ``B-PER`` and ``O``, in
    the same number of columns each. Prose, a table with a header, and tags without prefixes do not
    count."""
    if not may_be_conll(source):
        return False
    tags: set[str] = set()
    widths: set[int] = set()
    try:
        with open_lines(source_path(source), encoding) as lines:
            for _, line in zip(range(SAMPLED_LINES), lines, strict=False):
                cells = _split_columns(line)
                if not cells or cells[0] == DOCSTART or cells[0] == "#":
                    continue
                widths.add(len(cells))
                tags.add(cells[-1])
                if len(widths) > 1 or widths == {1}:
                    return False
    except DataError:
        return False
    return any(map(PREFIXED.fullmatch, tags)) and all(
        tag == "O" or PREFIXED.fullmatch(tag) for tag in tags
    )


def holds_sentences(source: str | Path, encoding: str | None = None) -> bool:
    """Whether a ``.txt`` has one sentence per line: the number of words differs between its lines,
    while the lines of CoNLL have the same number of columns."""
    if not may_be_conll(source) or not _bare_name(source_path(source)).endswith(".txt"):
        return False
    with open_lines(source_path(source), encoding) as lines:
        looked = (
            _split_columns(line) for _, line in zip(range(SAMPLED_LINES), lines, strict=False)
        )
        widths = {len(cells) for cells in looked if cells and cells[0] != DOCSTART}
    return len(widths) > 1


def read_sentences(source: str | Path, encoding: str | None) -> Raw:
    """One row per line, whose ``tokens`` (a JSON list) are its words between white space; null for
    a blank line."""
    path = source_path(source)

    def sentences(lines: Iterator[str]) -> Iterator[tuple[str | None, int]]:
        for number, line in enumerate(lines, 1):
            check_row(f"{path}, line {number}", len(line))
            words = line.split()
            yield write_json_cell(words) if words else None, len(line)

    with read_errors(path), open_lines(path, encoding) as lines:
        return store(map(sentence_rows, batched(sentences(lines))), str(path))


def sentence_rows(words: Sequence[str | None]) -> Batch:
    """One row per sentence, with its words as a JSON list; ``None`` where there are no words."""
    return Batch({TOKENS: pa.array(words, pa.string())}, {TOKENS: {"nested"}})


def read_conll(source: str | Path, encoding: str | None) -> Raw:
    """The sentences as rows: ``tokens`` and ``tags`` (the first and the last column, JSON lists),
    ``column_2`` … for those between, ``line`` of the first word, and ``document`` where the file
    has ``-DOCSTART-``. A file with one column has no ``tags``."""
    path = source_path(source)
    with read_errors(path), open_lines(path, encoding) as lines:
        raw = store(map(_batch, batched(_sentences(path, lines))), str(path))
    if not len(raw):
        raise DataError(str(path), "holds no words", None, "Write one word and its tag per line.")
    return raw


def _bare_name(path: Path) -> str:
    name = path.name.lower()
    return name.removesuffix(".gz") if is_gzipped(path) else name


def _sentences(path: Path, lines: Iterator[str]) -> Iterator[tuple[_ConllSentence, int]]:
    """Each sentence with its number of characters."""
    sentence: _ConllSentence | None = None
    tabs: bool | None = None
    width, first, document = 0, 0, 0
    for number, line in enumerate(lines, 1):
        content = line.rstrip("\r\n")
        start = content.startswith(DOCSTART)
        if start or not content.strip():
            document += start
            if sentence is not None:
                yield sentence, sentence.size
            sentence = None
            continue
        # One separator per file: a word may contain a space where tabs separate the columns.
        if tabs is None or not width:
            tabs = "\t" in content
        cells = content.split("\t") if tabs else _split_columns(content)
        comment = sentence is None and content.startswith("#")
        if comment and len(cells) != width:
            # It precedes the first line of words, or has another number of columns than that line.
            continue
        # The first line of words fixes the number of columns.
        if not width:
            width, first = len(cells), number
        if len(cells) != width:
            raise DataError(
                f"{path}, line {number}",
                f"has {len(cells)} column{'s' if len(cells) != 1 else ''}, but line {first} has "
                f"{width}",
                content[:80],
                "Give every word the same number of columns, with its tag in the last one, and "
                "separate sentences by blank lines.",
            )
        sentence = sentence or _ConllSentence(number, document)
        sentence.words.append(cells)
        sentence.size += len(content)
        check_row(f"{path}, line {number}", sentence.size, "Separate its sentences by blank lines.")
    if sentence is not None:
        yield sentence, sentence.size


def _split_columns(line: str) -> list[str]:
    """The columns between tabs and spaces; a non-breaking space belongs to its word."""
    return [cell for cell in SPACES.split(line.rstrip("\r\n")) if cell]


def _batch(sentences: list[_ConllSentence]) -> Batch:
    columns: dict[str, pa.Array] = {}
    column_types: dict[str, set[ColumnType]] = {}
    width = len(sentences[0].words[0])
    # ``predict`` accepts words without tags.
    between = [(place, f"column_{place + 1}") for place in range(1, width - 1)]
    named = [(0, TOKENS), *([(width - 1, TAGS)] if width > 1 else []), *between]
    for place, name in named:
        cells = [
            write_json_cell([word[place] for word in sentence.words]) for sentence in sentences
        ]
        columns[name], column_types[name] = pa.array(cells, pa.string()), {"nested"}
    # Tags are checked once all are known; errors then name the line.
    columns[LINE] = pa.array([str(sentence.line) for sentence in sentences], pa.string())
    column_types[LINE] = {"integer"}
    if any(sentence.document for sentence in sentences):
        columns[DOCUMENT] = pa.array(
            [str(sentence.document) for sentence in sentences], pa.string()
        )
        column_types[DOCUMENT] = {"integer"}
    return Batch(columns, column_types)
