"""A server with its store and its challenger is put together: which model it serves, who is
compared with it, and who follows the promotions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from holdfast.contract.run_folder import open_run
from holdfast.core.errors import InputError, RecipeError
from holdfast.core.machine import usable_cores
from holdfast.core.tasks import DECODERS
from holdfast.plugins.service.live.lineup import Lineup
from holdfast.plugins.service.live.observer import Comparing
from holdfast.plugins.service.live.setup import Setup, refuse_unlike
from holdfast.plugins.service.live.shadow import Shadowing
from holdfast.plugins.service.live.successor import Successor
from holdfast.plugins.service.promotion import ServedModel, started
from holdfast.plugins.service.records import ServiceEngine, ServiceObserver
from holdfast.plugins.service.settings import Serving
from holdfast.plugins.store.store import Store
from holdfast.runs.threshold import served_name

# An engine of a run; beside another, whose thread it shares and to whom it gives way.
Load = Callable[[Path, ServiceEngine | None], ServiceEngine]
Log = Callable[[str], None]


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
        if settings.compare == "ab" and shown.facts.task in DECODERS:
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
