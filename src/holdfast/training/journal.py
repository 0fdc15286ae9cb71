"""``events.jsonl``: what a run observed, decided and did, one JSON object per line, in order."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.decisions import notify
from holdfast.core.errors import RunError
from holdfast.core.files import disk_errors, write_text
from holdfast.core.input_errors import REPORT_IT
from holdfast.core.records import Decision, to_json
from holdfast.core.run_files import drop_defects
from holdfast.core.run_shapes import EVENT_SHAPES
from holdfast.core.shapes import anything

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "events.jsonl"


class Journal:
    """Appends lines, each flushed, so that a killed run keeps what it wrote.

    A checkpoint stores ``text``, every line so far. A resume restores the file to exactly that, so
    nothing after the checkpoint is written twice, and a file that was damaged or lost meanwhile is
    complete again. Only the main process writes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / NAME if folder else None
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """All lines that this run has written, including earlier processes."""
        return "".join(self._lines)

    def write(self, event: str, step: int, **fields: object) -> None:
        """Append a line, in the shape in which it will be read. A detail of another shape is left
        out, and a note says so."""
        if self._path is None:
            return
        line = {"event": event, "step": step, **to_json(fields)}
        valid_line, invalid = drop_defects(line, EVENT_SHAPES.get(event, anything))
        self._append(valid_line)
        for detail in invalid:
            self.note(step, f"a detail of this {event} left out", f"{REPORT_IT}: {detail}")

    def _append(self, record: Mapping[str, object]) -> None:
        assert self._path is not None
        line = json.dumps(record, ensure_ascii=False)
        # A lone surrogate (for example in a file name) has no UTF-8 encoding.
        line = line.encode("utf-8", "replace").decode() + "\n"
        self._lines.append(line)
        with disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()

    def note(self, step: int, what: str, because: str, **fields: object) -> None:
        self.write("note", step, what=what, because=because, **fields)

    def note_decisions(self, step: int, *decisions: Decision, **fields: object) -> None:
        for decision in decisions:
            self.note(step, decision.what, decision.because, chosen=decision.chosen, **fields)

    def decide(self, step: int, decision: Decision) -> None:
        """Record a decision and notify the listeners."""
        self.note_decisions(step, decision)
        notify(decision)

    def restore(self, text: str) -> str | None:
        """Make the file contain exactly ``text``.

        Returns what was wrong with it, or ``None`` where it began with ``text``. Raises
        ``RunError`` where the path is a folder.
        """
        self._lines = [text] if text else []
        if self._path is None:
            return None
        if self._path.is_dir():
            rule = "is a folder, but must be the file of the run's events"
            remedy = "Move it away; the next --resume writes the file again."
            raise RunError(str(self._path), rule, None, remedy)
        expected, stored = text.encode(), _bytes(self._path)
        if stored is not None and stored.startswith(expected):
            if len(stored) > len(expected):
                os.truncate(self._path, len(expected))
            return None
        if stored is None and not expected:
            return None
        write_text(self._path, text)
        if stored is None:
            return "is missing, or cannot be read"
        return "is shorter than it was" if expected.startswith(stored) else "was changed"

    def lines(self) -> list[dict[str, Any]]:
        """The objects in the file, where it exists. A line that is not an object is skipped, such
        as a line cut off when the run was killed."""
        stored = _bytes(self._path) if self._path is not None else None
        return [line for text in (stored or b"").split(b"\n") if (line := _parse_object(text))]


def restore_journal(
    journal: Journal, text: str, step: int, checkpoint_decisions: Sequence[Decision]
) -> None:
    """Restore the journal to the checkpoint of ``step``; report and record what this required, and
    the decisions ``checkpoint_decisions`` about the checkpoint."""
    problem = journal.restore(text)
    decisions = list(checkpoint_decisions)
    if problem is not None:
        because = (
            f"{NAME} {problem}; its lines up to step {step} come from the checkpoint, and the "
            "lines that a killed run wrote after it are lost"
        )
        decisions.append(Decision("journal", "written again", because, prominent=True))
        notify(decisions[-1])
    journal.note_decisions(step, *decisions)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _parse_object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
