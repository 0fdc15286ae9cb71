"""Rows of a chat, of an instruction, of a prompt, of rendered chats or of plain text → a ``Table``.

Columns of its rows: ``row``; ``text``, what was asked (or the text), in which copies are looked
for; ``turns``, the turns as JSON (empty for plain text); ``label``, always 0; ``group``.
``classes`` is ``("all",)``. The table's form is ``form_of(table)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from holdfast.core.errors import DataError
from holdfast.core.files import disk_errors
from holdfast.core.records import Decision, Finding
from holdfast.data.chats.columns import ChatColumns, choose_chat_columns
from holdfast.data.chats.passages import is_text_file, read_passages
from holdfast.data.chats.templates import check_given, is_template
from holdfast.data.chats.templates_parsed import SAMPLE, parse_rendered, rendered_as
from holdfast.data.chats.turns import (
    FAULTS,
    NO_ANSWER,
    TOOLS,
    UNANSWERED,
    UNREAD,
    WEIGHTS,
    Turn,
    asked,
    read_turns,
    settle,
    unread_part,
)
from holdfast.data.clean import Tally
from holdfast.data.columns.roles import check_present
from holdfast.data.columns.template import fill_template
from holdfast.data.paths import source_path
from holdfast.data.raw import Raw
from holdfast.data.scratch import scratch_file, stored_rows
from holdfast.data.source import read_source
from holdfast.data.table import Columns, Table

CLASSES = ("all",)
FORM = "form"
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


def load_chats(
    source: str | Path,
    *,
    messages: str | None = None,
    text: Sequence[str] | None = None,
    label: str | None = None,
    template: str | None = None,
    group: str | None = None,
    encoding: str | None = None,
    config: str | None = None,
    need_answer: bool = True,
    view: Callable[[Raw], Raw] | None = None,
) -> Table:
    """Read a file or a hub data set for a causal language model.

    Rows that cannot be learned from (no answer, an empty one, roles out of order) are left out,
    and a ``Finding`` for each kind counts them.

    Parameters
    ----------
    messages : the column of chats; ``text`` the columns of the question, or of plain text;
        ``label`` the column of the answer; worked out from their names where left out.
    template : a chat template (see ``chat_templates``), or a text made of columns.
    need_answer : if false, questions without an answer stay, as they do for prediction.
    view : gives the source's columns other names before anything looks at it.

    Raises
    ------
    DataError : the columns cannot be told, or no row can be used.
    """
    check_given(template)
    if is_text_file(source):
        raw = read_passages(source_path(source), encoding)
    else:
        raw = read_source(source, encoding, config)
    raw = view(raw) if view is not None else raw
    if not len(raw):
        raise DataError(raw.source, "has no rows", None, "It needs rows with a chat or a text.")
    columns, decisions = choose_chat_columns(
        raw, messages=messages, text=text, label=label, template=template, need_answer=need_answer
    )
    if group is not None:
        check_present(raw, group)
    if columns.form == "messages":
        _refuse_tools(raw)
    reader = _Reader(raw, columns, group, need_answer)
    rows = reader.write()
    if not len(rows):
        raise _nothing(raw, reader)
    meaning = Columns(
        columns.text, columns.answer, group, None if is_template(template) else template
    )
    return Table(
        rows,
        CLASSES,
        meaning,
        raw.source,
        len(raw),
        findings=reader.findings(),
        decisions=(*raw.decisions, *decisions, *reader.decisions()),
    )


def _refuse_tools(raw: Raw) -> None:
    for name in (one for one in TOOLS if one in raw.names):
        cells = raw.table[name].to_pylist()
        row = next((at for at, cell in enumerate(cells) if (cell or "[]") not in NO_TOOLS), None)
        if row is not None:
            raise _unread(f"{raw.source}, row {row}", f"has tools, in the column {name!r}")


def _unread(what: str, rule: str) -> DataError:
    return DataError(
        what,
        f"{rule}, and the texts of turns alone are learned: the chat would be another one",
        None,
        "Write what the model is to learn into the content of the turns, as your chat template has "
        "it, or take such rows or parts out of the file.",
    )


def chats_from_prompts(prompts: Sequence[str], like: str) -> Table:
    """A table of prompts in memory, in the form ``like``: questions, or beginnings of texts."""
    raw_rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(prompts):
        turns: list[Turn] = [] if like == "text" else [{"role": "user", "content": prompt}]
        raw_rows.append(
            {"row": number, "text": prompt, "turns": json.dumps(turns), "label": 0, FORM: like}
        )
    rows = _stored(iter([raw_rows]), pa.schema(_SCHEMA))
    return Table(rows, CLASSES, Columns(("text",), None), "memory", len(prompts))


def form_of(table: Table) -> str:
    """``messages``, ``instruction``, ``prompt``, ``text``, or the template that the rows were
    rendered in."""
    return str(table.rows.with_format("arrow")[:1][FORM][0].as_py()) if len(table) else "text"


def turns_of(table: Table) -> list[list[Turn]]:
    """The turns of every row; empty lists for plain text."""
    return [json.loads(cell) for cell in table.column("turns")]


@dataclass
class _Reader:
    """One pass over the source, with what was found on the way."""

    raw: Raw
    columns: ChatColumns
    group: str | None
    need_answer: bool
    form: str = ""
    faults: dict[str, Tally] = field(default_factory=dict)
    cut: Tally = field(default_factory=Tally)

    def write(self) -> Any:
        self.form = self._form()
        fields = [*_SCHEMA, *([("group", pa.string())] if self.group else [])]
        return _stored(self._batches(), pa.schema(fields))

    def _form(self) -> str:
        if self.columns.form != "text" or self.columns.template is not None:
            return self.columns.form
        first = self.raw.table[self.columns.text[0]].slice(0, SAMPLE).to_pylist()
        return rendered_as([cell or "" for cell in first]) or "text"

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        start = 0
        for batch in self.raw.table.to_batches(max_chunksize=_BATCH):
            yield list(self._rows(batch, start))
            start += batch.num_rows

    def _rows(self, batch: pa.RecordBatch, start: int) -> Iterator[dict[str, Any]]:
        names = {*self.columns.text, *filter(None, (self.columns.answer, self.columns.system))}
        cells = {name: batch.column(name) for name in names}
        made = fill_template(self.columns.template, cells) if self.columns.template else None
        values = {name: column.to_pylist() for name, column in cells.items()}
        groups = batch.column(self.group).to_pylist() if self.group else None
        for at in range(batch.num_rows):
            row = start + at
            whole = made[at].as_py() if made is not None else None
            kept = self._one(row, {n: v[at] for n, v in values.items()}, whole)
            if kept is not None:
                if groups is not None:
                    kept["group"] = groups[at] or f"(no group) row {row}"
                yield kept

    def _one(
        self, row: int, cells: dict[str, str | None], made: str | None
    ) -> dict[str, Any] | None:
        if self.form == "text":
            text = made if made is not None else cells[self.columns.text[0]]
            if not (text or "").strip():
                self._leave(row, "empty_text")
                return None
            return {"row": row, "text": text, "turns": "[]", "label": 0, FORM: self.form}
        turns, fault, cut = settle(self._turns(row, cells, made))
        if fault == NO_ANSWER and not self.need_answer:
            fault = None
        if fault is not None:
            self._leave(row, fault)
            return None
        if cut:
            self.cut.add(pa.array([row]))
        return {
            "row": row,
            "text": asked(turns),
            "turns": json.dumps(turns),
            "label": 0,
            FORM: self.form,
        }

    def _turns(self, row: int, cells: dict[str, str | None], made: str | None) -> list[Turn] | None:
        columns = self.columns
        if self.form == "messages":
            cell = cells[columns.text[0]]
            # Cheap: nearly no chat has any.
            part = unread_part(cell) if any(name in (cell or "") for name in PARTS) else None
            if part is not None:
                raise _unread(f"{self.raw.source}, row {row}", f"has a turn with {part!r}")
            return read_turns(cell)
        if columns.answer is None and self.form not in ("instruction", "prompt"):
            return parse_rendered(cells[columns.text[0]] or "", self.form)
        # Question and answer as turns; either may itself hold a list of turns.
        parts = [cells[name] or "" for name in columns.text]
        question = made if made is not None else "\n\n".join(part for part in parts if part.strip())
        answer = cells.get(columns.answer) if columns.answer else None
        system = cells.get(columns.system) if columns.system else None
        turns: list[Turn] = [{"role": "system", "content": system}] if system else []
        turns += _as_turns(question, "user")
        return turns + (_as_turns(answer or "", "assistant") if columns.answer else [])

    def _leave(self, row: int, fault: str) -> None:
        self.faults.setdefault(fault, Tally()).add(pa.array([row]))

    def findings(self) -> tuple[Finding, ...]:
        """One finding for each kind of row that was left out or cut."""
        total = len(self.raw)
        found = [
            Finding(
                fault,
                "warn",
                tally.count / total,
                tally.count,
                tuple(tally.rows),
                f"{tally.count} rows {_fault_in_words(fault)}: left out",
                "Correct them in the source, if they matter.",
                True,
            )
            for fault, tally in sorted(self.faults.items())
        ]
        if self.cut.count:
            found.append(
                Finding(
                    UNANSWERED,
                    "info",
                    self.cut.count / total,
                    self.cut.count,
                    tuple(self.cut.rows),
                    f"{self.cut.count} chats go on after their last answer; what follows it is not "
                    "learned",
                    "Nothing to do, unless the answers are missing by mistake.",
                    True,
                )
            )
        return tuple(found)

    def decisions(self) -> tuple[Decision, ...]:
        if self.form == self.columns.form:
            return ()
        because = "its rows hold the marks of this chat template; they are parsed back to turns"
        return (Decision("form of the text", f"chats rendered as {self.form}", because),)


def _as_turns(text: str, role: str) -> list[Turn]:
    # Nearly all are plain texts, which need no parser.
    if text.startswith(("[{", '{"')):
        inner = read_turns(text)
        if inner is not None:
            return inner
    return [{"role": role, "content": text}]


def _fault_in_words(fault: str) -> str:
    return FAULTS.get(fault, "hold no text")


def _stored(batches: Iterator[list[dict[str, object]]], schema: pa.Schema) -> Any:

    path = scratch_file("chats")
    with disk_errors(path), pa.ipc.new_stream(str(path), schema) as target:
        for rows in batches:
            target.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return stored_rows(path)


def _nothing(raw: Raw, reader: _Reader) -> DataError:
    fault, tally = max(reader.faults.items(), key=lambda item: item[1].count)
    return DataError(
        f"{raw.source}, column {', '.join(map(repr, reader.columns.text))}",
        f"has no row that can be learned from: {tally.count} rows {_fault_in_words(fault)}",
        f"row {tally.rows[0]}",
        'Write chats as [{"role": "user", "content": …}, {"role": "assistant", …}], or '
        "name other columns with --text and --label.",
    )


def same_form(table: Table, like: Table) -> Table:
    """``table``, which must be of the form of ``like``; raises ``DataError``."""
    if form_of(table) != form_of(like):
        raise DataError(
            table.source,
            f"holds rows of the form {form_of(table)!r}, not {form_of(like)!r} as {like.source}",
            None,
            "Give files of the same shape.",
        )
    return table
