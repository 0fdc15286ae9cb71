"""A finished run as an HTTP service: predictions, monitoring and live comparison."""

from __future__ import annotations

from holdfast.core.discovery import Entry

SERVE = Entry(
    "holdfast.plugins.service.serve",
    "Serve a run over HTTP (REST and OpenAI APIs)",
    "holdfast serve runs/reviews-1",
    "holdfast serve runs/reviews-1 --store service.db --precision auto",
    "holdfast serve runs/reviews-1 --host 0.0.0.0 --token-file token.txt",
    imports="torch",
)
PROMOTE = Entry(
    "holdfast.plugins.service.promote",
    "Replace the model in service by another run",
    "holdfast promote runs/reviews-2 --store service.db",
    "holdfast promote runs/reviews-2 --store service.db --undo",
)
