"""Run folders and the store of a service, as web pages."""

from __future__ import annotations

from holdfast.core.discovery import Entry

DASHBOARD = Entry(
    "holdfast.plugins.dashboard.command",
    "Show runs and a service in a browser",
    "holdfast dashboard",
    "holdfast dashboard experiments/ --port 0",
    "holdfast dashboard runs --store service.db",
    imports="numpy",
)
