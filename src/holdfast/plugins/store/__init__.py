"""The store of a service: requests, predictions, labels, outcomes and events."""

from __future__ import annotations

from holdfast.core.discovery import Entry

FORGET = Entry(
    "holdfast.plugins.store.forget",
    "Delete the data of a request, a user or an annotator from a store",
    "holdfast forget --store service.db --request 019a1ff678fcf46c",
    "holdfast forget --store postgresql://me@db/reviews --user anna",
)
