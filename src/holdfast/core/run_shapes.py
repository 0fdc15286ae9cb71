"""The types of ``result.json`` and ``events.jsonl``: of what Holdfast writes, and of what it
reads."""

from __future__ import annotations

from holdfast.core.shapes import (
    Shape,
    anything,
    count,
    each,
    either,
    flag,
    maybe,
    number,
    record,
    table,
    text,
    whole,
)

SEAL = "seal"
ESTIMATE = record(
    {
        "value": maybe(number),
        "low": maybe(number),
        "high": maybe(number),
        "level": maybe(number),
        "why": maybe(text),
        "note": maybe(text),
    }
)
# A bare number is an estimate without an interval.
# Null where the metric was not worked out at all.
METRIC = maybe(either(ESTIMATE, number))
METRICS = table(METRIC)
SCORES = record(
    {
        "n": count,
        "metrics": maybe(METRICS),
        "opened_at": maybe(text),
        "confusion": maybe(
            record({"classes": maybe(each(text)), "counts": maybe(each(each(count)))})
        ),
        "per_class": maybe(
            table(record({"n": maybe(count), "precision": METRIC, "recall": METRIC, "f1": METRIC}))
        ),
        "reliability": maybe(
            record(
                {
                    "bins": maybe(
                        each(
                            record(
                                {
                                    "n": maybe(count),
                                    "low": number,
                                    "high": number,
                                    "confidence": maybe(number),
                                    "accuracy": maybe(number),
                                },
                                ("low", "high"),
                            )
                        )
                    )
                }
            )
        ),
    }
)
# Either bound may be open: a number may have a limit on one side alone.
EVIDENCE = record(
    {
        "name": text,
        "value": maybe(number),
        "low": maybe(number),
        "high": maybe(number),
        "at_step": maybe(number),
    },
    ("name",),
)
SET_SCORE = record({"value": maybe(number), "n": count}, ("value", "n"))
COMPARED_SETS = record(
    {
        **dict.fromkeys(("metric", "test", "why", "because", "likelier_luck"), maybe(text)),
        **dict.fromkeys(("valid", "test_rows"), SET_SCORE),
        **dict.fromkeys(("difference", "together"), maybe(ESTIMATE)),
        **dict.fromkeys(("p_value", "confidence_before"), maybe(number)),
        "out_of_fold": maybe(flag),
    }
)
VERDICT_FIELDS: dict[str, Shape] = {
    "label": text,
    "because": text,
    "confidence": number,
    "since_step": maybe(number),
    "cause": maybe(text),
    "harm": maybe(text),
    "evidence": each(EVIDENCE),
    "remedies": each(record({"do": text, "set": each(text)}, ("do",))),
    "test_agrees": maybe(flag),
    "test_comparison": maybe(COMPARED_SETS),
}
VERDICT = record(VERDICT_FIELDS, ("label", "because", "confidence"))
BASELINE = record({"what": text, "test": maybe(SCORES)})
COMPARISON = record(
    {"metric": maybe(text), "difference": METRIC, "p_value": maybe(number), "because": maybe(text)}
)
ROW = record(
    {"row": maybe(either(whole, text)), "confidence": maybe(number), "loss": maybe(number)}
)
FINDING = record(
    {
        "check": text,
        "severity": text,
        "score": maybe(number),
        "count": maybe(count),
        "rows": maybe(each(anything)),
        "because": text,
        "remedy": text,
    }
)
DECISION = record({"what": text, "because": text}, ("what",))
MARK = record({"sha256": text, "bytes": count}, ("sha256", "bytes"))
# What decides whether a run may take another's place.
GATE = record({"decision": text, "because": text}, ("decision", "because"))
UPDATE = record({"from": text, "gate": maybe(GATE)}, ("from",))
RESULT_SHAPE = record(
    {
        "schema": whole,
        "holdfast": text,
        "task": maybe(text),
        "model": maybe(text),
        "classes": maybe(each(text)),
        "problem": maybe(text),
        "trainer": maybe(anything),
        "loss_unit": maybe(text),
        "data": record(
            {
                **dict.fromkeys(
                    ("rows", "used", "train", "valid", "test", "dropped"), maybe(count)
                ),
                "findings": maybe(each(FINDING)),
            }
        ),
        "test": SCORES,
        "valid": SCORES,
        "train_probe": SCORES,
        "plain_part": maybe(record({"test": maybe(SCORES)})),
        "sources": maybe(table(SCORES)),
        "baseline": maybe(
            record(
                {
                    "what": maybe(text),
                    "test": maybe(SCORES),
                    "all": maybe(each(BASELINE)),
                    "comparison": maybe(COMPARISON),
                }
            )
        ),
        "verdict": VERDICT,
        "best_step": maybe(whole),
        "last_step": maybe(whole),
        "stopped_because": maybe(text),
        "actions": maybe(each(record({"step": maybe(whole), "action": text, "because": text}))),
        "decisions": maybe(each(DECISION)),
        "division": maybe(
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
                        maybe(count),
                    ),
                    "notes": maybe(each(anything)),
                    "per_class": maybe(
                        table(record(dict.fromkeys(("train", "valid", "test"), maybe(count))))
                    ),
                }
            )
        ),
        "hardest": maybe(record({"loss": maybe(each(ROW)), "confidently_wrong": maybe(each(ROW))})),
        "generations": maybe(
            record(
                {
                    "test": maybe(each(ROW)),
                    "train": maybe(each(ROW)),
                    "scores": maybe(table(METRICS)),
                    "counts": maybe(table(table(maybe(number)))),
                    "meaning": maybe(table(anything)),
                    "settings": maybe(record({"beams": maybe(count)})),
                }
            )
        ),
        "careless": maybe(record({"random_split": METRIC, "honest": METRIC})),
        "probes": maybe(table(anything)),
        "update": maybe(UPDATE),
        "timing": maybe(table(maybe(number))),
        "peak_memory_mb": maybe(number),
        "model_facts": maybe(record({"temperature": maybe(number)})),
        "versions": maybe(table(anything)),
        "machine": maybe(table(anything)),
        "settings": maybe(
            record(
                {
                    "data": maybe(table(anything)),
                    "model": maybe(record({"adapter": maybe(table(anything))})),
                }
            )
        ),
        SEAL: record(
            {"files": table(MARK), "base": maybe(table(MARK)), "result": text}, ("files", "result")
        ),
    },
    ("schema",),
)

NUMBERS = maybe(table(maybe(number)))
BRANCH = record(
    {"number": count, "parent": maybe(count), "from_step": whole}, ("number", "parent", "from_step")
)
EVENT_SHAPES: dict[str, Shape] = {
    "snapshot": record(
        {
            "step": whole,
            "train_metrics": NUMBERS,
            "valid_metrics": NUMBERS,
            "phase": maybe(text),
            "outputs": maybe(table(NUMBERS)),
            "branch": maybe(BRANCH),
            "loss_unit": maybe(text),
            **dict.fromkeys(
                ("train_rows", "valid_rows", "train_tokens", "valid_tokens", "planned_steps"),
                maybe(count),
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
                maybe(number),
            ),
        },
        ("step",),
    ),
    "verdict": record(
        {"step": whole, **VERDICT_FIELDS}, ("step", "label", "because", "confidence")
    ),
    "action": record(
        {"step": whole, "action": text, "because": text, "branch": maybe(BRANCH)},
        ("step", "action"),
    ),
    "note": record({"step": whole, "what": text, "because": text}),
}
