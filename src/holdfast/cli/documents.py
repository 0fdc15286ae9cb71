"""What each command prints with ``--json``, as shapes: ``holdfast schema`` prints them as JSON
Schema, and the tests check every document that a command prints against them.

A plug-in states the shape of its command's document as ``DOCUMENT`` in the command's module.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from holdfast.core.run_shapes import (
    DECISION,
    ESTIMATE,
    EVENT,
    FINDING_FIELDS,
    FORGETTING,
    MEMORIZATION,
    PLAN_SHAPE,
    RESULT_SHAPE,
    SCORE_FIELDS,
)
from holdfast.core.shapes import (
    Shape,
    anything,
    boolean,
    complete,
    count,
    document,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    record,
    text,
)

ISSUE = {"row": integer, "given": text, "suggested": text, "score": number}
LEAK = {"row": integer, "other_file": text, "other_row": integer, "similarity": number}
AUDIT = document(
    {
        "source": text,
        "task": optional(text),
        "rows": count,
        "columns": record({"text": anything, "label": optional(text), "group": optional(text)}),
        "label_counts": mapping_of(count),
        "findings": list_of(complete(FINDING_FIELDS)),
        "duplicate_groups": list_of(list_of(integer)),
        "label_issues": list_of(complete(ISSUE)),
        "label_next": anything,
        "leaks": list_of(complete(LEAK)),
        "against": list_of(text),
        "looked_at": mapping_of(number),
        "not_looked_at": mapping_of(text),
        "decisions": list_of(DECISION),
        "fixed": anything,
    },
    ("rows", "columns", "label_counts", "findings", "duplicate_groups", "label_issues", "leaks"),
)
EVALUATE = record(
    {**SCORE_FIELDS, **dict.fromkeys(("seen", "against_run", "base", "tasks"), anything)},
    ("n", "metrics"),
)
# A line of the output.
PREDICT = record(
    {
        "row": integer,
        "prediction": anything,
        "confidence": optional(number),
        "probabilities": optional(mapping_of(number)),
    },
    ("row", "prediction"),
)
CHOOSE = document(
    {
        "chosen": text,
        "because": text,
        "told_apart": anything,
        "task": text,
        "metric": text,
        "higher_is_better": boolean,
        **dict.fromkeys(("rows", "valid"), count),
        "models": list_of(record({"name": text}, ("name",))),
        "left_out": list_of(mapping_of(text)),
        "adapted": anything,
        "calibrated": optional(text),
        "seconds": number,
    },
    ("chosen", "because", "metric", "models", "left_out"),
)
POINT = {"rate": number, "loss": number, "smoothed": number}
LR = document(
    {
        **dict.fromkeys(("suggested", "low", "high"), optional(number)),
        "points": list_of(complete(POINT)),
        "because": text,
        "planned": number,
        "phase": text,
        "rows": count,
    },
    ("suggested", "low", "high", "points", "because", "planned", "phase", "rows"),
)
PROBE = document(
    {"memorization": optional(MEMORIZATION), "forgetting": optional(FORGETTING)},
    ("memorization", "forgetting"),
)
ERRORS = document(
    {
        "task": text,
        "slices": mapping_of(anything),
        "what": text,
        "confusions": list_of(mapping_of(anything)),
        "confusions_why": text,
        "hardest": list_of(mapping_of(anything)),
        "nearest_why": text,
        **dict.fromkeys(("worth", "outputs", "topics", "robustness"), anything),
    },
    ("task", "slices", "hardest"),
)
EXPLAIN = document(
    {
        **dict.fromkeys(("run", "source", "task", "taken_away"), text),
        **dict.fromkeys(("n", "not_explained"), count),
        "worth_showing": boolean,
        "faithfulness": mapping_of(mapping_of(anything)),
        "agreement": optional(number),
        "false_alarms": mapping_of(anything),
        "passes": mapping_of(count),
        "notes": list_of(text),
        "rows": list_of(mapping_of(anything)),
    },
    ("run", "task", "n", "worth_showing", "faithfulness", "rows"),
)
FAIRNESS = document(
    {"fairness": mapping_of(anything), "openings": optional(count), "against": anything},
    ("fairness", "openings"),
)
PART = optional(record({"n": count, "answered": count}, ("n",)))
THRESHOLD = document(
    {
        "by": text,
        "asked": anything,
        **dict.fromkeys(("threshold", "broken_in"), optional(number)),
        **dict.fromkeys(("promise", "why", "assumes", "model"), optional(text)),
        "rows_needed": optional(count),
        **dict.fromkeys(("valid", "test"), PART),
        "kept_on_test": optional(boolean),
        **dict.fromkeys(("rule", "highest"), optional(mapping_of(anything))),
        "sure": number,
    },
    ("by", "asked", "sure"),
)
SIDE = record({"name": text, "value": optional(number)}, ("name", "value"))
COMPARE = document(
    {
        "verdict": text,
        "difference": ESTIMATE,
        "rows_to_settle": optional(count),
        "because": text,
        **dict.fromkeys(("a", "b"), SIDE),
        **dict.fromkeys(("margin", "p_value"), optional(number)),
        **dict.fromkeys(("metric", "test"), text),
        "n": count,
        "higher_is_better": boolean,
        "stored_test_rows": boolean,
        "warnings": list_of(text),
        **dict.fromkeys(("equivalence", "differ", "seen", "with_seen", "classes"), anything),
    },
    ("verdict", "difference", "rows_to_settle", "a", "b"),
)

DOCUMENTS: Mapping[str, Shape] = MappingProxyType(
    {
        "result": RESULT_SHAPE,
        "plan": PLAN_SHAPE,
        "event": EVENT,
        **dict.fromkeys(("train", "cv", "tune", "distill"), RESULT_SHAPE),
        "audit": AUDIT,
        "evaluate": EVALUATE,
        "predict": PREDICT,
        "choose": CHOOSE,
        "lr": LR,
        "probe": PROBE,
        "errors": ERRORS,
        "explain": EXPLAIN,
        "fairness": FAIRNESS,
        "threshold": THRESHOLD,
        "compare": COMPARE,
    }
)
