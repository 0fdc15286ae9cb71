"""``Application``: the service as one ASGI application, and its OpenAPI 3.1 description.

A request passes in this order: host and origin, route, token, headers, body, endpoint. Any failure
becomes a response in the endpoint's own error shape. Only a defect is 500, with a number that is in
the log next to the traceback.
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
from holdfast.plugins.service.records import DeadlineExceeded, QueueFull
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.settings import MB
from holdfast.plugins.service.web.connection import WIRE
from holdfast.plugins.service.web.endpoint import (
    BodyBudget,
    Call,
    ClientGone,
    Endpoint,
    as_json,
    check_headers,
    json_bytes,
    read_body,
)
from holdfast.plugins.service.web.faults import Fault, error_body_for, fault_from_error, queue_full

WITH_BODY = ("POST", "PUT", "PATCH")
UNKNOWN_ENDPOINT = "unknown"
REFS = "#/components/schemas/{model}"
REFUSALS = {
    400: "The request is invalid: what, which rule, the value found, what to do",
    401: "The token is missing or wrong",
    403: "A page of another site, or an unknown name of this service",
    405: "The method is not allowed",
    408: "The request did not arrive in time",
    413: "The body is too long",
    415: "The body is not JSON, or is compressed",
    500: "A bug in Holdfast; its number is in the log",
    503: "Full, loading or shutting down: retry after Retry-After",
}
BODY_ONLY = (408, 413, 415)


class Application:
    """All endpoints over one ``Service``."""

    def __init__(self, service: Service, endpoints: Sequence[Endpoint]) -> None:
        self.service = service
        self.endpoints = tuple(endpoints)
        self._body_budget = BodyBudget(int(service.settings.max_bodies_mb * MB))
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in self.endpoints:
            by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
        # One route a path: for a path with two routes, Starlette would report only the first one's
        # method as allowed.
        routes = [
            Route(path, _ByMethod(self, methods), methods=list(methods), name=path)
            for path, methods in by_path.items()
        ]
        self._router = Router(routes, redirect_slashes=False, default=_not_found)

    @functools.cached_property
    def description(self) -> bytes:
        """The OpenAPI document of all endpoints, created once."""
        return json_bytes(openapi_document(self.endpoints, self.service.guard.digest is not None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        # Starlette raises 405 as an exception where it finds an application.
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
            fault = _method_not_allowed(scope, error)
            await self.refuse(scope, receive, send, fault, None, started)

    async def serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request to an endpoint."""
        started = time.monotonic()
        call: Call | None = None
        try:
            headers = scope["holdfast"]
            if not endpoint.without_token:
                self.service.guard.check_token(headers)
            body = b""
            if scope["method"] in WITH_BODY:
                most = self.service.settings.body_bytes
                check_headers(headers, most)
                body = await read_body(receive, most, self._body_budget)
            call = Call(
                headers,
                body,
                scope["path_params"],
                started,
                lambda: self.description,
                wire=scope.get(WIRE),
            )
            response = await endpoint.handle(self.service, call)
        except ClientGone:
            self.service.counters.count_hangup()
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
        """The error response where an endpoint raises."""
        if isinstance(error, Fault):
            return error
        if isinstance(error, QueueFull):
            return queue_full(error.retry_after)
        if isinstance(error, (DeadlineExceeded, TimeoutError)):
            rule, limit = "was not answered in time (seconds)", self.service.settings.timeout_s
            remedy = "Send fewer rows per request, or start the service with "
            remedy += "--set serve.timeout_s=SECONDS."
            return Fault(503, "this request", rule, limit, remedy, reason="late", retry_after_s=1)
        known = error if isinstance(error, HoldfastError) else resource_error(error)
        if known is not None and (fault := fault_from_error(known)) is not None:
            return fault
        number = secrets.token_hex(6)
        self.service.log(f"a bug in Holdfast, in {name} ({number}): {_trace(error)}")
        rule = "has a bug; your request is not the cause"
        remedy = "The service's log has the traceback under this number."
        return Fault(500, "Holdfast", rule, number, remedy, reason="defect")

    def count(self, name: str, scope: Scope, status: int, started: float) -> None:
        """Count a response of this endpoint."""
        seconds = time.monotonic() - started
        self.service.counters.count_answer(name, status, seconds)
        if self.service.settings.access_log:
            # The endpoint, not the path: a caller's text stays out of the log.
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
        """Send an error response, in the endpoint's shape where there is an endpoint."""
        shape = endpoint.error_body if endpoint is not None else error_body_for(scope["path"])
        headers = dict(fault.headers)
        if fault.closing:
            headers["Connection"] = "close"
        self.service.counters.count_refusal(fault.reason)
        name = UNKNOWN_ENDPOINT if endpoint is None else endpoint.path
        response = as_json(shape(fault), fault.status, headers)
        try:
            await response(scope, receive, send)
        finally:
            self.count(name, scope, fault.status, started)


def _joined_headers(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers with repeated names joined to one list, as RFC 9110 reads them: two hosts or two
    tokens then match none."""
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        joined[name] = b", ".join((joined[name], value)) if name in joined else value
    return joined


class _ByMethod:
    """The endpoints of one path; a class, so that Starlette treats it as an ASGI application."""

    def __init__(self, application: Application, endpoints: Mapping[str, Endpoint]) -> None:
        self._application, self._endpoints = application, endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._application.serve(self._endpoints[method], scope, receive, send)


def _method_not_allowed(scope: Scope, error: HTTPException) -> Fault:
    allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
    path, remedy, headers = str(scope["path"])[:200], f"Use {allowed}.", {"Allow": allowed}
    method = scope["method"]
    rule = "does not accept this method"
    return Fault(405, path, rule, method, remedy, reason="method", headers=headers)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    rule, remedy = "is not an endpoint of this service", "GET /openapi.json lists the endpoints."
    raise Fault(404, str(scope["path"])[:200], rule, None, remedy, reason="path")


def _trace(error: BaseException) -> str:
    """The type and traceback of an error. Its message may hold a caller's text and is left out."""
    error_name = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    frames_text = " < ".join(f"{one.filename}:{one.lineno} {one.name}" for one in reversed(frames))
    cause = error.__cause__ or error.__context__
    cause_text = ""
    if cause is not None and cause is not error:
        with contextlib.suppress(RecursionError):
            cause_text = f"; from {_trace(cause)}"
    return f"{error_name} at {frames_text}{cause_text}"


def openapi_document(endpoints: Iterable[Endpoint], token: bool) -> dict[str, Any]:
    """The OpenAPI document of all endpoints; ``token``: whether one is required."""
    paths: dict[str, Any] = {}
    models: dict[type[BaseModel], None] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, token)
        models |= dict.fromkeys(
            m
            for m in (endpoint.request_schema, endpoint.response_schema, endpoint.error_schema)
            if m is not None
        )
    _, schemas = models_json_schema([(m, "validation") for m in models], ref_template=REFS)
    result: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": __version__,
            "description": "A fine-tuned model: predictions, explanations, feedback and health.",
        },
        "paths": paths,
        "components": {"schemas": schemas.get("$defs", {})},
    }
    if token:
        result["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return result


def _operation(endpoint: Endpoint, token: bool) -> dict[str, Any]:
    operation_id = re.sub(r"\W+", "_", f"{endpoint.method.lower()}_{endpoint.path}").strip("_")
    operation: dict[str, Any] = {"summary": endpoint.summary, "operationId": operation_id}
    if names := re.findall(r"{(\w+)", endpoint.path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if endpoint.request_schema is not None:
        operation["requestBody"] = {"required": True, "content": _json(endpoint.request_schema)}
    responses: dict[str, Any] = {"200": {"description": "Answered"}}
    if endpoint.response_schema is not None:
        responses["200"]["content"] = _json(endpoint.response_schema)
    elif endpoint.media is not None:
        responses["200"]["content"] = {endpoint.media: {"schema": {"type": "string"}}}
    error_content = (
        {} if endpoint.error_schema is None else {"content": _json(endpoint.error_schema)}
    )
    for status, why in REFUSALS.items():
        if endpoint.request_schema is None and status in (400, *BODY_ONLY):
            continue
        if status == 401 and (endpoint.without_token or not token):
            continue
        responses[str(status)] = {"description": why, **error_content}
    for status, why in endpoint.other_statuses:
        content = (
            {"content": _json(endpoint.response_schema)}
            if status == 503 and endpoint.response_schema
            else error_content
        )
        responses[str(status)] = {"description": why, **content}
    operation["responses"] = responses
    if token and not endpoint.without_token:
        operation["security"] = [{"token": []}]
    return operation


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFS.format(model=model.__name__)}}}
