"""Tests of the room ``service/``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

# Tests are no package, and the stand-in is shared with a program of its own.
_spec = importlib.util.spec_from_file_location("stand_in", Path(__file__).parent / "stand_in.py")
assert _spec is not None
assert _spec.loader is not None
stand_in = importlib.util.module_from_spec(_spec)
sys.modules["stand_in"] = stand_in
_spec.loader.exec_module(stand_in)

HERE = "http://127.0.0.1:8080"


@pytest.fixture
def serving_of(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes a service of a stand-in, and the client that asks it."""
    from holdfast.plugins.service.live.router import EngineRouter
    from holdfast.plugins.service.routes import ENDPOINTS
    from holdfast.plugins.service.service import Service
    from holdfast.plugins.service.settings import serving
    from holdfast.plugins.service.web.application import Application
    from holdfast.plugins.service.web.guard import AccessRules
    from holdfast.plugins.store.store import open_store

    made = []

    def make(
        engine: Any = None,
        observers: Any = (),
        settings: Any = (),
        token: str | None = None,
        store: bool = False,
        begun: bool = True,
    ) -> Any:
        said: list[str] = []
        where = open_store(str(tmp_path / "store.db")) if store else None
        service = Service(
            serving(settings), AccessRules.for_server("127.0.0.1", token), where, said.append
        )
        made.append(service)
        if begun:
            if not isinstance(engine, EngineRouter):
                engine = EngineRouter(engine or stand_in.StandIn())
            service.begin(engine, list(observers))
        client = TestClient(Application(service, ENDPOINTS), base_url=HERE)
        client.service, client.said = service, said  # type: ignore[attr-defined]
        return client

    yield make
    for one in made:
        one.close()
