"""``events.jsonl``: what a run saw, judged and did, one JSON object a line, in order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from holdfast.core.files import disk_errors
from holdfast.core.records import to_json

NAME = "events.jsonl"


class Journal:
    """Appends lines, each flushed, so that a killed run keeps what it wrote.

    A checkpoint remembers ``size``; a resume cuts the file back to it, so that what happened
    after the checkpoint is not written twice. A process that is not the main one writes nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / NAME if folder else None

    @property
    def size(self) -> int:
        return self._path.stat().st_size if self._path and self._path.exists() else 0

    def write(self, event: str, step: int, **fields: Any) -> None:
        if self._path is None:
            return
        line = json.dumps(to_json({"event": event, "step": step, **fields}), ensure_ascii=False)
        with disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()

    def note(self, step: int, what: str, because: str, **fields: Any) -> None:
        self.write("note", step, what=what, because=because, **fields)

    def cut(self, size: int) -> None:
        """Forget everything after the first ``size`` bytes."""
        if self._path is not None and self.size > size:
            os.truncate(self._path, size)

    def lines(self) -> list[dict[str, Any]]:
        if self._path is None or not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text("utf-8").split("\n") if line]
