"""What ``--dry-run`` prints."""

from __future__ import annotations

from typing import Any, TypedDict

from holdfast.core.wording import counted
from holdfast.terminal.say import clock, entry, millions, width


class ParametersJson(TypedDict):
    """How many parameters a plan trains, of how many."""

    trainable: int
    total: int
    share: float


class PhaseJson(TypedDict):
    """One phase of a plan."""

    name: str
    steps: int
    batch_size: int
    accumulate: int
    learning_rate: float


def show_plan(plan: dict[str, Any]) -> str:
    """The plan in a dozen lines, then every finding that needs a person, whole."""
    columns, division = width(), plan["division"]
    sizes = (
        f"{plan['rows']:,}: train {division['train']:,}, validation {division['valid']:,}, "
        f"test {division['test']:,}"
    )
    classes = len(plan["classes"] or ())
    entries = [
        ("Rows", sizes),
        *([("Classes", str(classes))] if classes > 1 else []),
        ("Learning", _learning(plan["parameters"])),
        *(("Training", _phase(phase)) for phase in plan["phases"]),
        ("Evaluated", _looks(plan["evaluate_at"])),
        ("Memory", f"{_memory(plan['memory_mb'])}: {plan['memory_limit']}"),
        ("Time", f"about {clock(plan['time_s']['estimate'])} after loading, from timed steps"),
        ("Findings", _findings(plan["findings"])),
    ]
    lines = [line for name, text in entries for line in entry(name, text, columns)]
    return "\n".join(["The plan (nothing was written):", *lines])


def _learning(parameters: ParametersJson) -> str:
    learning, total = parameters["trainable"], parameters["total"]
    return f"{millions(learning)} of {millions(total)} parameters ({parameters['share']:.0%})"


def _phase(phase: PhaseJson) -> str:
    rows = phase["batch_size"] * phase["accumulate"]
    return (
        f"{phase['name']}: {counted(phase['steps'], 'step')} of {counted(rows, 'row')} at a "
        f"learning rate of {phase['learning_rate']:g}"
    )


def _looks(steps: list[int]) -> str:
    at = ", ".join(map(str, steps))
    return f"{counted(len(steps), 'time')}, at {'step' if len(steps) == 1 else 'steps'} {at}"


def _memory(memory: dict[str, float]) -> str:
    parts = ", ".join(
        f"{name} {memory[name]:,.0f}"
        for name in ("weights", "gradients", "optimizer", "activations")
    )
    return f"about {memory['estimate']:,.0f} MB ({parts}) of {memory['available']:,.0f} MB"


def _findings(findings: list[dict[str, object]]) -> str:
    from collections import Counter

    if not findings:
        return "none"
    counts = Counter(finding["severity"] for finding in findings)
    found = [
        counted(counts[name], word)
        for name, word in (("error", "error"), ("warn", "warning"), ("info", "remark"))
        if counts[name]
    ]
    return f"{', '.join(found)}, told above with what to do"
