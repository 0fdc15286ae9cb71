"""Tasks of few rows: episodes, the methods that learn a start from them, and what it scores."""

from __future__ import annotations

from holdfast.core.discovery import Entry

META = Entry(
    "holdfast.plugins.episodes.command",
    "From many small tasks to a start that adapts fast.",
    "holdfast meta intents.csv",
    "holdfast meta reviews.csv --task-column product --set meta.shots=10",
    "holdfast meta alphabets/ --model my-resnet/ --set meta.method=prototypes",
)
