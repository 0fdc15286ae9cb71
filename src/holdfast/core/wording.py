"""Counts in words, in the right number."""

from __future__ import annotations

# What a setting that may hold a secret is shown as.
HIDDEN = "(set; it stands in recipe.yaml alone)"
# What the gate of an update decided (``update.gate.decision`` of result.json), as it is called.
GATE_OUTCOMES = {"taken": "accepted", "kept_aside": "rejected", "undecided": "inconclusive"}


def counted(count: int, noun: str, many: str = "") -> str:
    """``1 row``, ``2,000 rows``, ``3 classes`` (``many`` where an s does not do)."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def have(count: int) -> str:
    """``has`` of one, ``have`` of others."""
    return "has" if count == 1 else "have"
