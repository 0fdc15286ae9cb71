"""By which name a finished run's model is known where it serves."""

from __future__ import annotations

from pathlib import Path

from holdfast.pipeline.folder import open_run
from holdfast.pipeline.threshold_file import model_mark

DIGITS = 8
UNSEALED = "unsealed"


def served_name(run: Path) -> str:
    """``NAME@MARK``: the folder's name and the beginning of the sum of its model's files, so that a
    folder that was moved is still the same model. Raises ``RunError`` for no finished run."""
    mark = model_mark(open_run(run)) or UNSEALED
    return f"{run.resolve().name}@{mark[:DIGITS]}"
