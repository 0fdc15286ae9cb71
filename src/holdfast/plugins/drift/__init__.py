"""Drift: do new rows differ from a run's reference rows, and how accurate is its model on them?"""

from __future__ import annotations

from holdfast.core.discovery import Entry

DRIFT = Entry(
    "holdfast.plugins.drift.command",
    "Compare new rows with a run's reference rows (drift)",
    "holdfast drift runs/reviews-1 march.csv",
    "holdfast drift runs/reviews-1 march.csv --label stars --json",
    "holdfast drift runs/reviews-1 today.jsonl --fail-on harmful",
    imports="torch",
)
