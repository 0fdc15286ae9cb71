"""A run that keeps its step 0: the model is the one from before the first step, whatever the steps
after it came to. Terminal, report and card say so in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What the decision is called that says so of a run that is diagnosed.
DISCARDED = "fine-tuning discarded"


def discarded(result: Mapping[str, Any]) -> str | None:
    """One sentence on what is kept in the place of the fine-tuned model; ``None`` where a later
    step is kept, an average of weights, or where nobody chose (another trainer's run that was only
    watched)."""
    last = result.get("last_step")
    if result.get("best_step") != 0 or not isinstance(last, int) or last < 1:
        return None
    if result.get("policy") == "off":
        return None
    # What was decided of the kept checkpoint; of another trainer's run nothing.
    found = [one for one in result.get("decisions") or () if one.get("what") == "kept state"]
    kept = str(found[-1].get("chosen") or "") if found else ""
    if "average" in kept:
        return None
    head = " with a linear probe as its last layer" if "linear probe" in kept else ""
    what = "the student before distillation" if result.get("distilled") else "the base model"
    # An update may begin with the weights of the run that it is to replace.
    start = ((result.get("update") or {}).get("start") or {}).get("start")
    what = "the served model" if start == "warm" else what
    steps = "its only step was not" if last == 1 else f"none of its {last:,} steps was"
    return f"Fine-tuning was discarded: {steps} kept, so the saved model is {what}{head}."
