"""Few-shot meta-learning: episodes from many small tasks, the methods that learn a base model from
them, and its score on new tasks.
"""

from __future__ import annotations

from holdfast.core.discovery import Entry

META = Entry(
    "holdfast.plugins.episodes.command",
    "Learn a base model for few-shot tasks from many small ones",
    "holdfast meta intents.csv",
    "holdfast meta reviews.csv --task-column product --set meta.shots=10",
    "holdfast meta alphabets/ --model my-resnet/ --set meta.method=prototypes",
    imports="torch",
)
