"""What ``--dry-run`` prints."""

from __future__ import annotations

import textwrap
from typing import Any

from holdfast.cli.say import width


def show_plan(plan: dict[str, Any]) -> str:
    """The plan in a dozen lines."""
    division, parameters = plan["division"], plan["parameters"]
    memory, seconds = plan["memory_mb"], plan["time_s"]
    phases = "; ".join(
        f"{p['name']}: {p['steps']} steps of {p['batch_size'] * p['accumulate']} rows at "
        f"{p['learning_rate']:g}"
        for p in plan["phases"]
    )
    lines = [
        "The plan (nothing was written):",
        f"  Rows        {plan['rows']}: train {division['train']}, valid {division['valid']}, "
        f"test {division['test']}",
        *([f"  Classes     {len(plan['classes'])}"] if len(plan["classes"] or ()) > 1 else []),
        f"  Findings    {len(plan['findings'])}",
        f"  Parameters  {parameters['trainable']:,} of {parameters['total']:,} learn "
        f"({parameters['share']:.0%})",
        f"  Training    {phases}",
        f"  Looks       {len(plan['evaluate_at'])}, at steps "
        + ", ".join(map(str, plan["evaluate_at"])),
        f"  Memory      about {memory['estimate']:,.0f} MB (weights {memory['weights']:,.0f}, "
        f"gradients {memory['gradients']:,.0f}, optimizer {memory['optimizer']:,.0f}, "
        f"activations {memory['activations']:,.0f}) of {memory['available']:,.0f} MB",
        f"  Time        about {_clock(seconds['estimate'])} after loading",
    ]
    return "\n".join(
        textwrap.fill(line, width(), subsequent_indent=" " * 14, break_on_hyphens=False)
        for line in lines
    )


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
