"""A running server looks whether another model was promoted, and changes over to it: loaded, warm,
then asked from the next request on; the one before ends when its requests have their answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.core.errors import HoldfastError, RunError, StoreError
from holdfast.plugins.service.live.lineup import Lineup
from holdfast.plugins.service.live.setup import refuse_unlike
from holdfast.plugins.service.promotion import FAILED, PROMOTION, ServedModel, standings
from holdfast.plugins.service.records import ServiceEngine
from holdfast.plugins.store.records import Event
from holdfast.plugins.store.store import Store
from holdfast.runs.threshold import served_name

EVERY_S = 1.0


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
