"""``Application``: the service as one ASGI application, and its description (OpenAPI 3.1).

A request passes in this order: host and origin, the route, the token, the head, the body, the
endpoint. Whatever fails is an answer in the endpoint's own shape of an error; only a defect is 500,
with a number that stands in the log beside the place where it happened.
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from holdfast._version import __version__
from holdfast.core.errors import HoldfastError
from holdfast.core.input_errors import resource_error
from holdfast.plugins.service.records import Full, Late
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.settings import MB
from holdfast.plugins.service.web.endpoint import (
    Arriving,
    Call,
    Endpoint,
    Gone,
    as_json,
    check_head,
    json_bytes,
    read_body,
)
from holdfast.plugins.service.web.faults import Fault, fault_of, full, shape_of
from holdfast.plugins.service.web.wire import WIRE

WITH_BODY = ("POST", "PUT", "PATCH")
UNKNOWN = "unknown"
REFS = "#/components/schemas/{model}"
REFUSALS = {
    400: "The request is at fault: what, which rule, the value found, what to do",
    401: "The token is missing or wrong",
    403: "Another site's page, or a foreign name of this service",
    405: "Another method",
    408: "It did not arrive in time",
    413: "The body is too long",
    415: "Not JSON, or packed",
    500: "A defect of Holdfast; its number stands in the log",
    503: "Full, loading or ending: ask again after Retry-After",
}
BODY_ONLY = (408, 413, 415)


class Application:
    """All endpoints over one ``Service``."""

    def __init__(self, service: Service, endpoints: Sequence[Endpoint]) -> None:
        self.service = service
        self.endpoints = tuple(endpoints)
        self._arriving = Arriving(int(service.settings.max_bodies_mb * MB))
        by_path: dict[str, dict[str, Endpoint]] = {}
        for one in self.endpoints:
            by_path.setdefault(one.path, {})[one.method] = one
        # One route a path: Starlette would say of a path with two that only the first's method is
        # allowed.
        routes = [
            Route(path, _ByMethod(self, ways), methods=list(ways), name=path)
            for path, ways in by_path.items()
        ]
        self._router = Router(routes, redirect_slashes=False, default=_not_found)

    @functools.cached_property
    def description(self) -> bytes:
        """The OpenAPI document of all endpoints, made once."""
        return json_bytes(document(self.endpoints, self.service.guard.digest is not None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        # Starlette says 405 by an exception where it finds an application.
        scope["app"] = self
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]):
            headers = _joined_headers(scope["headers"])
        scope["holdfast"] = headers
        started = time.monotonic()
        try:
            self.service.guard.check_host(headers)
            self.service.guard.check_origin(scope["method"], headers)
            await self._router(scope, receive, send)
        except Fault as refused:
            await self.refuse(scope, receive, send, refused, None, started)
        except HTTPException as error:
            fault = _other_method(scope, error)
            await self.refuse(scope, receive, send, fault, None, started)

    async def serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to an endpoint."""
        started = time.monotonic()
        call: Call | None = None
        try:
            headers = scope["holdfast"]
            if not endpoint.open:
                self.service.guard.check_token(headers)
            body = b""
            if scope["method"] in WITH_BODY:
                most = self.service.settings.body_bytes
                check_head(headers, most)
                body = await read_body(receive, most, self._arriving)
            call = Call(
                headers,
                body,
                scope["path_params"],
                started,
                lambda: self.description,
                wire=scope.get(WIRE),
            )
            response = await endpoint.handle(self.service, call)
        except Gone:
            self.service.measured.gone()
            return
        except Exception as error:
            fault = self.fault_of(error, endpoint.path)
            await self.refuse(scope, receive, send, fault, endpoint, started)
            return
        try:
            await response(scope, receive, send)
        finally:
            self.count(endpoint.path, scope, response.status_code, started)
            if call.after is not None:
                call.after()

    def fault_of(self, error: Exception, name: str) -> Fault:
        """What is answered where an endpoint fails."""
        if isinstance(error, Fault):
            return error
        if isinstance(error, Full):
            return full(error.retry_after)
        if isinstance(error, (Late, TimeoutError)):
            rule, limit = "could not be answered in its time", self.service.settings.timeout_s
            remedy = "Send fewer rows a request, or start the service with "
            remedy += "--set serve.timeout_s=SECONDS."
            return Fault(503, "this request", rule, limit, remedy, reason="late", again_s=1)
        known = error if isinstance(error, HoldfastError) else resource_error(error)
        if known is not None and (fault := fault_of(known)) is not None:
            return fault
        number = secrets.token_hex(6)
        self.service.log(f"a defect in {name} ({number}): {_where(error)}")
        rule = "has a defect, which is not in your request"
        remedy = "The service's log says under this number where."
        return Fault(500, "Holdfast", rule, number, remedy, reason="defect")

    def count(self, name: str, scope: Scope, status: int, started: float) -> None:
        """An answer of this endpoint went out."""
        seconds = time.monotonic() - started
        self.service.measured.answered(name, status, seconds)
        if self.service.settings.access_log:
            # The endpoint, not the path: what a caller wrote stays out of the log.
            self.service.log(f"{scope['method']} {name} {status} {1000 * seconds:.1f} ms")

    async def refuse(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        fault: Fault,
        endpoint: Endpoint | None,
        started: float,
    ) -> None:
        """Answer with an error, in the shape of the endpoint where it is of one of ours."""
        shape = endpoint.refuses if endpoint is not None else shape_of(scope["path"])
        headers = dict(fault.headers)
        if fault.closing:
            headers["Connection"] = "close"
        self.service.measured.refused(fault.reason)
        name = UNKNOWN if endpoint is None else endpoint.path
        response = as_json(shape(fault), fault.status, headers)
        try:
            await response(scope, receive, send)
        finally:
            self.count(name, scope, fault.status, started)


def _joined_headers(given: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers that stand several times as one list, as RFC 9110 reads them: two hosts or two tokens
    are then none that is known."""
    found: dict[bytes, bytes] = {}
    for name, value in given:
        found[name] = b", ".join((found[name], value)) if name in found else value
    return found


class _ByMethod:
    """The endpoints of one path; a class, so that Starlette takes it for an application of its
    own."""

    def __init__(self, application: Application, endpoints: Mapping[str, Endpoint]) -> None:
        self._application, self._endpoints = application, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._application.serve(self._endpoints[method], scope, receive, send)


def _other_method(scope: Scope, error: HTTPException) -> Fault:
    allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
    path, remedy, headers = str(scope["path"])[:200], f"Use {allowed}.", {"Allow": allowed}
    found = scope["method"]
    return Fault(405, path, "is not asked so", found, remedy, reason="method", headers=headers)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    rule, remedy = "is no endpoint of this service", "GET /openapi.json lists them."
    raise Fault(404, str(scope["path"])[:200], rule, None, remedy, reason="path")


def _where(error: BaseException) -> str:
    """The kind of an error and the way to it. What it says may hold a caller's text, and stays
    out."""
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    way = " < ".join(f"{one.filename}:{one.lineno} {one.name}" for one in reversed(frames))
    cause = error.__cause__ or error.__context__
    more = ""
    if cause is not None and cause is not error:
        with contextlib.suppress(RecursionError):
            more = f"; from {_where(cause)}"
    return f"{kind} at {way}{more}"


def document(endpoints: Iterable[Endpoint], token: bool) -> dict[str, Any]:
    """All endpoints; ``token``: whether one is asked for."""
    paths: dict[str, Any] = {}
    models: dict[type[BaseModel], None] = {}
    for one in endpoints:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one, token)
        models |= dict.fromkeys(m for m in (one.takes, one.gives, one.wrong) if m is not None)
    _, schemas = models_json_schema([(m, "validation") for m in models], ref_template=REFS)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": __version__,
            "description": "A fine-tuned model: answers, reasons, feedback and health.",
        },
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


def _operation(one: Endpoint, token: bool) -> dict[str, Any]:
    way = re.sub(r"\W+", "_", f"{one.method.lower()}_{one.path}").strip("_")
    found: dict[str, Any] = {"summary": one.summary, "operationId": way}
    if names := re.findall(r"{(\w+)", one.path):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if one.takes is not None:
        found["requestBody"] = {"required": True, "content": _json(one.takes)}
    answers: dict[str, Any] = {"200": {"description": "Answered"}}
    if one.gives is not None:
        answers["200"]["content"] = _json(one.gives)
    elif one.media is not None:
        answers["200"]["content"] = {one.media: {"schema": {"type": "string"}}}
    wrong = {} if one.wrong is None else {"content": _json(one.wrong)}
    for status, why in REFUSALS.items():
        if one.takes is None and status in (400, *BODY_ONLY):
            continue
        if status == 401 and (one.open or not token):
            continue
        answers[str(status)] = {"description": why, **wrong}
    for status, why in one.also:
        own = {"content": _json(one.gives)} if status == 503 and one.gives else wrong
        answers[str(status)] = {"description": why, **own}
    found["responses"] = answers
    if token and not one.open:
        found["security"] = [{"token": []}]
    return found


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFS.format(model=model.__name__)}}}
