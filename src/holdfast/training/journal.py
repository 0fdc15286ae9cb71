"""``events.jsonl``: what a run saw, judged and did, one JSON object a line, in order."""

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

    A checkpoint keeps ``text``, every line so far; a resume makes the file hold just that, so that
    what happened after the checkpoint is not written twice, and a file that was damaged or lost
    meanwhile is whole again. A process that is not the main one writes nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / NAME if folder else None
        self._lines: list[str] = []

    @property
    def text(self) -> str:
        """What this run has written, over all its processes in time."""
        return "".join(self._lines)

    def write(self, event: str, step: int, **fields: object) -> None:
        """Append a line, of the shape that it will be read by; a detail that is not is left out,
        and a note says so."""
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
        # A lone surrogate (of a file's name, say) has no bytes in UTF-8.
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
        """Note what was decided, and let whoever listens know."""
        self.note_decisions(step, decision)
        notify(decision)

    def restore(self, text: str) -> str | None:
        """Make the file hold ``text`` and nothing behind it.

        Gives what was wrong with it, or ``None`` where it began with ``text``. Raises ``RunError``
        where a folder is in its place.
        """
        self._lines = [text] if text else []
        if self._path is None:
            return None
        if self._path.is_dir():
            raise RunError(
                str(self._path),
                "is a folder, and the run's events belong there",
                None,
                "Take it away; the next --resume writes the file again.",
            )
        expected, stored = text.encode(), _bytes(self._path)
        if stored is not None and stored.startswith(expected):
            if len(stored) > len(expected):
                os.truncate(self._path, len(expected))
            return None
        if stored is None and not expected:
            return None
        write_text(self._path, text)
        if stored is None:
            return "is gone, or cannot be read"
        return "is shorter than it was" if expected.startswith(stored) else "was changed"

    def lines(self) -> list[dict[str, Any]]:
        """The objects in the file, where there is one; what is no object (the torn line of a kill)
        is passed over."""
        stored = _bytes(self._path) if self._path is not None else None
        return [line for text in (stored or b"").split(b"\n") if (line := _parse_object(text))]


def restore_journal(
    journal: Journal, text: str, step: int, checkpoint_decisions: Sequence[Decision]
) -> None:
    """The journal as it was at the checkpoint of ``step``; what had to be done for it is told, and
    noted with what was ``checkpoint_decisions`` of the checkpoint."""
    problem = journal.restore(text)
    decisions = list(checkpoint_decisions)
    if problem is not None:
        because = (
            f"{NAME} {problem}; what stood there up to step {step} comes from the checkpoint, "
            "and what a killed run noted after it is lost"
        )
        decisions.append(Decision("journal", "written again", because))
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
