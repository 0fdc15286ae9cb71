"""A served run and labelled rows that came later: a newer run, and whether it may take over."""

from __future__ import annotations

from holdfast.core.discovery import Entry

UPDATE = Entry(
    "holdfast.plugins.update.command",
    "Learn from feedback, behind a gate.",
    "holdfast update runs/reviews-1 --feedback corrected.csv",
    "holdfast update runs/reviews-1 --feedback service.db --margin 2",
    "holdfast update runs/reviews-1 --feedback service.db --every 1d --out new/",
)
