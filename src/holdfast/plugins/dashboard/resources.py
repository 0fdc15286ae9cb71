"""The state that a dashboard's pages share (its runs, its store, caches between requests), and the
parsing of requests (forms, bodies up to a maximum, the annotator)."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.errors import HoldfastError
from holdfast.plugins.dashboard.access import DAY_S, Access, cookie_value
from holdfast.plugins.dashboard.inference import ModelTrial, TrialAnswer
from holdfast.plugins.dashboard.pages import message_page, plain
from holdfast.plugins.dashboard.run_views import FinishedRunView, finished_run_view
from holdfast.plugins.dashboard.runs import Runs, run_version
from holdfast.plugins.dashboard.service_view import service_view
from holdfast.plugins.dashboard.summary import Summary

if TYPE_CHECKING:
    from holdfast.plugins.service.labelling import Labelling
    from holdfast.plugins.store.store import Store


# A service view is cached for this multiple of its duration, and at least for this time [s].
REFRESH_RATIO, LEAST_S = 100.0, 1.0
# Maximum cached runs, and trial rows.
MAX_CACHED_RUNS, MAX_TRIAL_ROWS = 8, 200


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A row that was tried, and the answer of the run at ``path``."""

    path: Path
    row: Mapping[str, Any]
    answer: TrialAnswer


@dataclass
class Dashboard:
    """The pages' shared state: the ``runs``, access control, the ``store`` where there is one,
    whether it is being stopped (``closing``), and caches between requests."""

    runs: Runs
    access: Access
    store: Store | None = None
    model_trial: ModelTrial = field(default_factory=ModelTrial)
    clock: Callable[[], float] = time.time
    closing: Callable[[], bool] = lambda: False
    streams: int = 0
    trial_rows: OrderedDict[str, TrialRow] = field(default_factory=OrderedDict)
    service_views: dict[str, tuple[float, Mapping[str, Any]]] = field(default_factory=dict)
    cached_runs: OrderedDict[tuple[Any, ...], FinishedRunView] = field(default_factory=OrderedDict)

    def finished_run(self, path: Path) -> FinishedRunView:
        """A finished run, read once for all of its tabs."""
        key = (path, run_version(path))
        if key not in self.cached_runs:
            self.cached_runs[key] = finished_run_view(path)
            while len(self.cached_runs) > MAX_CACHED_RUNS:
                self.cached_runs.popitem(last=False)
        return self.cached_runs[key]

    def service(self, span: str) -> Mapping[str, Any] | None:
        """The service view of the store; several refreshing pages share one, cached for a hundred
        times its duration. ``None`` without a store."""
        if self.store is None:
            return None
        until, view = self.service_views.get(span, (0.0, None))
        if view is None or time.monotonic() >= until:
            began = time.monotonic()
            view = service_view(self.store, self.clock(), span)
            ended = time.monotonic()
            self.service_views[view["span"]] = (
                ended + max(LEAST_S, REFRESH_RATIO * (ended - began)),
                view,
            )
        return view

    def remember_trial(self, path: Path, row: Mapping[str, Any], answer: TrialAnswer) -> str:
        """Keep a trial row until feedback for it comes; returns its id."""
        name = secrets.token_urlsafe(12)
        self.trial_rows[name] = TrialRow(path, row, answer)
        while len(self.trial_rows) > MAX_TRIAL_ROWS:
            self.trial_rows.popitem(last=False)
        return name

    @cached_property
    def labelling(self) -> Labelling:
        """The labelling queue of the store."""
        from holdfast.plugins.service.labelling import Labelling

        assert self.store is not None
        return Labelling(self.store, clock=self.clock)


MAX_FORM_BYTES, MAX_NAME_LENGTH = 300_000, 200


def known_run(dashboard: Dashboard, name: str) -> tuple[Summary, Path]:
    """A run by its name; 404 where there is none."""
    summary, path = dashboard.runs.summary(name), dashboard.runs.path(name)
    if summary is None or path is None:
        raise HTTPException(404, "The run does not exist, or was removed.")
    return summary, path


async def read_form(request: Request) -> dict[str, list[str]]:
    """The fields of a form, all of each name."""
    raw = await read_body(request, MAX_FORM_BYTES)
    try:
        return parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=10_000)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, at most ``max_bytes`` bytes; 413 where it is longer."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise HTTPException(413, f"The limit is {max_bytes:,} bytes.")
        parts.append(part)
    return b"".join(parts)


def error_page(title: str, error: HoldfastError, status: int) -> Response:
    """A page with the error and its remedy, as on the command line."""
    text = plain(f"{error.what}: {error.rule}", 600)
    return message_page(title, text, status, plain(error.remedy, 600))


def annotator_of(dashboard: Dashboard, request: Request) -> str:
    """The annotator's name in this browser's cookie; empty without one."""
    name = unquote(cookie_value(request.headers.get("cookie"), f"{dashboard.access.cookie}-who"))
    return name if name.isprintable() and len(name) <= MAX_NAME_LENGTH else ""


def set_annotator_cookie(dashboard: Dashboard, response: Response, annotator: str) -> None:
    response.set_cookie(
        f"{dashboard.access.cookie}-who",
        quote(annotator),
        max_age=30 * DAY_S if annotator else 0,
        httponly=True,
        samesite="strict",
        path=f"{dashboard.access.base}/",
    )


def part_of(request: Request) -> str:
    """The part of a page that a script requests; empty for the complete page."""
    return request.query_params.get("part", "")
