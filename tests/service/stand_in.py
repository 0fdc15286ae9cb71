"""A model whose answers are known: what the HTTP tests ask instead of a network."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.contract.extra_features import ExtraFeaturesLayer
from holdfast.core.errors import DataError
from holdfast.data.columns.extra import Column
from holdfast.plugins.service.records import (
    DeadlineExceeded,
    EngineFacts,
    QueueFull,
    RowPrediction,
    RowPredictions,
)
from holdfast.plugins.store.records import Row

CLASSES = ("bad", "good")
FACTS = EngineFacts(
    "text-classification",
    "reviews@0123abcd",
    Path("reviews"),
    ("text",),
    CLASSES,
    "float32",
    "nothing else was asked for",
)


class StandIn:
    """``good`` for a text with an even number of letters; below 0.6 where it is empty. It waits for
    some time, or for a file."""

    def __init__(self, facts: EngineFacts = FACTS, *, wait: float | str = 0.0) -> None:
        self.facts, self.wait = facts, wait
        self.ready = True
        self.full = False
        self.taken = 0
        self.answered = 0

    def warm(self) -> None:
        self.ready = True

    async def answer(self, rows: Sequence[Row], deadline: float | None = None) -> RowPredictions:
        if self.full:
            raise QueueFull(3.2, "too much is waiting")
        self.taken += len(rows)
        if self.wait:
            try:
                await _waited(self.wait)
            except asyncio.CancelledError:
                self.taken -= len(rows)
                raise
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineExceeded
        self.answered += len(rows)
        return RowPredictions(tuple(self._one(row) for row in rows), self.facts.model)

    def _one(self, row: Row) -> RowPrediction:
        value = row[self.facts.columns[0]]
        if value == "a row that cannot be read":
            raise DataError("row 0", "cannot be read", value, "Mend it.")
        if value == "a defect":
            raise ZeroDivisionError(f"of the secret text {value}")
        if self.facts.task == "token-classification":
            return RowPrediction(["O"] * len(value), 0.9)
        if self.facts.classes is None:
            return RowPrediction(f"{value}!", None)
        if value == "":
            return RowPrediction(None, 0.5, {"bad": 0.5, "good": 0.5}, "below the threshold 0.6")
        good = 0.9 if len(str(value)) % 2 == 0 else 0.2
        return RowPrediction(
            "good" if good > 0.5 else "bad", max(good, 1 - good), {"bad": 1 - good, "good": good}
        )

    def figures(self) -> Mapping[str, float]:
        return {"rows_waiting": float(self.taken - self.answered)}

    async def drain(self) -> None:
        while self.taken > self.answered:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        self.ready = False


def add_features(run: Path, *names: str) -> None:
    """Give a run of two classes a layer over these columns of numbers, and no seal."""
    facts = {"log": False, "mean": 0.0, "deviation": 1.0, "knots": [], "missing": False}
    path = run / "result.json"
    result = json.loads(path.read_text("utf-8"))
    ExtraFeaturesLayer(
        tuple(Column(name, "number", facts) for name in names),
        tuple(result["classes"]),
        np.ones((2, len(names))),
        np.zeros(2),
    ).save(run / "features")
    result["wrapper"] = {"kind": "features"}
    del result["seal"]
    path.write_text(json.dumps(result), "utf-8")


async def _waited(what: float | str) -> None:
    if isinstance(what, float | int):
        await asyncio.sleep(what)
        return
    while not Path(what).exists():
        await asyncio.sleep(0.01)


class Onlooker:
    """An observer that remembers what it saw."""

    def __init__(self, name: str = "drift") -> None:
        self._name = name
        self.saw: list[Any] = []
        self.broken = False
        self._events: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def name(self) -> str:
        return self._name

    def observe(self, served: Any) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.saw.append(served)
        if len(self.saw) == 3:
            self._events.append(("drift alarm", {"at": 3}))

    add_feedback = observe

    def state(self) -> Mapping[str, Any]:
        return {"n": len(self.saw)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.saw = [None] * int(state["n"])

    def events(self) -> list[tuple[str, Mapping[str, Any]]]:
        found, self._events = self._events, []
        return found

    def summary(self) -> Mapping[str, Any]:
        return {"requests": len(self.saw), "alarm": False, "words": "none", "nested": {"n": 1}}


def main(asked: str) -> int:
    """Serve a stand-in: the process of the tests that need sockets and signals."""
    from holdfast.plugins.service.live.router import EngineRouter
    from holdfast.plugins.service.routes import ENDPOINTS
    from holdfast.plugins.service.server import RunningService, listen
    from holdfast.plugins.service.service import Service
    from holdfast.plugins.service.settings import serving
    from holdfast.plugins.service.web.application import Application
    from holdfast.plugins.service.web.guard import AccessRules
    from holdfast.plugins.store.store import open_store

    given = json.loads(asked)

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    store = open_store(given["store"]) if "store" in given else None
    service = Service(
        serving(given.get("settings", [])), AccessRules.for_server("127.0.0.1", None), store, log
    )
    application = Application(service, ENDPOINTS)
    place = listen("127.0.0.1", 0)

    def load() -> tuple[Any, list[Any]]:
        while "loaded" in given and not Path(given["loaded"]).exists():
            time.sleep(0.01)
        return EngineRouter(StandIn(wait=given.get("wait", 0.0))), []

    print(place.url, flush=True)
    return RunningService(
        service, application, place, load, lambda _: print("ready", flush=True)
    ).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
