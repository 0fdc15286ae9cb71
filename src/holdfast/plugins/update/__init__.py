"""Update a served run with feedback, and decide whether the new run may replace it."""

from __future__ import annotations

from holdfast.core.discovery import Entry

UPDATE = Entry(
    "holdfast.plugins.update.command",
    "Train an update on feedback; a gate accepts or rejects it",
    "holdfast update runs/reviews-1 --feedback corrected.csv",
    "holdfast update runs/reviews-1 --feedback service.db --margin 2",
    "holdfast update runs/reviews-1 --feedback service.db --every 1d --out new/",
    imports="torch",
)
