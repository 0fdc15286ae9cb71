"""What a service was asked, what it answered, what people said of it, and what befell it."""

from __future__ import annotations

from holdfast.core.discovery import Entry

FORGET = Entry(
    "holdfast.plugins.store.forget",
    "Delete what a request or a person left in a store.",
    "holdfast forget --store service.db --request 019a1ff678fcf46c",
    "holdfast forget --store postgresql://me@db/reviews --user anna",
)
