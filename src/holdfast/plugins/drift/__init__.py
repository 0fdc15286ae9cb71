"""Are arriving rows like those that a model was judged by, and is it as right about them?"""

from __future__ import annotations

from holdfast.core.discovery import Entry

DRIFT = Entry(
    "holdfast.plugins.drift.command",
    "Are new rows like those that a run was judged by?",
    "holdfast drift runs/reviews-1 march.csv",
    "holdfast drift runs/reviews-1 march.csv --label stars --json",
    "holdfast drift runs/reviews-1 today.jsonl --fail-on harmful",
)
