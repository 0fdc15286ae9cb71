"""A finished run as a service: answers over HTTP, watched and compared."""

from __future__ import annotations

from holdfast.core.discovery import Entry

SERVE = Entry(
    "holdfast.plugins.service.serve",
    "A run over HTTP, for other programs.",
    "holdfast serve runs/reviews-1",
    "holdfast serve runs/reviews-1 --store service.db --precision auto",
    "holdfast serve runs/reviews-1 --host 0.0.0.0 --token-file token.txt",
)
PROMOTE = Entry(
    "holdfast.plugins.service.promote",
    "A run takes the place of the model in service.",
    "holdfast promote runs/reviews-2 --store service.db",
    "holdfast promote runs/reviews-2 --store service.db --undo",
)
