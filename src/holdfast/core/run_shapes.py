"""The types of ``result.json`` and ``events.jsonl``, for writing and for reading."""

from __future__ import annotations

from holdfast.core.shapes import (
    Shape,
    ShapeError,
    anything,
    boolean,
    count,
    integer,
    list_of,
    mapping_of,
    number,
    one_of,
    optional,
    record,
    text,
)

SEAL = "seal"
ESTIMATE = record(
    {
        "value": optional(number),
        "low": optional(number),
        "high": optional(number),
        "level": optional(number),
        "why": optional(text),
        "note": optional(text),
    }
).named("estimate")
# A bare number is an estimate without an interval.
# Null where the metric was not worked out at all.
METRIC = optional(one_of(ESTIMATE, number))
METRICS = mapping_of(METRIC)
SCORE_FIELDS: dict[str, Shape] = {
    "n": count,
    # Where intervals count groups, or different texts, instead of rows.
    "groups": optional(count),
    "texts": optional(count),
    "metrics": optional(METRICS),
    "opened_at": optional(text),
    "confusion": optional(
        record({"classes": optional(list_of(text)), "counts": optional(list_of(list_of(count)))})
    ),
    "per_class": optional(
        mapping_of(
            record({"n": optional(count), "precision": METRIC, "recall": METRIC, "f1": METRIC})
        )
    ),
    "reliability": optional(
        record(
            {
                "bins": optional(
                    list_of(
                        record(
                            {
                                "n": optional(count),
                                "low": number,
                                "high": number,
                                "confidence": optional(number),
                                "accuracy": optional(number),
                            },
                            ("low", "high"),
                        )
                    )
                )
            }
        )
    ),
}
SCORES = record(SCORE_FIELDS)
# Either bound may be open: a number may have a limit on one side alone.
EVIDENCE = record(
    {
        "name": text,
        "value": optional(number),
        "low": optional(number),
        "high": optional(number),
        "at_step": optional(number),
    },
    ("name",),
).named("scores")
SET_SCORE = record({"value": optional(number), "n": count}, ("value", "n"))
COMPARED_SETS = record(
    {
        **dict.fromkeys(("metric", "test", "why", "because", "likelier_luck"), optional(text)),
        **dict.fromkeys(("valid", "test_rows"), SET_SCORE),
        **dict.fromkeys(("difference", "together"), optional(ESTIMATE)),
        **dict.fromkeys(("p_value", "confidence_before"), optional(number)),
        "out_of_fold": optional(boolean),
    }
).named("evidence")
VERDICT_FIELDS: dict[str, Shape] = {
    "label": text,
    "because": text,
    "confidence": number,
    "since_step": optional(number),
    "cause": optional(text),
    "harm": optional(text),
    "evidence": list_of(EVIDENCE),
    "remedies": list_of(record({"do": text, "set": list_of(text)}, ("do",))),
    "test_agrees": optional(boolean),
    "test_comparison": optional(COMPARED_SETS),
}
VERDICT = record(VERDICT_FIELDS, ("label", "because", "confidence"))
BASELINE = record({"what": text, "test": optional(SCORES)})
COMPARISON = record(
    {
        "metric": optional(text),
        "difference": METRIC,
        "p_value": optional(number),
        "because": optional(text),
    }
).named("verdict")
COMPARED_BASELINE = record(
    {
        "what": optional(text),
        "test": optional(SCORES),
        "all": optional(list_of(BASELINE)),
        "comparison": optional(COMPARISON),
    }
)
ROW = record(
    {
        "row": optional(one_of(integer, text)),
        "confidence": optional(number),
        "loss": optional(number),
    }
).named("row")
FINDING_FIELDS: dict[str, Shape] = {
    "check": text,
    "severity": text,
    "score": optional(number),
    "count": optional(count),
    "rows": optional(list_of(anything)),
    "because": text,
    "remedy": text,
    "fixed": boolean,
}
FINDING = record(FINDING_FIELDS)
DECISION = record({"what": text, "because": text}, ("what",))
MARK = record({"sha256": text, "bytes": count}, ("sha256", "bytes"))
MEMORIZATION = record(
    {
        "auc": ESTIMATE,
        "tpr": list_of(record({"at_fpr": number, "value": optional(number)}, ("at_fpr", "value"))),
        "blind_auc": ESTIMATE,
        "exposed": list_of(mapping_of(anything)),
        "verdict": text,
        "because": text,
        **dict.fromkeys(("members", "others"), count),
        **dict.fromkeys(("extraction", "canaries"), anything),
    },
    ("auc", "tpr", "blind_auc", "exposed"),
).named("finding")
FORGETTING = mapping_of(anything)
# What decides whether a run may take another's place.
GATE = record({"decision": text, "because": text}, ("decision", "because"))
UPDATE = record({"from": text, "gate": optional(GATE)}, ("from",))
RESULT_SHAPE = record(
    {
        "schema": integer,
        "holdfast": text,
        "task": optional(text),
        "model": optional(text),
        "classes": optional(list_of(text)),
        "problem": optional(text),
        "trainer": optional(anything),
        "loss_unit": optional(text),
        "data": record(
            {
                **dict.fromkeys(
                    ("rows", "used", "train", "valid", "test", "dropped"), optional(count)
                ),
                "findings": optional(list_of(FINDING)),
            }
        ),
        "test": SCORES,
        "valid": record(
            {
                **SCORE_FIELDS,
                "out_of_fold": optional(boolean),
                "folds": optional(count),
                "baseline": optional(COMPARED_BASELINE),
            }
        ),
        "train_probe": SCORES,
        "plain_part": optional(record({"test": optional(SCORES)})),
        "sources": optional(mapping_of(SCORES)),
        "baseline": optional(COMPARED_BASELINE),
        "verdict": VERDICT,
        "best_step": optional(integer),
        "last_step": optional(integer),
        "stopped_because": optional(text),
        "actions": optional(
            list_of(record({"step": optional(integer), "action": text, "because": text}))
        ),
        "decisions": optional(list_of(DECISION)),
        "division": optional(
            record(
                {
                    **dict.fromkeys(
                        (
                            "train",
                            "valid",
                            "test",
                            "dropped",
                            "copy_groups",
                            "rows_in_copies",
                            "moved",
                        ),
                        optional(count),
                    ),
                    "notes": optional(list_of(anything)),
                    "per_class": optional(
                        mapping_of(
                            record(dict.fromkeys(("train", "valid", "test"), optional(count)))
                        )
                    ),
                }
            )
        ),
        "hardest": optional(
            record({"loss": optional(list_of(ROW)), "confidently_wrong": optional(list_of(ROW))})
        ),
        "generations": optional(
            record(
                {
                    "test": optional(list_of(ROW)),
                    "train": optional(list_of(ROW)),
                    "scores": optional(mapping_of(METRICS)),
                    "counts": optional(mapping_of(mapping_of(optional(number)))),
                    "meaning": optional(mapping_of(anything)),
                    "settings": optional(record({"beams": optional(count)})),
                }
            )
        ),
        "careless": optional(record({"random_split": METRIC, "honest": METRIC})),
        "probes": optional(mapping_of(anything)),
        "update": optional(UPDATE),
        "timing": optional(mapping_of(optional(number))),
        "peak_memory_mb": optional(number),
        "model_facts": optional(record({"temperature": optional(number)})),
        "versions": optional(mapping_of(anything)),
        "machine": optional(mapping_of(anything)),
        "settings": optional(
            record(
                {
                    "data": optional(mapping_of(anything)),
                    "model": optional(record({"adapter": optional(mapping_of(anything))})),
                }
            )
        ),
        SEAL: record(
            {"files": mapping_of(MARK), "base": optional(mapping_of(MARK)), "result": text},
            ("files", "result"),
        ),
    },
    ("schema",),
).named("decision")

# What ``--dry-run --json`` prints.
PLAN_SHAPE = record(
    {
        "rows": count,
        "division": record(dict.fromkeys(("train", "valid", "test"), count)),
        "classes": list_of(text),
        "findings": list_of(FINDING),
        "decisions": list_of(DECISION),
        "phases": list_of(mapping_of(anything)),
        "evaluate_at": list_of(integer),
        "parameters": mapping_of(number),
        "memory_mb": mapping_of(number),
        "memory_limit": text,
        "time_s": mapping_of(number),
        "settings": mapping_of(anything),
    },
    ("rows", "division"),
)

NUMBERS = optional(mapping_of(optional(number)))
BRANCH = record(
    {"number": count, "parent": optional(count), "from_step": integer},
    ("number", "parent", "from_step"),
)
EVENT_SHAPES: dict[str, Shape] = {
    "snapshot": record(
        {
            "step": integer,
            "train_metrics": NUMBERS,
            "valid_metrics": NUMBERS,
            "phase": optional(text),
            "outputs": optional(mapping_of(NUMBERS)),
            "branch": optional(BRANCH),
            "loss_unit": optional(text),
            **dict.fromkeys(
                ("train_rows", "valid_rows", "train_tokens", "valid_tokens", "planned_steps"),
                optional(count),
            ),
            **dict.fromkeys(
                (
                    "epoch",
                    "seconds",
                    "train_loss",
                    "valid_loss",
                    "refined_loss",
                    "temperature",
                    "learning_rate",
                    "gradient_norm",
                    "relative_update",
                    "distance",
                ),
                optional(number),
            ),
        },
        ("step",),
    ),
    "verdict": record(
        {"step": integer, **VERDICT_FIELDS}, ("step", "label", "because", "confidence")
    ),
    "action": record(
        {"step": integer, "action": text, "because": text, "branch": optional(BRANCH)},
        ("step", "action"),
    ),
    "note": record({"step": integer, "what": text, "because": text}),
}


def _check_event(value: object, where: str) -> None:
    mapping_of(anything).check(value, where)
    kind = value.get("event") if isinstance(value, dict) else None
    if kind not in EVENT_SHAPES:
        raise ShapeError(f"{where}.event" if where else "event", "a known event", kind)
    EVENT_SHAPES[kind].check(value, where)


EVENT = Shape(
    _check_event,
    {
        "oneOf": [
            {"properties": {"event": {"const": kind}}, "required": ["event"], "allOf": [one.schema]}
            for kind, one in EVENT_SHAPES.items()
        ]
    },
)
