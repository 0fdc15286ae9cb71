"""Which model a store's servers serve: what they were started with, and what was promoted since.

All of it stands in the store's events, which are never changed: ``serving`` (a server was started
with a run), ``promotion`` (from a model to another, by whom, on what evidence) and ``promotion
failed``. A promotion holds where it goes out from the model that is served at its place among the
events; of two that were made at once the first holds, for every reader alike. A running server
looks whether another model was promoted, and changes over to it (``Successor``): loaded, warm, then
asked from the next request on; the one before ends when its requests have their answers.
"""

from __future__ import annotations

import getpass
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.run_folder import open_run, unsealed_decisions
from holdfast.core.errors import HoldfastError, InputError, RecipeError, RunError, StoreError
from holdfast.core.records import to_json
from holdfast.core.run_files import RESULT_FILE, check_model
from holdfast.plugins.service.live.lineup import Lineup, refuse_unlike
from holdfast.plugins.service.live.look import LATEST
from holdfast.plugins.service.pair_evidence import pair_evidence
from holdfast.plugins.service.records import ServiceEngine
from holdfast.plugins.store.records import Event
from holdfast.runs.threshold import served_name

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

SERVING, PROMOTION, FAILED = "serving", "promotion", "promotion failed"
EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model in service and its run; ``before`` are those that it took over from, the last one
    last, each with its run; ``since`` the number of the event that brought it."""

    model: str
    run: Path
    before: tuple[tuple[str, Path], ...] = ()
    since: int = 0


@dataclass(frozen=True, slots=True)
class Promotion:
    """A change that was made: from one model to another, with the verdict at that moment
    (``evidence``, ``None`` where the two were not compared) and what must be said of it."""

    before: str
    after: str
    run: Path
    evidence: Mapping[str, Any] | None = None
    told: tuple[str, ...] = ()
    undo: bool = False
    who: str = ""
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = to_json(
            {
                "schema": 1,
                "from": self.before,
                "to": self.after,
                "run": str(self.run),
                "who": self.who,
                "undo": self.undo,
                "evidence": self.evidence,
                "number": self.number,
                "told": list(self.told),
            }
        )
        return made


def started(store: Store, model: str, facts: Mapping[str, Any], run: Path) -> ServedModel:
    """A server is started with ``run``: what it is to serve, which is what took its run's place
    since it was first started so."""
    body = {"model": model, "run": str(run.resolve()), **facts}
    store.append(Event(SERVING, time.time(), body))
    return standings(store)[model]


def standings(store: Store) -> dict[str, ServedModel]:
    """For each model that a server was ever started with, who stands in its place now."""
    found: dict[str, ServedModel] = {}
    for event in _events(store):
        body, number = event.body, event.id or 0
        if event.kind == SERVING:
            model = body["model"]
            found.setdefault(model, ServedModel(model, Path(body["run"]), (), number))
            continue
        for first, one in found.items():
            if one.model != body["from"]:
                continue
            before = one.before
            if body["to"] != one.model:
                undo = body.get("undo")
                before = before[:-1] if undo else (*before, (one.model, one.run))
            found[first] = ServedModel(body["to"], Path(body["run"]), before, number)
    return found


def _events(store: Store) -> list[Event]:
    found = store.events(SERVING, limit=None) + store.events(PROMOTION, limit=None)
    return sorted(found, key=lambda one: one.id or 0)


def promote(
    store: Store,
    run: Path,
    *,
    undo: bool = False,
    instead_of: str | None = None,
    force: bool = False,
    now: float | None = None,
) -> Promotion:
    """Have ``run`` take the place of the model that the store's servers serve, or with ``undo``
    give its place back to the one before it.

    Raises ``RunError`` for a run that is damaged, unfinished or not there, ``RecipeError`` where it
    cannot stand for the other, is served already, or somebody else was quicker, and, unless
    ``force``, where the latest evidence about the two is against it or lacking
    (``pair_evidence.may_replace``). It is one event of the store: a process that is killed
    meanwhile leaves the one or the other in service.
    """
    at = time.time() if now is None else now
    places = _places(store)
    if undo and instead_of is not None:
        remedy = "Leave it out: RUN is the run that is rolled back."
        raise RecipeError("--from", "does not go with --undo", instead_of, remedy)
    if undo:
        return _undone(store, run, places, at)
    result = open_run(run)
    check_model(run, result)
    model = served_name(run)
    here = _place(store, places, model, run, instead_of)
    if here.model == model:
        if here.run == run.resolve():
            raise RecipeError(model, "is the model that is served", None, "Name another run.")
        same = (f"the same model, which lay in {here.run}",)
        return _append(store, Promotion(here.model, model, run.resolve(), told=same), at)
    _refuse_other(store, here, model, run, result)
    known = pair_evidence(store, here.model, here.run, model, result, at)
    if not force:
        known.refuse(run, store.name)
    # Of a run without sums the gate may have been written by anybody.
    told = (
        *known.told,
        *(f"{one.what}, gate: {one.chosen}; {one.because}" for one in unsealed_decisions([run])),
    )
    made = Promotion(here.model, model, run.resolve(), known.live, told)
    return _append(store, made, at, forced=force)


def _places(store: Store) -> list[ServedModel]:
    """Who is served now, each once."""
    # A server may have been started with a model that took another's place before: its way back is
    # the longer one.
    ways = sorted(standings(store).values(), key=lambda one: len(one.before))
    found = list({one.model: one for one in ways}.values())
    if not found:
        raise RecipeError(
            store.name,
            "has never had a server, so there is nothing to take the place of",
            None,
            "Start one: holdfast serve RUN --store …",
        )
    return found


def _place(
    store: Store, places: Sequence[ServedModel], model: str, run: Path, named: str | None
) -> ServedModel:
    if named is not None:
        mine = [one for one in places if named in (one.model, one.model.rpartition("@")[0])]
        if len(mine) == 1:
            return mine[0]
        raise RecipeError("--from", "names no model that is served", named, _names(places))
    mine = [one for one in places if one.model == model]
    latest = store.state(LATEST) or {}
    if latest.get("challenger") == model:
        mine = mine or [one for one in places if one.model == latest.get("shown")]
    if len(mine or places) == 1:
        return (mine or places)[0]
    raise RecipeError(
        store.name,
        "has servers of several models, and it is not clear whose place the run is to take",
        None,
        f"{_names(places)} Name one with --from.",
    )


def _names(places: Sequence[ServedModel]) -> str:
    return f"Served: {', '.join(one.model for one in places)}."


def _refuse_other(
    store: Store, here: ServedModel, model: str, run: Path, result: Mapping[str, Any]
) -> None:
    """Refuse a run of another task or other classes than what servers said of theirs."""
    facts = [
        one.body
        for one in _events(store)
        if one.kind == SERVING and one.body["model"] == here.model
    ]
    if not facts:
        try:
            facts = [open_run(here.run)]
        except RunError:
            # The servers check it themselves before they change over.
            return
    for name in ("task", "classes"):
        one, two = facts[-1].get(name), result.get(name)
        other = sorted(one or ()) != sorted(two or ()) if name == "classes" else one != two
        if other:
            rule = f"cannot take the place of {here.model}, which has another "
            rule += "task" if name == "task" else "set of classes"
            raise RecipeError(model, rule, two, "Serve it on its own: holdfast serve RUN.")


def _undone(store: Store, run: Path, places: Sequence[ServedModel], at: float) -> Promotion:
    mine = [one for one in places if _is(one, run)]
    if not mine:
        rule = "is not served, so there is nothing to undo"
        raise RecipeError(str(run), rule, None, _names(places))
    here = mine[0]
    if not here.before:
        rule = "was not promoted: servers were started with it"
        raise RecipeError(here.model, rule, None, "There is none before it to go back to.")
    model, back = here.before[-1]
    result = open_run(back)
    check_model(back, result)
    if served_name(back) != model:
        rule = f"is not {model} any more, which was served before {here.model}"
        remedy = f"Bring it back, or promote another run in its place. {RESULT_FILE} says which it is."
        raise RunError(str(back), rule, served_name(back), remedy)
    return _append(store, Promotion(here.model, model, back.resolve(), undo=True), at)


def _is(one: ServedModel, run: Path) -> bool:
    """Whether ``run`` is the model that stands there; known by its folder where the run is lost,
    which is when one goes back."""
    try:
        return served_name(run) == one.model
    except InputError:
        return one.run == run.resolve()


def _append(store: Store, made: Promotion, at: float, *, forced: bool = False) -> Promotion:
    """Write the change down, with who made it; refuse it where something else was quicker."""
    try:
        made = replace(made, who=getpass.getuser())
    except (OSError, KeyError):
        made = replace(made, who="unknown")
    body = {
        "from": made.before,
        "to": made.after,
        "run": str(made.run),
        "who": made.who,
        "undo": made.undo,
        "forced": forced,
        "evidence": to_json(made.evidence),
    }
    number = store.append(Event(PROMOTION, at, body)).id or 0
    if any(one.since == number for one in standings(store).values()):
        return replace(made, number=number)
    raise RecipeError(
        made.after,
        f"was not promoted: at the same moment something else took the place of {made.before}",
        None,
        f"{_names(_places(store))} Look at it, and promote again if you still want to.",
    )


class Successor:
    """Follows the promotions of a ``store`` for a server that was started with the model ``first``.

    ``load`` makes an engine of a run, beside another whose thread it shares, or alone. ``enrol`` is
    called where the store was made anew, to say again that this server is there. Where a model
    cannot be loaded or cannot stand for the other, the server goes on with what it has, and the
    store and the log say why.
    """

    def __init__(
        self,
        store: Store,
        lineup: Lineup,
        first: str,
        load: Callable[[Path, ServiceEngine | None], ServiceEngine],
        enrol: Callable[[], object] = lambda: None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._lineup, self._first, self._load = store, lineup, first, load
        self._enrol, self._log = enrol, log
        self._remade = store.remade
        self._read = 0
        self._tried = 0
        self.changes = self.failures = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="successor", daemon=True)
        self._thread.start()

    def figures(self) -> Mapping[str, int]:
        """Changes that were made and that failed."""
        return {"promotions": self.changes, "promotions_failed": self.failures}

    def close(self) -> None:
        """Follow no more."""
        self._end.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            try:
                self._look()
            except StoreError:
                # The service counts and tells that its store is gone; the next look may find it.
                continue
            except Exception as error:
                # What a defect says may hold anything; a server that followed no more would not be
                # noticed until somebody promotes in vain.
                self.failures += 1
                self._log(f"a defect while promotions were looked for: {type(error).__name__}")

    def _look(self) -> None:
        if self._store.remade != self._remade:
            # The store was lost and made anew: it knows neither this server nor what was read.
            self._remade, self._read = self._store.remade, 0
            self._enrol()
        # One small question a second; all of it is read only when something is there.
        newer = self._store.events(PROMOTION, after=self._read)
        if newer:
            now = standings(self._store).get(self._first)
            if now is not None:
                self._follow(now)
            self._read = newer[-1].id or self._read

    def _follow(self, now: ServedModel) -> None:
        if now.model == self._lineup.facts.model or now.since == self._tried:
            return
        self._tried = now.since
        started = time.monotonic()
        try:
            engine = self._engine(now)
        except Exception as error:
            self.failures += 1
            known = isinstance(error, HoldfastError)
            said = str(error) if known else f"a defect: {type(error).__name__}"
            self._log(f"{now.model} was promoted and cannot be served: {said}")
            body: dict[str, Any] = {"to": now.model, "still": self._lineup.facts.model}
            self._store.append(Event(FAILED, time.time(), {**body, "because": said}))
            return
        before = self._lineup.facts.model
        retired = self._lineup.take_over(engine)
        self.changes += 1
        took = time.monotonic() - started
        self._log(
            f"{now.model} was promoted and serves now, in the place of {before} ({took:.1f} s)"
        )
        # Nothing is compared with a model that is not shown any more.
        self._lineup.end_comparison()
        for one in retired:
            self._lineup.retire(one)

    def _engine(self, now: ServedModel) -> ServiceEngine:
        challenger = self._lineup.challenger
        if challenger is not None and challenger.facts.model == now.model:
            return challenger
        if (found := served_name(now.run)) != now.model:
            remedy = "Promote a run that is whole, or take the promotion back with --undo."
            raise RunError(str(now.run), f"is not {now.model} any more", found, remedy)
        engine = self._load(now.run, None)
        try:
            refuse_unlike(self._lineup.facts, engine.facts)
            engine.warm()
        except BaseException:
            engine.close()
            raise
        return engine
