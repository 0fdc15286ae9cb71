"""Which model a store's servers serve: what they were started with, and what was promoted since.

All of it stands in the store's events, which are never changed: ``serving`` (a server was started
with a run), ``promotion`` (from a model to another, by whom, on what evidence) and ``promotion
failed``. A promotion holds where it goes out from the model that is served at its place among the
events; of two that were made at once the first holds, for every reader alike.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import open_run, unsealed
from holdfast.core.errors import InputError, RecipeError, RunError
from holdfast.core.records import to_json
from holdfast.core.run_files import RESULT, check_model
from holdfast.plugins.service.live.look import LATEST, all_events
from holdfast.plugins.service.pair_evidence import pair_evidence
from holdfast.plugins.store.records import Event
from holdfast.plugins.store.store import Store
from holdfast.runs.threshold import served_name

SERVING, PROMOTION, FAILED = "serving", "promotion", "promotion failed"


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
    found = all_events(store, SERVING) + all_events(store, PROMOTION)
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
        *(f"{one.what}, gate: {one.chosen}; {one.because}" for one in unsealed([run])),
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
        remedy = f"Bring it back, or promote another run in its place. {RESULT} says which it is."
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
