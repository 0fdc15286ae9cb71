"""The text of ``--dry-run``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from holdfast.core.wording import count_phrase, percent_phrase, seconds_phrase
from holdfast.terminal.layout import entries, short_count

SEVERITIES = {"error": "error", "warn": "warning", "info": "remark"}


def plan_text(
    plan: Mapping[str, Any], columns: int, *, quiet: bool = False, with_findings: bool = False
) -> str:
    """The plan in a dozen lines; the findings follow it ``with_findings``, and were else printed
    before it, unless ``quiet``."""
    split, parameters, memory = plan["division"], plan["parameters"], plan["memory_mb"]
    classes, steps = len(plan["classes"] or ()), plan["evaluate_at"]
    trainable, total = short_count(parameters["trainable"]), short_count(parameters["total"])
    share = f"{trainable} of {total} parameters"
    at = f"at {'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps))}"
    parts = ", ".join(
        f"{name} {memory[name]:,.0f}"
        for name in ("weights", "gradients", "optimizer", "activations")
    )
    folded = "training and validation" if not split["valid"] else "training"
    sizes = f"{folded} {split['train']:,}"
    sizes += f", validation {split['valid']:,}" if split["valid"] else " (cross-fitting)"
    removed = plan["rows"] - sum(split.values())
    sizes += f", test {split['test']:,}{f'; {removed:,} removed' if removed > 0 else ''}"
    lines = [
        ("Rows", f"{plan['rows']:,}: {sizes}"),
        *([("Classes", str(classes))] if classes > 1 else []),
        ("Trainable", f"{share} ({percent_phrase(parameters['share'])})"),
        *(("Training", _phase(phase)) for phase in plan["phases"]),
        ("Evaluated", f"{count_phrase(len(steps), 'time')}, {at}"),
        (
            "Memory",
            f"about {memory['estimate']:,.0f} MB (including {parts}) of "
            f"{memory['available']:,.0f} MB ({plan['memory_limit']})",
        ),
        (
            "Time",
            f"about {seconds_phrase(plan['time_s']['estimate'])} after loading, of which "
            f"{seconds_phrase(plan['time_s']['steps'] + plan['time_s']['snapshots'])} for training "
            "and evaluations (estimated from timed steps)",
        ),
        *(
            ((SEVERITIES[one["severity"]].capitalize(), one["because"]) for one in plan["findings"])
            if with_findings
            else [("Findings", _findings(plan["findings"], quiet))]
        ),
    ]
    return "\n".join(["Plan (nothing was written):", *entries(lines, columns)])


def folds_text(plan: Mapping[str, Any], columns: int) -> str:
    """The folds of a cross-validation."""
    lines = [
        ("Folds", str(plan["how"])),
        ("Fits", f"{plan['fits']}, the last on all {plan['rows']:,} rows"),
    ]
    for one in plan["folds"]:
        repeat = f", repeat {one['repeat'] + 1}" if one["repeat"] else ""
        rows = count_phrase(one["train"], "row")
        text = f"{rows} for training, {one['valid']:,} for validation, {one['held']:,} held out"
        lines.append((f"{one['fold'] + 1}{repeat}", text))
    return "\n".join(["Plan (nothing was written):", *entries(lines, columns)])


def _phase(phase: Mapping[str, Any]) -> str:
    rows = phase["batch_size"] * phase["accumulate"]
    return (
        f"{phase['name']}: {count_phrase(phase['steps'], 'step')} of "
        f"{count_phrase(rows, 'row')} at a "
        f"learning rate of {phase['learning_rate']:g}"
    )


def _findings(findings: list[dict[str, object]], quiet: bool) -> str:
    if not findings:
        return "none"
    counts = Counter(finding["severity"] for finding in findings)
    counts_text = [
        count_phrase(counts[name], word) for name, word in SEVERITIES.items() if counts[name]
    ]
    where = "not shown because of --quiet" if quiet else "printed above with remedies"
    return f"{', '.join(counts_text)}, {where}"
