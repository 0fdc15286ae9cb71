"""Rows of chats, instructions, prompts, rendered chats or plain text as a ``Table``.

Columns of its rows: ``row``; ``text``, the prompt (or the text), in which duplicates are searched
for; ``turns``, the turns as JSON (empty for plain text); ``label``, always 0; ``group``.
``classes`` is ``("all",)``. The table's form is ``form_of(table)``. In a text file each passage is
a row; blank lines separate passages.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from holdfast.core.decisions import notify, record_decisions
from holdfast.core.errors import DataError
from holdfast.core.records import Decision, Finding, Severity
from holdfast.core.wording import count_phrase
from holdfast.data.chats.columns import ChatColumns, choose_chat_columns
from holdfast.data.chats.turns import (
    FAULTS,
    NO_ANSWER,
    NO_CHAT,
    NO_TRAINED_ANSWER,
    ROLE_ORDER,
    SAMPLE,
    TOOLS,
    UNANSWERED,
    UNREAD,
    WEIGHTS,
    Turn,
    check_template_name,
    clean_turns,
    detect_template,
    is_template,
    parse_rendered,
    prompt_text,
    read_turns,
    unread_part,
    unreadable_turn,
)
from holdfast.data.clean import OWN_GROUP, Tally, group_names, report_missing_groups
from holdfast.data.columns.roles import check_present, fill_template
from holdfast.data.limits import check_row
from holdfast.data.load import DEFAULT_OPTIONS, read_table
from holdfast.data.options import RowOptions
from holdfast.data.raw import Batch, Raw, batched, read_errors, source_path, store
from holdfast.data.readers.text import open_lines
from holdfast.data.scratch import write_batches
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table

if TYPE_CHECKING:
    import datasets


def is_text_file(source: str | Path) -> bool:
    """Whether the source is a file that ends in ``.txt`` or ``.txt.gz``."""
    path = source_path(source)
    return path.name.lower().removesuffix(".gz").endswith(".txt") and path.is_file()


def read_passages(path: Path, encoding: str | None) -> Raw:
    """The passages of a text file with their line breaks, without the blank lines between them."""
    with read_errors(path), open_lines(path, encoding) as lines:
        raw = store(map(_batch, batched(_passages(path, lines))), str(path))
    if not len(raw):
        raise DataError(str(path), "holds no text", None, "Add passages of text.")
    return raw


def _passages(path: Path, lines: Iterator[str]) -> Iterator[tuple[str, int]]:
    lot: list[str] = []
    size = 0
    for line in itertools.chain(lines, [""]):
        size += len(line)
        if line.strip():
            check_row(str(path), size, "Separate its passages by blank lines.")
            lot.append(line)
        elif lot:
            passage = "".join(lot).rstrip("\r\n")
            yield passage, len(passage)
            lot, size = [], 0


def _batch(passages: list[str]) -> Batch:
    return Batch({"text": pa.array(passages, pa.string())}, {"text": {"text"}})


CLASSES = ("all",)
FORM = "form"
EMPTY_TEXT = "empty_text"
_BATCH = 2_000
PARTS = tuple(f'"{name}"' for name in (*UNREAD, *WEIGHTS))
NO_TOOLS = ("[]", "{}", "null")
_SCHEMA = [
    ("row", pa.int64()),
    ("text", pa.string()),
    ("turns", pa.string()),
    ("label", pa.int64()),
    (FORM, pa.string()),
]


def load_chats(source: str | Path, options: RowOptions = DEFAULT_OPTIONS) -> Table:
    """Read a file or a hub data set for a causal language model.

    Rows that cannot be learned from (no answer, an empty one, roles out of order) are dropped, and
    a ``Finding`` for each type counts them. In the options ``text`` are the columns of the prompt,
    or of plain text, and ``label`` that of the answer. Where no label is needed, prompts without an
    answer are kept, as for prediction.

    Raises
    ------
    DataError : the columns cannot be chosen, or no row can be used.
    """
    check_template_name(options.template)
    if is_text_file(source):
        raw = read_passages(source_path(source), options.encoding)
    else:
        raw = read_source(source, options.encoding, options.config)
    raw = options.view(raw) if options.view is not None else raw
    if not len(raw):
        raise DataError(raw.source, "has no rows", None, "Add rows with a chat or a text.")
    with record_decisions() as log:
        columns = choose_chat_columns(raw, options)
        if options.group is not None:
            check_present(raw, options.group)
        if columns.form == "messages":
            _refuse_tools(raw)
        reader = _Reader(raw, columns, options.group, options.need_label, _form(raw, columns))
        rows = reader.write()
    template = None if is_template(options.template) else options.template
    meaning = Columns(columns.text, columns.answer, options.group, template)
    return read_table(raw, rows, CLASSES, meaning, log)


def _form(raw: Raw, columns: ChatColumns) -> str:
    """The form of the rows: that of the columns, or for texts the template they are rendered in."""
    if columns.form != "text" or columns.template is not None:
        return columns.form
    first = raw.table[columns.text[0]].slice(0, SAMPLE).to_pylist()
    form = detect_template([cell or "" for cell in first])
    if form is not None:
        because = "the rows contain the markers of this chat template and are parsed into turns"
        notify(Decision("form of the text", f"chats rendered as {form}", because))
    return form or "text"


def _refuse_tools(raw: Raw) -> None:
    for name in (one for one in TOOLS if one in raw.names):
        cells = raw.table[name].to_pylist()
        row = next((at for at, cell in enumerate(cells) if (cell or "[]") not in NO_TOOLS), None)
        if row is not None:
            raise _unread_part_error(
                f"{raw.source}, row {row}", f"has tools, in the column {name!r}"
            )


def _unread_part_error(source: str, rule: str) -> DataError:
    return DataError(
        source,
        f"{rule}. Holdfast learns only the texts of turns, so it would train on a different chat",
        None,
        "Write what the model must learn into the content of the turns, in the form of your chat "
        "template, or remove these rows or parts from the file.",
    )


def chats_from_prompts(prompts: Sequence[str], like: str) -> Table:
    """A table of prompts in memory, in the form ``like``: prompts, or beginnings of texts."""
    rows = []
    for number, prompt in enumerate(prompts):
        turns: list[Turn] = [] if like == "text" else [{"role": "user", "content": prompt}]
        rows.append(_row_record(number, prompt, turns, like))
    schema = pa.schema(_SCHEMA)
    batch = pa.RecordBatch.from_pylist(rows, schema=schema)
    stored = write_batches("chats", schema, [batch])
    return Table(stored, CLASSES, Columns(("text",), None), "memory", len(prompts))


def _row_record(row: int, text: str | None, turns: list[Turn], form: str) -> dict[str, Any]:
    return {"row": row, "text": text, "turns": json.dumps(turns), "label": 0, FORM: form}


def form_of(table: Table) -> str:
    """``messages``, ``instruction``, ``prompt``, ``text``, or the template that the rows were
    rendered in."""
    return str(table.rows.with_format("arrow")[:1][FORM][0].as_py()) if len(table) else "text"


def read_row_turns(table: Table) -> list[list[Turn]]:
    """The turns of every row; empty lists for plain text."""
    return [json.loads(cell) for cell in table.column("turns")]


@dataclass
class _Reader:
    """One pass over the source, with its findings."""

    raw: Raw
    columns: ChatColumns
    group: str | None
    need_answer: bool
    form: str
    faults: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    cut: Tally = field(default_factory=Tally)
    no_group: Tally = field(default_factory=Tally)
    # Why the first chat that is no list of turns is none.
    unreadable: str | None = None

    def write(self) -> datasets.Dataset:
        """Write the rows to disk; log a finding for dropped rows and cut turns. Refuses a source
        without usable rows, but not one of empty texts to be predicted."""
        schema = pa.schema([*_SCHEMA, *([("group", pa.string())] if self.group else [])])
        rows = write_batches("chats", schema, self._batches(schema))
        if not len(rows) and (self.need_answer or set(self.faults) != {EMPTY_TEXT}):
            raise self._nothing()
        for fault, tally in sorted(self.faults.items()):
            because = (
                f"{count_phrase(tally.count, 'row')} {_fault_in_words(fault)}"
                f"{self._detail(fault)}: dropped ({tally.words()})"
            )
            self._notice(
                fault, "warn", tally, because, "Correct them in the source, if they matter."
            )
        because = (
            f"in {count_phrase(self.cut.count, 'chat')}, the turns after the last trained answer "
            "are not used"
        )
        remedy = "No change is needed, unless an answer is missing by mistake."
        if self.cut.count:
            self._notice(UNANSWERED, "info", self.cut, because, remedy)
        report_missing_groups(self.group, len(self.raw), self.no_group)
        return rows

    def _notice(
        self, check: str, severity: Severity, tally: Tally, because: str, remedy: str
    ) -> None:
        share, rows = tally.count / len(self.raw), tuple(tally.rows)
        notify(Finding(check, severity, share, tally.count, rows, because, remedy, True))

    def _nothing(self) -> DataError:
        fault, tally = max(self.faults.items(), key=lambda item: item[1].count)
        chats = 'Write chats as [{"role": "user", "content": …}, {"role": "assistant", …}]'
        joined = "Merge consecutive turns of the same role, and put the one system turn first"
        remedy = {EMPTY_TEXT: "Add texts", ROLE_ORDER: joined}.get(fault, chats)
        return DataError(
            f"{self.raw.source}, column {', '.join(map(repr, self.columns.text))}",
            f"has no usable row: {count_phrase(tally.count, 'row')} {_fault_in_words(fault)}"
            f"{self._detail(fault)}",
            f"row {tally.rows[0]}",
            f"{remedy}, or name other columns with --text and --label.",
        )

    def _detail(self, fault: str) -> str:
        return f"; in row {self.unreadable}" if fault == NO_CHAT and self.unreadable else ""

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        start = 0
        for batch in self.raw.table.to_batches(max_chunksize=_BATCH):
            yield pa.RecordBatch.from_pylist(list(self._rows(batch, start)), schema=schema)
            start += batch.num_rows

    def _rows(self, batch: pa.RecordBatch, start: int) -> Iterator[dict[str, Any]]:
        names = {*self.columns.text, *filter(None, (self.columns.answer, self.columns.system))}
        cells = {name: batch.column(name) for name in names}
        filled_template = (
            fill_template(self.columns.template, cells) if self.columns.template else None
        )
        values = {name: column.to_pylist() for name, column in cells.items()}
        groups = None
        if self.group:
            rows = pa.array(range(start, start + batch.num_rows))
            groups = group_names(batch.column(self.group), rows).to_pylist()
        for at in range(batch.num_rows):
            row = start + at
            text = filled_template[at].as_py() if filled_template is not None else None
            row_record = self._row(row, {n: v[at] for n, v in values.items()}, text)
            if row_record is not None:
                if groups is not None:
                    row_record["group"] = groups[at]
                    if groups[at].startswith(OWN_GROUP):
                        self.no_group.add_row(row)
                yield row_record

    def _row(
        self, row: int, cells: dict[str, str | None], template_text: str | None
    ) -> dict[str, Any] | None:
        if self.form == "text":
            text = template_text if template_text is not None else cells[self.columns.text[0]]
            if (text or "").strip():
                return _row_record(row, text, [], self.form)
            self.faults[EMPTY_TEXT].add_row(row)
            return None
        turns, fault, cut = clean_turns(self._turns(row, cells, template_text))
        if fault is not None and (fault not in (NO_ANSWER, NO_TRAINED_ANSWER) or self.need_answer):
            self.faults[fault].add_row(row)
            if fault == NO_CHAT and self.form == "messages" and self.unreadable is None:
                why = unreadable_turn(cells[self.columns.text[0]])
                self.unreadable = None if why is None else f"{row:,} {why}"
            return None
        if cut:
            self.cut.add_row(row)
        return _row_record(row, prompt_text(turns), turns, self.form)

    def _turns(
        self, row: int, cells: dict[str, str | None], template_text: str | None
    ) -> list[Turn] | None:
        columns = self.columns
        if self.form == "messages":
            cell = cells[columns.text[0]]
            # Cheap: few chats have any.
            part = unread_part(cell) if any(name in (cell or "") for name in PARTS) else None
            if part is not None:
                raise _unread_part_error(
                    f"{self.raw.source}, row {row}", f"has a turn with {part!r}"
                )
            return read_turns(cell)
        if columns.answer is None and self.form not in ("instruction", "prompt"):
            return parse_rendered(cells[columns.text[0]] or "", self.form)
        # Prompt and answer as turns; either may itself hold a list of turns.
        parts = [cells[name] or "" for name in columns.text]
        question = (
            template_text
            if template_text is not None
            else "\n\n".join(part for part in parts if part.strip())
        )
        answer = cells.get(columns.answer) if columns.answer else None
        system = cells.get(columns.system) if columns.system else None
        turns: list[Turn] = [{"role": "system", "content": system}] if system else []
        turns += _parse_turns(question, "user")
        return turns + (_parse_turns(answer or "", "assistant") if columns.answer else [])


def _parse_turns(text: str, role: str) -> list[Turn]:
    # Nearly all cells are plain text, which needs no parser.
    if text.startswith(("[{", '{"')):
        inner = read_turns(text)
        if inner is not None:
            return inner
    return [{"role": role, "content": text}]


def _fault_in_words(fault: str) -> str:
    return FAULTS.get(fault, "without text")


def check_same_form(table: Table, like: Table) -> Table:
    """``table``, which must be of the form of ``like``; raises ``DataError``."""
    if form_of(table) != form_of(like):
        rule = (
            f"holds rows of the form {form_of(table)!r}, but {like.source} holds {form_of(like)!r}"
        )
        raise DataError(table.source, rule, None, "Give files with rows of the same form.")
    return table
