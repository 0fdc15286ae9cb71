"""The store of a service: requests, predictions, labels, outcomes and events."""

from __future__ import annotations

from holdfast.core.discovery import Entry

FORGET = Entry(
    "holdfast.plugins.store.forget",
    "Delete a request's or a person's data from a store",
    "holdfast forget --store service.db --request 019a1ff678fcf46c",
    "holdfast forget --store postgresql://me@db/reviews --user anna",
)
