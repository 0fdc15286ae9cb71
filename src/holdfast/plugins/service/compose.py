"""A run and what was asked for → a service that can be started: the one place where its parts are
put together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.contract.run_folder import need_run
from holdfast.core.decisions import DecisionListener
from holdfast.core.errors import RecipeError, StoreError
from holdfast.plugins.service.records import ServiceEngine, ServiceObserver
from holdfast.plugins.service.routes import ENDPOINTS
from holdfast.plugins.service.server import Running, connections_within, listen
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.service.web.application import Application
from holdfast.plugins.service.web.guard import MAKE, AccessRules, is_local, read_token
from holdfast.plugins.store.store import Store, open_store

Log = Callable[[str], None]

NO_STORE = "none"
ENDING = ".store.db"
PRECISIONS = ("float32", "auto")


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What ``holdfast serve`` was asked for. ``store`` is a file or URL, ``none`` for none, and
    ``None`` for the file beside the run's folder."""

    run: Path
    host: str = "127.0.0.1"
    port: int = 8080
    store: str | None = None
    challenger: Path | None = None
    token_file: Path | None = None
    precision: str = "float32"
    threads: int | None = None
    settings: Serving = field(default_factory=Serving)


def compose(
    wanted: ServeRequest, ready: Callable[[ServiceEngine], None], log: Log, notify: DecisionListener
) -> Running:
    """Check what can be checked without the model, open the store and take the port; the model is
    loaded by ``run()``. ``ready`` hears when requests are answered.

    Raises ``RecipeError`` where others can reach the host and no token is named, or an option is
    none; ``RunError`` for what is no finished run; ``StoreError`` for a store that cannot be used.
    """
    token = _token(wanted, notify)
    if wanted.precision not in PRECISIONS:
        raise RecipeError(
            "--precision", "is not known", wanted.precision, f"There are: {', '.join(PRECISIONS)}."
        )
    for run in filter(None, (wanted.run, wanted.challenger)):
        need_run(run)
    connections, said = connections_within(wanted.settings.max_connections)
    for decision in said:
        notify(decision)
    settings = wanted.settings.model_copy(update={"max_connections": connections})
    place = listen(wanted.host, wanted.port)
    try:
        store = _store(wanted)
    except BaseException:
        place.sock.close()
        raise
    guard = AccessRules.of(wanted.host, token, settings.hosts)
    service = Service(settings, guard, store, log)
    return Running(
        service,
        Application(service, ENDPOINTS),
        place,
        lambda: loaded(wanted, store, log, notify),
        ready,
        lambda: watch_drift_of(service, notify),
    )


def _token(wanted: ServeRequest, notify: DecisionListener) -> str | None:
    if wanted.token_file is not None:
        token, said = read_token(wanted.token_file)
        for decision in said:
            notify(decision)
        return token
    if is_local(wanted.host):
        return None
    raise RecipeError(
        f"--host {wanted.host}",
        "can be reached by other machines, so that a token is needed",
        None,
        f"Name a file that holds one: --token-file FILE, e.g. made by {MAKE.format('FILE')}.",
    )


def _store(wanted: ServeRequest) -> Store | None:
    if wanted.store == NO_STORE:
        return None
    if wanted.store is not None:
        return open_store(wanted.store)
    # Beside the run's folder, which nothing is added to.
    folder = wanted.run.resolve()
    try:
        return open_store(str(folder.with_name(folder.name + ENDING)))
    except StoreError as error:
        remedy = "Name another file or a URL: --store WHERE; or keep nothing: --store none."
        raise StoreError(error.what, error.rule, error.value, remedy) from error


def loaded(
    wanted: ServeRequest, store: Store | None, log: Log, notify: DecisionListener
) -> tuple[ServiceEngine, Sequence[ServiceObserver]]:
    """Who answers, and the observers of a live comparison; raises as ``compose`` does."""
    from holdfast.plugins.service.engine.engine import ModelEngine
    from holdfast.plugins.service.engine.open import open_engine
    from holdfast.plugins.service.live.start import lined_up

    def load(run: Path, beside: ServiceEngine | None) -> ServiceEngine:
        first = beside if isinstance(beside, ModelEngine) else None
        return open_engine(
            run, wanted.precision, threads=wanted.threads, beside=first, notify=notify
        )

    return lined_up(
        wanted.run,
        load,
        challenger=wanted.challenger,
        store=store,
        settings=wanted.settings,
        log=log,
    )


def watch_drift_of(service: Service, notify: DecisionListener) -> None:
    """Have drift watched, once the service answers."""
    from holdfast.plugins.service.drift_start import drift_observers

    try:
        engine = service.engine
        observers = drift_observers(lambda: engine.facts, service.settings, service.log, notify)
    except Exception as error:
        # Nobody waits for it, and the service must not be silent about a defect.
        service.log(f"drift is not watched, for a defect: {type(error).__name__}")
        return
    if service.watching is not None:
        for one in observers:
            service.watching.add(one)
