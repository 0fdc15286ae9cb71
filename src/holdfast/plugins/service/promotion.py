"""Which model a store's servers serve: the one they were started with, or one promoted since.

The history is in the store's events, which are never changed: ``serving`` (a server was started
with a run), ``promotion`` (from one model to another, by whom, on what evidence) and ``promotion
failed``. A promotion is valid where it starts from the model that is served at that point of the
event sequence: of two simultaneous promotions the first is valid, for every reader alike. A running
server polls for promotions and switches (``PromotionFollower``): it loads and warms the new model
and routes all further requests to it; the old one ends when its requests are answered.
"""

from __future__ import annotations

import getpass
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.contract.inference import data_part
from holdfast.contract.run_folder import open_run, unsealed_decisions
from holdfast.core.errors import HoldfastError, InputError, RecipeError, RunError, StoreError
from holdfast.core.records import to_json
from holdfast.core.run_files import RESULT_FILE, check_model
from holdfast.core.tasks import LABELLED_TEXT_TASKS
from holdfast.plugins.service.engine.columns import run_columns
from holdfast.plugins.service.live.comparison import LATEST
from holdfast.plugins.service.live.router import EngineRouter, refuse_incompatible
from holdfast.plugins.service.pair_evidence import pair_evidence
from holdfast.plugins.service.records import ServiceEngine
from holdfast.plugins.store.records import Event
from holdfast.runs.threshold import served_name

if TYPE_CHECKING:
    from holdfast.plugins.store.store import Store

SERVING, PROMOTION, FAILED = "serving", "promotion", "promotion failed"
POLL_INTERVAL_S = 1.0
# Facts that two models must share so that one can replace the other, in words.
COMPARED = {"task": "task", "label_kind": "label type", "classes": "set of classes"}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model in service and its run; ``before`` are the models that it replaced, oldest first,
    each with its run; ``since`` is the number of the event that brought it."""

    model: str
    run: Path
    before: tuple[tuple[str, Path], ...] = ()
    since: int = 0


@dataclass(frozen=True, slots=True)
class Promotion:
    """A change from one model to another, with the live evidence at that moment (``None`` where the
    two were not compared) and notes to print."""

    before: str
    after: str
    run: Path
    evidence: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    undo: bool = False
    user: str = ""
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        result: dict[str, Any] = to_json(
            {
                "schema": 1,
                "from": self.before,
                "to": self.after,
                "run": str(self.run),
                "who": self.user,
                "undo": self.undo,
                "evidence": self.evidence,
                "number": self.number,
                "told": list(self.notes),
            }
        )
        return result


def record_start(store: Store, model: str, facts: Mapping[str, Any], run: Path) -> ServedModel:
    """Record that a server is started with ``run``. Returns the model to serve: ``run``'s, or one
    promoted in its place since."""
    body = {"model": model, "run": str(run.resolve()), **facts}
    store.append(Event(SERVING, time.time(), body))
    return served_models(store)[model]


def served_models(store: Store) -> dict[str, ServedModel]:
    """For each model that a server was ever started with, the model now served in its place."""
    served: dict[str, ServedModel] = {}
    for event in _events(store):
        body, number = event.body, event.id or 0
        if event.kind == SERVING:
            model = body["model"]
            served.setdefault(model, ServedModel(model, Path(body["run"]), (), number))
            continue
        for first, current in served.items():
            if current.model != body["from"]:
                continue
            before = current.before
            if body["to"] != current.model:
                undo = body.get("undo")
                before = before[:-1] if undo else (*before, (current.model, current.run))
            served[first] = ServedModel(body["to"], Path(body["run"]), before, number)
    return served


def _events(store: Store) -> list[Event]:
    events = store.events(SERVING, limit=None) + store.events(PROMOTION, limit=None)
    return sorted(events, key=lambda one: one.id or 0)


def promote(
    store: Store,
    run: Path,
    *,
    undo: bool = False,
    instead_of: str | None = None,
    force: bool = False,
) -> Promotion:
    """Replace the model that the store's servers serve by ``run``, or with ``undo`` restore the
    model before it.

    Raises ``RunError`` for a run that is damaged, unfinished or missing; ``RecipeError`` where it
    is not compatible, is served already, or another promotion came first, and, unless ``force``,
    where the latest evidence about the two is against it or missing
    (``pair_evidence.may_replace``). A promotion is one event of the store, so a process that is
    killed leaves either the old or the new model in service.
    """
    at = time.time()
    places = _places(store)
    if undo and instead_of is not None:
        remedy = "Leave it out: RUN is the run that is rolled back."
        raise RecipeError("--from", "cannot be combined with --undo", instead_of, remedy)
    if undo:
        return _undo(store, run, places, at)
    result = open_run(run)
    check_model(run, result)
    model = served_name(run)
    current = _place(store, places, model, instead_of)
    if current.model == model:
        if current.run == run.resolve():
            raise RecipeError(model, "is already served", None, "Name another run.")
        note = (f"the same model, previously in {current.run}",)
        return _append(store, Promotion(current.model, model, run.resolve(), notes=note), at)
    refuse_other(current.model, _facts_of(store, current), model, model_facts(run))
    evidence = pair_evidence(store, current.model, current.run, model, result, at)
    if not force:
        evidence.refuse(run, store.name)
    # Without checksums, anybody may have written the gate of a run.
    notes = (
        *evidence.sentences,
        *(f"{one.what}, gate: {one.chosen}; {one.because}" for one in unsealed_decisions([run])),
    )
    promotion = Promotion(current.model, model, run.resolve(), evidence.live, notes)
    return _append(store, promotion, at, forced=force)


def _places(store: Store) -> list[ServedModel]:
    """The models served now, each once."""
    # A server may have been started with a model that was promoted before: the longer history has
    # the way back.
    by_history = sorted(served_models(store).values(), key=lambda one: len(one.before))
    distinct = list({one.model: one for one in by_history}.values())
    if not distinct:
        rule = "has no server, so there is no model to replace"
        raise RecipeError(store.name, rule, None, "Start one: holdfast serve RUN --store …")
    return distinct


def _place(
    store: Store, places: Sequence[ServedModel], model: str, requested: str | None
) -> ServedModel:
    if requested is not None:
        matching = [one for one in places if requested in (one.model, one.model.rpartition("@")[0])]
        if len(matching) == 1:
            return matching[0]
        raise RecipeError("--from", "is not a served model", requested, _names(places))
    matching = [one for one in places if one.model == model]
    latest = store.state(LATEST) or {}
    if latest.get("challenger") == model:
        matching = matching or [one for one in places if one.model == latest.get("shown")]
    if len(matching or places) == 1:
        return (matching or places)[0]
    rule = "has servers of several models, and it is not clear which one to replace"
    raise RecipeError(store.name, rule, None, f"{_names(places)} Name one with --from.")


def _names(places: Sequence[ServedModel]) -> str:
    return f"Served: {', '.join(one.model for one in places)}."


def model_facts(run: Path) -> dict[str, Any]:
    """What decides whether the model of a finished run can replace another, as the event
    ``serving`` records it; the ``columns`` are ``None`` where only the loaded model knows them."""
    result = open_run(run)
    task = str(result.get("task"))
    of_text = task in LABELLED_TEXT_TASKS
    return {
        "task": task,
        "label_kind": (data_part(run).label_kind or "class") if of_text else None,
        "classes": result.get("classes"),
        "columns": run_columns(run, task),
    }


def recorded_facts(store: Store, model: str | None = None) -> Mapping[str, Any]:
    """What the last server of a ``model`` (or of any) recorded at its start; empty without one."""
    recorded: Mapping[str, Any] = {}
    for one in store.events(SERVING, limit=None):
        if model is None or one.body["model"] == model:
            recorded = one.body
    return recorded


def _facts_of(store: Store, current: ServedModel) -> Mapping[str, Any]:
    """What the servers of a model recorded at their start, or else what its run says."""
    recorded = recorded_facts(store, current.model)
    if "columns" in recorded:
        return recorded
    # The model was promoted itself, or an older version started the server.
    try:
        return {**model_facts(current.run), **recorded}
    except InputError:
        # The servers check it themselves before they switch.
        return recorded


def refuse_other(
    served: str, served_facts: Mapping[str, Any], model: str, facts: Mapping[str, Any]
) -> None:
    """Refuse a model with another task, label type or classes than the ``served`` one, or one that
    needs columns that requests may lack. What is not known of the served model is not compared."""
    remedy = "Serve it separately: holdfast serve RUN."
    for name, words in COMPARED.items():
        if name not in served_facts:
            continue
        one, two = served_facts[name], facts[name]
        other = sorted(one or ()) != sorted(two or ()) if name == "classes" else one != two
        if other:
            rule = f"cannot replace {served}, which has another {words}"
            raise RecipeError(model, rule, two, remedy)
    known, needed = served_facts.get("columns"), facts["columns"]
    if known and needed and (lacking := [name for name in needed if name not in known]):
        rule = f"cannot replace {served}: it needs columns that requests may not have"
        raise RecipeError(model, rule, lacking, remedy)


def _undo(store: Store, run: Path, places: Sequence[ServedModel], at: float) -> Promotion:
    matching = [one for one in places if _is_run(one, run)]
    if not matching:
        rule = "is not served, so there is nothing to undo"
        raise RecipeError(str(run), rule, None, _names(places))
    current = matching[0]
    if not current.before:
        rule = "was not promoted: servers were started with it"
        raise RecipeError(current.model, rule, None, "There is no earlier model to restore.")
    model, previous = current.before[-1]
    result = open_run(previous)
    check_model(previous, result)
    if served_name(previous) != model:
        rule = f"is no longer {model}, which was served before {current.model}"
        remedy = f"Restore that run (see {RESULT_FILE}), or promote another one."
        raise RunError(str(previous), rule, served_name(previous), remedy)
    return _append(store, Promotion(current.model, model, previous.resolve(), undo=True), at)


def _is_run(served: ServedModel, run: Path) -> bool:
    """Whether ``run`` is the served model; compared by folder where the run cannot be read, which
    is when an undo is needed."""
    try:
        return served_name(run) == served.model
    except InputError:
        return served.run == run.resolve()


def _append(store: Store, promotion: Promotion, at: float, *, forced: bool = False) -> Promotion:
    """Store the change with the user who made it; refuse it where another change came first."""
    try:
        promotion = replace(promotion, user=getpass.getuser())
    except (OSError, KeyError):
        promotion = replace(promotion, user="unknown")
    body = {
        "from": promotion.before,
        "to": promotion.after,
        "run": str(promotion.run),
        "who": promotion.user,
        "undo": promotion.undo,
        "forced": forced,
        "evidence": to_json(promotion.evidence),
    }
    number = store.append(Event(PROMOTION, at, body)).id or 0
    if any(one.since == number for one in served_models(store).values()):
        return replace(promotion, number=number)
    rule = f"was not promoted: another promotion replaced {promotion.before} at the same moment"
    remedy = f"{_names(_places(store))} Check that model, and promote again if you still want to."
    raise RecipeError(promotion.after, rule, None, remedy)


class PromotionFollower:
    """Follows the promotions of a ``store`` for a server that was started with the model ``first``.

    ``load`` makes an engine of a run, which may share another engine's thread. ``enrol`` is called
    where the store was recreated, to register this server again. Where a model cannot be loaded or
    is incompatible, the server continues with the current one, and the store and the log say why.
    """

    def __init__(
        self,
        store: Store,
        lineup: EngineRouter,
        first: str,
        load: Callable[[Path, ServiceEngine | None], ServiceEngine],
        enrol: Callable[[], object] = lambda: None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store, self._lineup, self._first, self._load = store, lineup, first, load
        self._enrol, self._log = enrol, log
        self._remade = store.remade
        self._last_event = 0
        self._last_tried = 0
        self.changes = self.failures = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="successor", daemon=True)
        self._thread.start()

    def figures(self) -> Mapping[str, int]:
        """Changes made and failed."""
        return {"promotions": self.changes, "promotions_failed": self.failures}

    def close(self) -> None:
        """Stop following."""
        self._end.set()
        self._thread.join(5.0)

    def _run(self) -> None:
        while not self._end.wait(POLL_INTERVAL_S):
            try:
                self._check()
            except StoreError:
                # The service reports that its store cannot be reached; the next poll may reach it.
                continue
            except Exception as error:
                # The message of a defect may hold anything. A server that stopped following would
                # not be noticed until a promotion has no effect.
                self.failures += 1
                error_name = type(error).__name__
                self._log(f"a bug in Holdfast while checking for promotions: {error_name}")

    def _check(self) -> None:
        if self._store.remade != self._remade:
            # The store was recreated: it knows neither this server nor the events read so far.
            self._remade, self._last_event = self._store.remade, 0
            self._enrol()
        # One small query a second; the full history is read only for new events.
        new_events = self._store.events(PROMOTION, after=self._last_event)
        if new_events:
            current = served_models(self._store).get(self._first)
            if current is not None:
                self._follow(current)
            self._last_event = new_events[-1].id or self._last_event

    def _follow(self, promoted: ServedModel) -> None:
        if promoted.model == self._lineup.facts.model or promoted.since == self._last_tried:
            return
        self._last_tried = promoted.since
        started = time.monotonic()
        try:
            engine = self._engine(promoted)
        except Exception as error:
            self.failures += 1
            expected_error = isinstance(error, HoldfastError)
            reason = str(error) if expected_error else f"a bug in Holdfast: {type(error).__name__}"
            self._log(f"{promoted.model} was promoted but cannot be served: {reason}")
            body: dict[str, Any] = {"to": promoted.model, "still": self._lineup.facts.model}
            self._store.append(Event(FAILED, time.time(), {**body, "because": reason}))
            return
        replaced = self._lineup.facts.model
        retired = self._lineup.take_over(engine)
        self.changes += 1
        took = time.monotonic() - started
        self._log(
            f"{promoted.model} was promoted and is now served instead of {replaced} ({took:.1f} s)"
        )
        # A comparison with a replaced model is pointless.
        self._lineup.end_comparison()
        for one in retired:
            self._lineup.retire(one)

    def _engine(self, promoted: ServedModel) -> ServiceEngine:
        challenger = self._lineup.challenger
        if challenger is not None and challenger.facts.model == promoted.model:
            return challenger
        if (actual_name := served_name(promoted.run)) != promoted.model:
            remedy = "Promote a complete run, or undo the promotion with --undo."
            raise RunError(str(promoted.run), f"is no longer {promoted.model}", actual_name, remedy)
        engine = self._load(promoted.run, None)
        try:
            refuse_incompatible(self._lineup.facts, engine.facts)
            engine.warm()
        except BaseException:
            engine.close()
            raise
        return engine
