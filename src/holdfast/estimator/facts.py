"""What a saved ``TextClassifier`` keeps beside its model, read with its types checked."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door
from holdfast.core.run_files import check_folder
from holdfast.core.run_shapes import MARK, VERDICT
from holdfast.core.shapes import (
    Shape,
    anything,
    count,
    each,
    maybe,
    parse_object,
    record,
    table,
    text,
)

SAVED = "text_classifier.json"
COPY = "Use a complete copy of what TextClassifier.save wrote."
NEEDED: dict[str, Shape] = {
    "params": table(anything),
    "classes": each(anything),
    "order": each(count),
    "max_length": count,
    "text_columns": maybe(each(text)),
    "verdict": VERDICT,
}
FACTS = record({**NEEDED, "files": maybe(table(MARK))}, tuple(NEEDED))


def read_facts(path: Path) -> dict[str, Any]:
    """What ``save`` wrote beside the model, whose files must be those of then."""
    with door(str(path), ModelError, remedy=COPY):
        facts = parse_object(path.read_text("utf-8"))
        FACTS(facts, "")
        if sorted(facts["order"]) != list(range(len(facts["classes"]))):
            raise ValueError("order must name every class once")
    if facts.get("files") is None:
        warnings.warn(f"{path} holds no SHA-256, so the model was not checked", stacklevel=3)
    check_folder(path.parent, facts.get("files") or {}, "since it was saved", COPY)
    return facts
