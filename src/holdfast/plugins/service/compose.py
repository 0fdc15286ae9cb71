"""A run and what was asked for → a service that can be started: the one place where its parts are
put together: which model it serves, who is compared with it, and who follows the promotions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.contract.run_folder import need_run, open_run
from holdfast.core.decisions import DecisionListener, decisions_to
from holdfast.core.errors import InputError, RecipeError, StoreError
from holdfast.core.machine import usable_cores
from holdfast.core.tasks import DECODER_TASKS
from holdfast.plugins.service.live.lineup import Lineup, Setup, refuse_unlike
from holdfast.plugins.service.live.observer import Comparing, Shadowing
from holdfast.plugins.service.promotion import ServedModel, Successor, started
from holdfast.plugins.service.records import ServiceEngine, ServiceObserver
from holdfast.plugins.service.routes import ENDPOINTS
from holdfast.plugins.service.server import Running, connections_within, listen
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.service.web.application import Application
from holdfast.plugins.service.web.guard import MAKE, AccessRules, is_local, read_token
from holdfast.runs.threshold import served_name

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

Log = Callable[[str], None]

NO_STORE = "none"
ENDING = ".store.db"
PRECISIONS = ("float32", "auto")
# An engine of a run; beside another, whose thread it shares and to whom it gives way.
Load = Callable[[Path, ServiceEngine | None], ServiceEngine]


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
    with decisions_to(notify):
        token = _token(wanted)
    if wanted.precision not in PRECISIONS:
        raise RecipeError(
            "--precision", "is not known", wanted.precision, f"There are: {', '.join(PRECISIONS)}."
        )
    for run in filter(None, (wanted.run, wanted.challenger)):
        need_run(run)
    with decisions_to(notify):
        connections = connections_within(wanted.settings.max_connections)
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


def _token(wanted: ServeRequest) -> str | None:
    if wanted.token_file is not None:
        return read_token(wanted.token_file)
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
    from holdfast.plugins.store.store import open_store

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
    from holdfast.plugins.service.drift_observer import drift_observers

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


def stood_in(run: Path, store: Store | None, log: Log) -> ServedModel:
    """The run that a server started with ``run`` serves: itself, or what was promoted in its place.
    Raises ``InputError`` where that one is not there or is another by now."""
    result = open_run(run)
    first = served_name(run)
    if store is None:
        return ServedModel(first, run)
    facts = {"task": result.get("task"), "classes": result.get("classes")}
    now = started(store, first, facts, run)
    if now.model == first:
        # The folder of the command line, which may have been moved since.
        return ServedModel(first, run, now.before, now.since)
    remedy = f"Bring it back, or go back: holdfast promote {now.run} --store … --undo"
    try:
        found = served_name(now.run)
    except InputError as error:
        rule = f"was promoted in the place of {first}, and cannot be served"
        raise RecipeError(now.model, rule, str(error).splitlines()[0], remedy) from error
    if found != now.model:
        rule = f"was promoted in the place of {first}, and its folder holds another model"
        raise RecipeError(now.model, rule, found, remedy)
    log(f"{now.model} ({now.run}) was promoted in the place of {first}, and is served")
    return now


def lined_up(
    run: Path,
    load: Load,
    *,
    challenger: Path | None,
    store: Store | None,
    settings: Serving,
    log: Log,
) -> tuple[Lineup, list[ServiceObserver]]:
    """The engine of a server started with ``run``, and the observers that the comparison needs;
    closing the engine ends all threads. Raises ``InputError`` for what cannot be served or
    compared; then no thread is left."""
    if challenger is not None and store is None:
        raise RecipeError(
            "--challenger",
            "needs a store, which is where the evidence is kept",
            None,
            "Add --store FILE or URL.",
        )
    now = stood_in(run, store, log)
    first = served_name(run)
    if challenger is not None and served_name(challenger) == now.model:
        log(f"the challenger {now.model} is what is served since its promotion: nothing to compare")
        challenger = None
    shown, shares = load(now.run, None), usable_cores() == 1
    lineup = Lineup(shown)
    observers: list[ServiceObserver] = []
    try:
        if challenger is not None and store is not None:
            lineup, watcher = _compared(
                shown,
                # With a core of its own it keeps nobody waiting, where one thread that both share
                # would end its turn first (benchmarks/RESULTS.md); those whom it answers itself
                # must not wait for the others.
                load(challenger, shown if shares and settings.compare == "shadow" else None),
                store,
                settings,
                log,
            )
            observers.append(watcher)
        if store is not None:
            enrol = partial(stood_in, run, store, log)
            successor = Successor(store, lineup, first, load, enrol, log)
            lineup.followed_by(successor.close, successor.figures)
    except BaseException:
        lineup.close()
        raise
    return lineup, observers


def _compared(
    shown: ServiceEngine, challenger: ServiceEngine, store: Store, settings: Serving, log: Log
) -> tuple[Lineup, Comparing]:
    try:
        refuse_unlike(shown.facts, challenger.facts)
        if settings.compare == "ab" and shown.facts.task in DECODER_TASKS:
            raise RecipeError(
                "--set serve.compare",
                f"cannot be ab for the task {shown.facts.task}: conversations are "
                "answered by the served model alone, whoever asks",
                settings.compare,
                "Use shadow, which compares the answers of /predict.",
            )
    except BaseException:
        challenger.close()
        raise
    setup = Setup(
        shown.facts.model,
        challenger.facts.model,
        shown.facts.task,
        settings.compare,
        settings.margin / 100,
        settings.budget,
        **settings.ab.model_dump(),
        lag_s=settings.lag_s,
    )
    lineup = Lineup(shown, challenger, setup)
    shadowing = None
    if setup.way == "shadow":
        patience = min(settings.lag_s * 2 / 3, 20.0) if settings.lag_s else 20.0
        shadowing = Shadowing(challenger, store, lambda: lineup.busy, patience, log, settings.mask)
    watcher = Comparing(setup, store, shadowing, log)
    lineup.end_comparison = watcher.close
    return lineup, watcher
