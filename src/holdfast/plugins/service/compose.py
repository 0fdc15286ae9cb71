"""Compose a service from a run and a request to serve it: the served model, the challenger, and the
follower of promotions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.contract.run_folder import need_run
from holdfast.core.decisions import DecisionListener, decisions_to
from holdfast.core.errors import InputError, RecipeError, StoreError
from holdfast.core.machine import usable_cores
from holdfast.core.tasks import DECODER_TASKS
from holdfast.plugins.service.live.observer import ComparisonObserver, ShadowRunner
from holdfast.plugins.service.live.router import ComparisonSetup, EngineRouter, refuse_incompatible
from holdfast.plugins.service.options import ServeOptions
from holdfast.plugins.service.promotion import (
    PromotionFollower,
    ServedModel,
    model_facts,
    record_start,
    refuse_other,
)
from holdfast.plugins.service.records import ServiceEngine, ServiceObserver
from holdfast.plugins.service.routes import ENDPOINTS
from holdfast.plugins.service.server import RunningService, connection_limit, listen
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.service.web.application import Application
from holdfast.plugins.service.web.guard import MAKE_TOKEN, AccessRules, is_local, read_token
from holdfast.runs.threshold import served_name

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

Log = Callable[[str], None]

NO_STORE = "none"
ENDING = ".store.db"
PRECISIONS = ("float32", "auto")
# Loads an engine of a run; given another engine, it shares its thread and yields to it.
Load = Callable[[Path, ServiceEngine | None], ServiceEngine]


def compose(
    run: Path,
    options: ServeOptions,
    settings: Serving,
    on_ready: Callable[[ServiceEngine], None],
    log: Log,
    notify: DecisionListener,
) -> RunningService:
    """Check what can be checked without the model, open the store and bind the port; ``run()``
    loads the model. ``on_ready`` is called when requests are answered.

    Raises ``RecipeError`` for an invalid option, or where other machines can reach the host and no
    token is named; ``RunError`` for a run that is not finished; ``StoreError`` for a store that
    cannot be used.
    """
    with decisions_to(notify):
        token = _token(options)
    if options.precision not in PRECISIONS:
        raise RecipeError(
            "--precision", "is unknown", options.precision, f"Use {' or '.join(PRECISIONS)}."
        )
    for one in filter(None, (run, options.challenger)):
        need_run(one)
    with decisions_to(notify):
        connections = connection_limit(settings.max_connections)
    address = listen(options.host, options.port)
    try:
        store = _store(run, options.store)
    except BaseException:
        address.sock.close()
        raise
    guard = AccessRules.for_server(options.host, token, settings.hosts)
    limited = settings.model_copy(update={"max_connections": connections})
    service = Service(limited, guard, store, log)
    return RunningService(
        service,
        Application(service, ENDPOINTS),
        address,
        lambda: load_engine(run, options, settings, store, log, notify),
        on_ready,
        lambda: start_drift_observer(service, notify),
    )


def _token(options: ServeOptions) -> str | None:
    if options.token_file is not None:
        return read_token(options.token_file)
    if is_local(options.host):
        return None
    rule = "can be reached by other machines, so a token is required"
    remedy = f"Add --token-file FILE; create the file with: {MAKE_TOKEN.format('FILE')}"
    raise RecipeError(f"--host {options.host}", rule, None, remedy)


def _store(run: Path, where: str | None) -> Store | None:
    """The store at a file or URL; for ``none`` none, by default the file next to the run's
    folder."""
    if where == NO_STORE:
        return None
    from holdfast.plugins.store.store import open_store

    if where is not None:
        return open_store(where)
    # Nothing is added inside the run's folder.
    folder = run.resolve()
    try:
        return open_store(str(folder.with_name(folder.name + ENDING)))
    except StoreError as error:
        remedy = "Give another file or a URL with --store, or store nothing with --store none."
        raise error.reworded(remedy=remedy) from error


def load_engine(
    run: Path,
    options: ServeOptions,
    settings: Serving,
    store: Store | None,
    log: Log,
    notify: DecisionListener,
) -> tuple[EngineRouter, Sequence[ServiceObserver]]:
    """The engine, and the observers of a live comparison; raises as ``compose`` does."""
    from holdfast.plugins.service.engine.engine import ModelEngine
    from holdfast.plugins.service.engine.open import open_engine

    def load(run: Path, share_with: ServiceEngine | None) -> ServiceEngine:
        first = share_with if isinstance(share_with, ModelEngine) else None
        return open_engine(
            run, options.precision, threads=options.threads, share_with=first, notify=notify
        )

    return build_router(
        run, load, challenger=options.challenger, store=store, settings=settings, log=log
    )


def start_drift_observer(service: Service, notify: DecisionListener) -> None:
    """Start drift detection, once the service answers."""
    from holdfast.plugins.service.drift_observer import drift_observers

    engine = service.loaded_engine
    # A service that is stopped just after it was loaded has nothing left to monitor.
    if engine is None or service.draining:
        return
    try:
        observers = drift_observers(lambda: engine.facts, service.settings, service.log, notify)
    except Exception as error:
        # Nobody waits for it, and a defect must be reported.
        service.log(f"drift is not monitored because of a bug in Holdfast: {type(error).__name__}")
        return
    if service.observer_thread is not None:
        for observer in observers:
            service.observer_thread.add(observer)


def current_model(run: Path, store: Store | None, log: Log) -> ServedModel:
    """The run that a server started with ``run`` serves: itself, or one promoted in its place.
    Raises ``InputError`` where that run is missing, was replaced or cannot stand for ``run``."""
    first = served_name(run)
    if store is None:
        return ServedModel(first, run)
    facts = model_facts(run)
    current = record_start(store, first, facts, run)
    if current.model == first:
        # The folder of the command line; the stored one may have been moved.
        return ServedModel(first, run, current.before, current.since)
    undo = f"undo the promotion: holdfast promote {current.run} --store … --undo"
    remedy = f"Restore it, or {undo}"
    try:
        name_found = served_name(current.run)
    except InputError as error:
        rule = f"was promoted in place of {first}, but cannot be served"
        raise RecipeError(current.model, rule, str(error).splitlines()[0], remedy) from error
    if name_found != current.model:
        rule = f"was promoted in place of {first}, but its folder contains another model"
        raise RecipeError(current.model, rule, name_found, remedy)
    promoted_facts = model_facts(current.run)
    try:
        refuse_other(first, facts, current.model, promoted_facts)
    except RecipeError as error:
        # An older version, which compared less, may have promoted it.
        raise error.reworded(remedy=f"Serve it separately, or {undo}") from error
    log(f"{current.model} ({current.run}) was promoted in place of {first}, and is served")
    return current


def build_router(
    run: Path,
    load: Load,
    *,
    challenger: Path | None,
    store: Store | None,
    settings: Serving,
    log: Log,
) -> tuple[EngineRouter, list[ServiceObserver]]:
    """The engine of a server started with ``run``, and the observers that the comparison needs.
    Closing the engine ends all threads. Raises ``InputError`` for a run that cannot be served or
    compared; then no thread is left."""
    if challenger is not None and store is None:
        raise RecipeError(
            "--challenger", "needs a store for the evidence", None, "Add --store FILE or URL."
        )
    current = current_model(run, store, log)
    first = served_name(run)
    if challenger is not None and served_name(challenger) == current.model:
        log(
            f"the challenger {current.model} was promoted and is now the served model: "
            "there is nothing to compare"
        )
        challenger = None
    shown, one_core = load(current.run, None), usable_cores() == 1
    router = EngineRouter(shown)
    observers: list[ServiceObserver] = []
    try:
        if challenger is not None and store is not None:
            router, observer = _with_challenger(
                shown,
                # Given a core, the challenger delays nobody, whereas a shared thread would end its
                # turn first. In an A/B test its users must not wait for the
                # others.
                load(challenger, shown if one_core and settings.compare == "shadow" else None),
                store,
                settings,
                log,
            )
            observers.append(observer)
        if store is not None:
            enrol = partial(current_model, run, store, log)
            successor = PromotionFollower(store, router, first, load, enrol, log)
            router.set_follower(successor.close, successor.figures)
    except BaseException:
        router.close()
        raise
    return router, observers


def _with_challenger(
    shown: ServiceEngine, challenger: ServiceEngine, store: Store, settings: Serving, log: Log
) -> tuple[EngineRouter, ComparisonObserver]:
    try:
        refuse_incompatible(shown.facts, challenger.facts)
        if settings.compare == "ab" and shown.facts.task in DECODER_TASKS:
            raise RecipeError(
                "--set serve.compare",
                f"cannot be ab for the task {shown.facts.task}: only the served model answers "
                "conversations",
                settings.compare,
                "Use shadow, which compares the predictions of /predict.",
            )
    except BaseException:
        challenger.close()
        raise
    setup = ComparisonSetup(
        shown.facts.model,
        challenger.facts.model,
        shown.facts.task,
        settings.compare,
        settings.margin / 100,
        settings.budget,
        **settings.ab.model_dump(),
        lag_s=settings.lag_s,
    )
    router = EngineRouter(shown, challenger, setup)
    shadow_runner = None
    if setup.way == "shadow":
        max_delay_s = min(settings.lag_s * 2 / 3, 20.0) if settings.lag_s else 20.0
        shadow_runner = ShadowRunner(
            challenger, store, lambda: router.busy, max_delay_s, log, settings.mask
        )
    observer = ComparisonObserver(setup, store, shadow_runner, log)
    router.end_comparison = observer.close
    return router, observer
