"""The service as a Ray Serve deployment: the same application in each replica.

    serve run holdfast.plugins.service.on_ray:app run=/runs/served replicas=2 store=postgresql://…

Ray's proxies accept the connections and choose a replica for each request; every limit, route and
response is that of ``holdfast serve``. Replicas share nothing but the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import need_run
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.packages import need_packages
from holdfast.core.printable import printable
from holdfast.core.records import Decision, Finding
from holdfast.plugins.service.settings import serving

LOG = logging.getLogger("ray.serve")
ARGUMENTS = (
    "run",
    "replicas",
    "store",
    "token_file",
    "challenger",
    "precision",
    "threads",
    "hosts",
    "set",
)
NAME = "holdfast"
# Extra time after the longest answer, for responses that are still being sent [s].
GRACE_S = 20.0
# Requests that wait for a replica, which limits its rows and conversations itself.
MAX_ONGOING = 256
Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Any, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Replica:
    """One loaded service and its application."""

    service: Any
    application: Asgi

    @classmethod
    def of(cls, arguments: Mapping[str, str]) -> Replica:
        """Load the run, open the store and warm up, as ``holdfast serve`` does."""
        from holdfast.plugins.service.compose import load_engine, start_drift_observer
        from holdfast.plugins.service.options import ServeOptions
        from holdfast.plugins.service.routes import ENDPOINTS
        from holdfast.plugins.service.service import Service
        from holdfast.plugins.service.web.application import Application
        from holdfast.plugins.service.web.guard import AccessRules, read_token
        from holdfast.plugins.store.store import open_store

        def log(line: str) -> None:
            LOG.info("holdfast: %s", printable(line))

        def notify(one: Decision | Finding) -> None:
            log(one.because)

        settings = serving(arguments.get("set", "").split())
        token = None if "token_file" not in arguments else read_token(Path(arguments["token_file"]))
        store = open_store(arguments["store"]) if "store" in arguments else None
        hosts = arguments.get("hosts", "").replace(",", " ").split()
        guard = AccessRules.for_server("127.0.0.1" if token is None else "0.0.0.0", token, hosts)
        service = Service(settings, guard, store, log)
        options = ServeOptions(
            challenger=Path(arguments["challenger"]) if "challenger" in arguments else None,
            precision=arguments.get("precision", "float32"),
            threads=int(arguments["threads"]) if "threads" in arguments else None,
        )
        run = Path(arguments["run"])
        engine, observers = load_engine(run, options, settings, store, log, notify)
        service.load(engine, observers)
        watch = partial(start_drift_observer, service, notify)
        threading.Thread(target=watch, name="afterwards", daemon=True).start()
        application: Asgi = Application(service, ENDPOINTS)
        return cls(service, application if token is not None else _local_only(application))


def app(arguments: Mapping[str, Any]) -> Any:
    """The Ray Serve ``Application`` that ``serve run`` and ``serve deploy`` start.

    Parameters
    ----------
    arguments : ``run`` (needed), ``replicas`` (1), ``store`` (a URL that every replica can reach;
        no store by default), ``token_file``, ``challenger``, ``precision``, ``threads``, ``hosts``
        (names that requests may be for), ``set`` (``serve.KEY=VALUE``, separated by spaces).
        Without a token only clients of the same machine are answered.

    Raises ``RecipeError`` for an unknown argument, ``RunError`` for a run that is not finished,
    ``MachineError`` where Ray Serve is not installed.
    """
    checked = _checked_arguments(arguments)
    settings = serving(checked.get("set", "").split())
    # Ray Serve comes with Ray, but FastAPI, which it imports, only with its extra.
    need_packages("serve run", "ray", "fastapi", install="'holdfast[cluster]'")
    from ray import serve

    # An object sent to a replica is pickled with copies of the objects that it names, but functions
    # of this module go by name: only those find the replica's own ``REPLICAS``.
    def build() -> Asgi:
        return _open_replica(checked).application

    class Holdfast:
        def check_health(self) -> None:
            _check_replica()

        def __del__(self) -> None:
            # Ray waits for open requests before it calls this.
            _close_replica()

    deployment: Any = serve.deployment(
        serve.ingress(build)(Holdfast),
        name=NAME,
        num_replicas=int(checked.get("replicas", "1")),
        max_ongoing_requests=MAX_ONGOING,
        graceful_shutdown_timeout_s=max(settings.timeout_s, settings.chat_timeout_s) + GRACE_S,
        ray_actor_options={"num_cpus": int(checked.get("threads", "1"))},
    )
    return deployment.bind()


# Of the replica's process: Ray creates the application apart from the class around it.
REPLICAS: list[Replica] = []


def _open_replica(arguments: Mapping[str, str]) -> Replica:
    REPLICAS.append(Replica.of(arguments))
    return REPLICAS[-1]


def _check_replica() -> None:
    if not REPLICAS[-1].service.ready:
        raise RuntimeError("the service is not ready")


def _close_replica() -> None:
    while REPLICAS:
        REPLICAS.pop().service.close()


def _checked_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    checked = {str(name): str(value) for name, value in arguments.items() if value is not None}
    for name in checked:
        if name not in ARGUMENTS:
            remedy = suggest_name(name, ARGUMENTS)
            raise RecipeError("serve run", "names an unknown argument", name, remedy)
    if "run" not in checked:
        raise RecipeError("serve run", "needs run=FOLDER", None, "Name a finished run.")
    for name in ("replicas", "threads"):
        if not checked.get(name, "1").isdecimal() or not int(checked.get(name, "1")):
            raise RecipeError(name, "must be a whole number from 1", checked[name], "E.g. 2.")
    for name in {"run", "challenger"} & set(checked):
        need_run(Path(checked[name]))
    for name in {"run", "challenger", "token_file", "store"} & set(checked):
        # Replicas start in folders of their own.
        if name != "store" or "://" not in checked[name]:
            checked[name] = str(Path(checked[name]).resolve())
    return checked


def _local_only(application: Asgi) -> Asgi:
    """``application`` only for clients of this machine: Ray decides where the proxies listen, and
    other clients need a token."""

    async def answer(scope: Scope, receive: Any, send: Any) -> None:
        from holdfast.plugins.service.web.endpoint import as_json
        from holdfast.plugins.service.web.faults import Fault, default_body
        from holdfast.plugins.service.web.guard import is_local

        client = scope.get("client")
        # Startup and shutdown events have no client.
        if scope["type"] != "http" or (client and is_local(str(client[0]))):
            await application(scope, receive, send)
            return
        fault = Fault(
            403,
            "this service",
            "only answers clients on its own machine, since it has no token",
            None,
            "Start it with token_file=FILE.",
            reason="token",
        )
        await as_json(default_body(fault), 403)(scope, receive, send)

    return answer
