"""What a promotion goes by: the gate of an update, then what live comparisons of the two found."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.core.errors import InputError, RecipeError
from holdfast.plugins.service.compose import current_model
from holdfast.plugins.service.live.comparison import VERDICT, update_comparison
from holdfast.plugins.service.live.router import ComparisonSetup
from holdfast.plugins.service.pair_evidence import live_evidence
from holdfast.plugins.service.promotion import PROMOTION, promote, served_models
from holdfast.plugins.store.records import Event, Feedback, StoredPrediction, StoredRequest, new_id
from holdfast.plugins.store.store import Store, open_store
from holdfast.runs.threshold import served_name

GATES = {"none": None, "accepted": "taken", "inconclusive": "undecided", "rejected": "kept_aside"}
LIVE = ("none", "undecided", "equivalent", "better", "worse")
# Which of the pairs of findings let the new run take over without --force.
ALLOWED = {
    ("none", "none"),
    ("none", "undecided"),
    ("none", "equivalent"),
    ("none", "better"),
    ("accepted", "none"),
    ("accepted", "undecided"),
    ("accepted", "equivalent"),
    ("accepted", "better"),
    ("inconclusive", "better"),
}


def quiet(_: str) -> None:
    """Nobody hears it."""


@pytest.fixture(scope="module")
def runs(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run ``served``, and one for each decision of a gate about it."""
    folder = tmp_path_factory.mktemp("gates")
    for name in ("served", *GATES):
        shutil.copytree(finished_run, folder / name)
    for name, decision in GATES.items():
        if decision is not None:
            path = folder / name / "result.json"
            result = json.loads(path.read_text("utf-8"))
            gate = {"decision": decision, "because": "so it was measured"}
            result["update"] = {"from": str(folder / "served"), "gate": gate}
            del result["seal"]
            path.write_text(json.dumps(result), "utf-8")
    return folder


@pytest.fixture
def store(tmp_path: Path, runs: Path) -> Iterator[Store]:
    """The store of a server that serves ``served``."""
    found = open_store(str(tmp_path / "live.db"))
    current_model(runs / "served", found, quiet)
    yield found
    found.close()


def compared(store: Store, shown: str, challenger: str, found: str, since: float = 1000.0) -> None:
    """Both answer in the store's requests, and labels say which of them was right."""
    rows = {"undecided": 4, "equivalent": 2000}.get(found, 60)
    right = {"equivalent": None, "worse": "a"}.get(found, "b")
    answered(store, shown, challenger, rows, right, since)
    setup = ComparisonSetup(shown, challenger, "text-classification", lag_s=0)
    assert update_comparison(store, setup, time.time()).summary()["verdict"] == found


def answered(
    store: Store, shown: str, challenger: str, rows: int, right: str | None, since: float
) -> None:
    """A request that both answer, the shown one with a; without what is right both do, and nobody
    labels it."""
    name = new_id(since)
    said = [
        StoredPrediction(i, model, answer, shown=model == shown)
        for i in range(rows)
        for model, answer in ((shown, "a"), (challenger, "a" if right is None else "b"))
    ]
    store.add_requests([StoredRequest(name, since, shown, rows, 0.01, None, tuple(said))])
    if right is not None:
        for i in range(rows):
            label = Feedback(name, i, right, "me", since, shown, "page", "uniform", "hidden")
            store.add_feedback(label)


@pytest.mark.slow
@pytest.mark.parametrize("live", LIVE)
@pytest.mark.parametrize("gate", GATES)
def test_who_is_served_after_each_gate_and_comparison(
    store: Store, runs: Path, gate: str, live: str
) -> None:
    served, new = served_name(runs / "served"), served_name(runs / gate)
    if live != "none":
        compared(store, served, new, live)
    args = ["promote", str(runs / gate), "--store", store.name]
    done = CliRunner().invoke(app, args)
    if (gate, live) in ALLOWED:
        assert done.exit_code == 0, done.output
        assert served_models(store)[served].model == new
    else:
        assert isinstance(done.exception, InputError)
        assert done.exception.exit_code == 2
        # What it went by, and what would help.
        said = str(done.exception)
        evidence = "so it was measured" if live != "worse" else "only the shown model on"
        assert evidence in said
        assert "--force" in said
        assert ("this store has no live comparison" in said) == (
            gate == "inconclusive" and live == "none"
        )
        assert ("--challenger" in said) == (gate == "inconclusive" and live != "worse")
        assert served_models(store)[served].model == served
        assert not store.events(PROMOTION)
        assert CliRunner().invoke(app, [*args, "--force"]).exit_code == 0
        assert served_models(store)[served].model == new
    (event,) = store.events(PROMOTION)
    assert (event.body["evidence"] or {"verdict": "none"})["verdict"] == live
    # Going back asks for no evidence.
    assert CliRunner().invoke(app, [*args, "--undo"]).exit_code == 0
    assert served_models(store)[served].model == served


@pytest.mark.slow
def test_a_comparison_with_another_run_hides_no_finding(store: Store, runs: Path) -> None:
    served, new = served_name(runs / "served"), served_name(runs / "accepted")
    compared(store, served, new, "worse")
    compared(store, served, served_name(runs / "none"), "better", since=2000.0)
    with pytest.raises(RecipeError, match=r"is shown to be worse than served.*more recent"):
        promote(store, runs / "accepted")


def test_a_comparison_the_other_way_round_is_about_the_same_two(store: Store, runs: Path) -> None:
    served, new = served_name(runs / "served"), served_name(runs / "inconclusive")
    # While the new one was served, the old one as its challenger was worse.
    compared(store, new, served, "worse")
    made = promote(store, runs / "inconclusive")
    assert made.evidence is not None
    assert (made.evidence["verdict"], made.evidence["reversed"]) == ("better", True)
    before = update_comparison(
        store, ComparisonSetup(new, served, "text-classification", lag_s=0), 3000.0
    ).summary()
    assert made.evidence["difference"]["low"] == -before["difference"]["high"]
    assert made.notes[1] == f"it is shown to be better than {served}"


def test_labels_that_came_after_the_last_look_count_too(store: Store, runs: Path) -> None:
    served, new = served_name(runs / "served"), served_name(runs / "inconclusive")
    compared(store, served, new, "undecided")
    answered(store, served, new, 60, "b", since=2000.0)
    found = live_evidence(store, served, new, time.time())
    assert found is not None
    assert found["verdict"] == "better"


def told(store: Store, at: float, verdict: str, way: str) -> None:
    body = {"shown": "a@1", "challenger": "b@1", "way": way, "verdict": verdict, "because": "x"}
    store.append(Event(VERDICT, at, {**body, "difference": {"value": 0.1, "low": 0, "high": 1}}))


def test_of_several_comparisons_the_last_verdict_counts_unless_it_is_withdrawn(
    store: Store,
) -> None:
    told(store, 1.0, "worse", "shadow")
    told(store, 2.0, "better", "ab")

    def verdict() -> Any:
        found = live_evidence(store, "a@1", "b@1", 9.0)
        return None if found is None else found["verdict"]

    assert verdict() == "better"
    # The arms turn out to be skewed: what they said means nothing, and the other finding is left.
    told(store, 3.0, "undecided", "ab")
    assert verdict() == "worse"
    assert live_evidence(store, "a@1", "c@1", 9.0) is None


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from sqlalchemy.engine import Engine
from holdfast.plugins.service.promotion import promote
from holdfast.plugins.store.store import open_store

when, run, where = sys.argv[1:]
written = []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "before_cursor_execute")
def before(connection, cursor, statement, *_):
    inserts = statement.startswith("INSERT INTO events")
    if (inserts and when == "before") or (written and when == "committed"):
        die()

@event.listens_for(Engine, "after_cursor_execute")
def after(connection, cursor, statement, *_):
    if statement.startswith("INSERT INTO events"):
        written.append(1)
        if when == "written":
            die()

promote(open_store(where), Path(run))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "serves"), [("before", "served"), ("written", "served"), ("committed", "accepted")]
)
def test_a_kill_within_a_promotion_leaves_the_one_or_the_other_served(
    store: Store, runs: Path, when: str, serves: str
) -> None:
    first = served_name(runs / "served")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, when, str(runs / "accepted"), store.name],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert served_models(store)[first].model == served_name(runs / serves)
    assert current_model(runs / "served", store, quiet).run == runs / serves
    if serves == "served":
        # Nothing is in the way of the next one.
        assert promote(store, runs / "accepted").after == served_name(runs / "accepted")
