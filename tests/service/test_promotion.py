from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stand_in import FACTS, StandIn, add_features
from typer.testing import CliRunner

from holdfast.cli.main import app
from holdfast.core.errors import InputError, RecipeError, RunError
from holdfast.plugins.service import promotion as successor_module
from holdfast.plugins.service.compose import build_router, current_model
from holdfast.plugins.service.live.comparison import update_comparison
from holdfast.plugins.service.live.router import ComparisonSetup
from holdfast.plugins.service.promotion import (
    FAILED,
    PROMOTION,
    PromotionFollower,
    promote,
    record_start,
    served_models,
)
from holdfast.plugins.service.settings import serving
from holdfast.plugins.store.records import Event, Feedback, StoredPrediction, StoredRequest, new_id
from holdfast.plugins.store.store import Store, open_store
from holdfast.runs.threshold import served_name


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = open_store(str(tmp_path / "live.db"))
    yield found
    found.close()


@pytest.fixture
def runs(finished_run: Path, tmp_path: Path) -> list[Path]:
    """Three runs: the same model in folders of other names is another model by its name."""
    made = [tmp_path / name for name in ("first", "second", "third")]
    for one in made:
        shutil.copytree(finished_run, one)
    return made


def quiet(_: str) -> None:
    """Nobody hears it."""


@pytest.mark.parametrize(
    ("decision", "outcome", "shown"),
    [
        ("taken", "accepted", True),
        ("kept_aside", "rejected", False),
        ("undecided", "inconclusive", False),
    ],
)
def test_what_the_gate_of_an_update_said_is_told(
    store: Store, runs: list[Path], decision: str, outcome: str, shown: bool
) -> None:
    first, second, _ = runs
    current_model(first, store, quiet)
    result = json.loads((second / "result.json").read_text())
    gate = {"decision": decision, "because": "words"}
    result["update"] = {"from": str(first), "gate": gate}
    del result["seal"]
    (second / "result.json").write_text(json.dumps(result))
    told = promote(store, second, force=decision != "taken").notes
    assert told[0] == f"the gate's result for this update of first is {outcome}: words"
    assert ("nothing shows that it is better" in told[1]) == (not shown)
    assert told[2].startswith("model files, gate: not checked; result.json of ")


@pytest.mark.parametrize(
    "update",
    [
        [1],
        {"from": "first", "gate": "taken"},
        {"from": None, "gate": {"decision": "taken", "because": "words"}},
        {"from": "first", "gate": {"decision": 5, "because": "words"}},
        {"gate": {"decision": "taken", "because": "words"}},
    ],
)
def test_a_gate_that_is_none_is_refused_by_its_name(
    store: Store, runs: list[Path], update: Any
) -> None:
    first, second, _ = runs
    current_model(first, store, quiet)
    result = json.loads((second / "result.json").read_text())
    result["update"] = update
    del result["seal"]
    (second / "result.json").write_text(json.dumps(result))
    with pytest.raises(RunError, match="update"):
        promote(store, second, force=True)


def test_what_undo_cannot_go_by_is_refused(store: Store, runs: list[Path]) -> None:
    first, second, _ = runs
    current_model(first, store, quiet)
    promote(store, second)
    with pytest.raises(RecipeError, match="cannot be combined with --undo"):
        promote(store, second, undo=True, instead_of="first")
    assert promote(store, second, undo=True).after == served_name(first)


def test_a_run_takes_the_place_of_another_and_gives_it_back(store: Store, runs: list[Path]) -> None:
    first, second, third = runs
    assert current_model(first, store, quiet).run == first
    made = promote(store, second)
    assert (made.before, made.after) == (served_name(first), served_name(second))
    assert made.notes == (
        f"this store has no live comparison with {made.before}, so nothing shows that it is better",
    )
    said: list[str] = []
    assert current_model(first, store, said.append).run == second
    assert "was promoted in place of first@" in said[0]
    promote(store, third)
    with pytest.raises(RecipeError, match="is already served"):
        promote(store, third)
    back = promote(store, third, undo=True)
    assert back.after == served_name(second)
    assert promote(store, second, undo=True).after == served_name(first)
    assert current_model(first, store, quiet).run == first
    with pytest.raises(RecipeError, match="was not promoted"):
        promote(store, first, undo=True)
    with pytest.raises(RecipeError, match="is not served"):
        promote(store, third, undo=True)
    assert [event.body["undo"] for event in store.events(PROMOTION)] == [False, False, True, True]
    assert all(event.body["who"] for event in store.events(PROMOTION))


def test_a_server_that_is_started_with_what_was_taken_back_serves_it(
    store: Store, runs: list[Path]
) -> None:
    current_model(runs[0], store, quiet)
    promote(store, runs[1])
    promote(store, runs[1], undo=True)
    assert current_model(runs[1], store, quiet).run == runs[1]
    assert current_model(runs[0], store, quiet).run == runs[0]


def test_nothing_is_promoted_where_it_cannot_be(
    store: Store, runs: list[Path], tmp_path: Path, finished_run: Path
) -> None:
    first, second, third = runs
    with pytest.raises(RecipeError, match="has no server"):
        promote(store, second)
    current_model(first, store, quiet)
    with pytest.raises(RunError):
        promote(store, tmp_path / "nowhere")
    weights = next((second / "model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError, match="was changed since the run ended"):
        promote(store, second)
    result = json.loads((third / "result.json").read_text())
    result["classes"] = ["other", "classes"]
    result.pop("seal")
    (third / "result.json").write_text(json.dumps(result))
    with pytest.raises(RecipeError, match="another set of classes"):
        promote(store, third)
    assert not store.events(PROMOTION)


def test_a_run_that_needs_other_columns_is_not_promoted(store: Store, runs: list[Path]) -> None:
    first, second, third = runs
    current_model(first, store, quiet)
    add_features(second, "price", "text.length")
    with pytest.raises(RecipeError, match=r"columns that requests may not have.*'price'\]"):
        promote(store, second)
    assert not store.events(PROMOTION)
    # A feature of the text needs no column, and a model that needs fewer columns may follow.
    add_features(third, "text.length")
    assert promote(store, third).after == served_name(third)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_whose_rows_have_several_labels_does_not_replace_one_of_classes(
    store: Store, runs: list[Path], recorded: bool
) -> None:
    first, second, _ = runs
    result = json.loads((second / "result.json").read_text())
    facts = {"task": result["task"], "classes": result["classes"]}
    if recorded:
        current_model(first, store, quiet)
    else:
        record_start(store, served_name(first), facts, first)
    recipe = (second / "recipe.yaml").read_text()
    (second / "recipe.yaml").write_text(recipe.replace("label_kind: class", "label_kind: several"))
    del result["seal"]
    (second / "result.json").write_text(json.dumps(result))
    with pytest.raises(RecipeError, match=r"another label type.*several"):
        promote(store, second, force=True)
    assert not store.events(PROMOTION)


def test_what_an_older_version_did_not_record_is_read_from_the_served_run(
    store: Store, runs: list[Path]
) -> None:
    first, second, third = runs
    add_features(first, "price")
    result = json.loads((first / "result.json").read_text())
    facts = {"task": result["task"], "classes": result["classes"]}
    record_start(store, served_name(first), facts, first)
    add_features(second, "price", "shop")
    with pytest.raises(RecipeError, match="'shop'"):
        promote(store, second)
    add_features(third, "price")
    assert promote(store, third).before == served_name(first)


def test_a_server_does_not_start_with_a_promoted_run_that_needs_other_columns(
    store: Store, runs: list[Path]
) -> None:
    first, second, _ = runs
    current_model(first, store, quiet)
    add_features(second, "price")
    change = {"from": served_name(first), "to": served_name(second), "run": str(second)}
    store.append(Event(PROMOTION, time.time(), change))
    with pytest.raises(RecipeError, match="'price'") as refused:
        current_model(first, store, quiet)
    assert "--undo" in str(refused.value)
    assert promote(store, second, undo=True).after == served_name(first)
    assert current_model(first, store, quiet).run == first


def test_with_servers_of_several_models_one_must_be_named(store: Store, runs: list[Path]) -> None:
    first, second, third = runs
    current_model(first, store, quiet)
    current_model(second, store, quiet)
    with pytest.raises(RecipeError, match="servers of several models"):
        promote(store, third)
    with pytest.raises(RecipeError, match="is not a served model"):
        promote(store, third, instead_of="nobody")
    assert promote(store, third, instead_of="second").before == served_name(second)
    assert served_models(store)[served_name(first)].model == served_name(first)


def test_of_two_promotions_at_once_the_first_holds_and_the_other_is_told(
    store: Store, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = runs
    current_model(first, store, quiet)
    append = store.append

    def slower(event: Event) -> Event:
        monkeypatch.setattr(store, "append", append)
        promote(store, third)
        return append(event)

    monkeypatch.setattr(store, "append", slower)
    with pytest.raises(RecipeError, match="another promotion replaced"):
        promote(store, second)
    assert served_models(store)[served_name(first)].model == served_name(third)
    assert promote(store, third, undo=True).after == served_name(first)


def test_a_promoted_run_that_was_moved_is_named_again(store: Store, runs: list[Path]) -> None:
    first, second, _ = runs
    current_model(first, store, quiet)
    promote(store, second)
    moved = second.parent / "elsewhere" / "second"
    moved.parent.mkdir()
    second.rename(moved)
    with pytest.raises(RecipeError, match="cannot be served"):
        current_model(first, store, quiet)
    made = promote(store, moved)
    assert made.before == made.after
    assert current_model(first, store, quiet).run == moved
    # It is still one step back.
    shutil.rmtree(moved)
    assert promote(store, moved, undo=True).after == served_name(first)


def compared(store: Store, shown: str, challenger: str, right: str) -> None:
    """Sixty rows on which the two differ, labelled alike."""
    setup = ComparisonSetup(shown, challenger, "text-classification", lag_s=0)
    for i in range(60):
        at = 1000.0 + i
        said = (StoredPrediction(0, shown, "a"), StoredPrediction(0, challenger, "b", shown=False))
        name = new_id(at)
        store.add_requests([StoredRequest(name, at, shown, 1, 0.01, None, said)])
        store.add_feedback(Feedback(name, 0, right, "me", at, shown, "page", "uniform", "hidden"))
    update_comparison(store, setup, time.time())


@pytest.mark.slow
def test_what_is_shown_to_be_worse_needs_force_and_the_verdict_is_written_down(
    store: Store, runs: list[Path]
) -> None:
    first, second, third = runs
    current_model(first, store, quiet)
    compared(store, served_name(first), served_name(second), right="a")
    with pytest.raises(RecipeError, match="is shown to be worse"):
        promote(store, second)
    assert not store.events(PROMOTION)
    made = promote(store, second, force=True)
    assert "WORSE" in made.notes[0]
    (event,) = store.events(PROMOTION)
    assert event.body["evidence"]["verdict"] == "worse"
    assert event.body["forced"]
    compared(store, served_name(second), served_name(third), right="b")
    assert promote(store, third).notes == (f"it is shown to be better than {served_name(second)}",)


def until(there: Callable[[], Any], within_s: float = 100.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := there()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


class Loads:
    """Engines of runs, by their names; ``broken`` ones cannot be loaded."""

    def __init__(self) -> None:
        self.made: list[StandIn] = []
        self.broken: set[str] = set()
        self.beside: list[Any] = []

    def __call__(self, run: Path, beside: Any = None) -> StandIn:
        self.beside.append(beside)
        if run.name in self.broken:
            raise RunError(str(run), "cannot be loaded", None, "Mend it.")
        facts = replace(FACTS, model=served_name(run), run=run)
        self.made.append(StandIn(facts))
        return self.made[-1]


def test_running_servers_change_over_and_back_and_end_the_one_before(
    store: Store, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = runs
    load, said = Loads(), []
    lineup, observers = build_router(
        first, load, challenger=None, store=store, settings=serving(), log=said.append
    )
    assert observers == []
    monkeypatch.setattr(successor_module, "POLL_INTERVAL_S", 0.02)
    successor = PromotionFollower(store, lineup, served_name(first), load, log=said.append)
    try:
        promote(store, second)
        until(lambda: lineup.facts.model == served_name(second))
        until(lambda: not load.made[0].ready)
        load.broken.add("third")
        promote(store, third)
        until(lambda: successor.failures)
        (event,) = until(lambda: store.events(FAILED))[:1]
        assert event.body["still"] == served_name(second)
        assert "cannot be loaded" in event.body["because"]
        assert lineup.facts.model == served_name(second)
        promote(store, third, undo=True)
        promote(store, second, undo=True)
        until(lambda: lineup.facts.model == served_name(first))
        assert any("was promoted and is now served" in line for line in said)
    finally:
        successor.close()
        lineup.close()


def test_a_store_that_was_lost_and_made_anew_knows_the_server_again(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(successor_module, "POLL_INTERVAL_S", 0.02)
    store = open_store(str(tmp_path / "lost.db"))
    first, second, _ = runs
    load, enrolled = Loads(), []

    def enrol() -> None:
        enrolled.append(current_model(first, store, quiet))

    lineup, _ = build_router(
        first, load, challenger=None, store=None, settings=serving(), log=quiet
    )
    enrol()
    name = served_name(first)
    successor = PromotionFollower(store, lineup, name, load, enrol=enrol, log=quiet)
    try:
        for one in tmp_path.glob("lost.db*"):
            one.unlink()
        until(lambda: len(enrolled) == 2)
        promote(store, second)
        until(lambda: lineup.facts.model == served_name(second))
    finally:
        successor.close()
        lineup.close()
        store.close()


@pytest.mark.slow
def test_the_challenger_itself_takes_over_without_being_loaded_again(
    store: Store, runs: list[Path]
) -> None:
    first, second, _ = runs
    load, said = Loads(), []
    lineup, observers = build_router(
        first, load, challenger=second, store=store, settings=serving(), log=said.append
    )
    assert [one.name for one in observers] == ["comparison"]
    try:
        promote(store, second)
        until(lambda: lineup.facts.model == served_name(second))
        assert len(load.made) == 2
        assert load.made[1].ready
        assert lineup.challenger is None
        assert until(lambda: observers[0].summary().get("ended")) == "another model took over"
    finally:
        lineup.close()
    assert not load.made[1].ready
    alone, observers = build_router(
        first, load, challenger=second, store=store, settings=serving(), log=said.append
    )
    alone.close()
    assert observers == []
    assert any("nothing to compare" in line for line in said)
    assert threading.active_count() < 20


def test_a_challenger_needs_a_store_and_the_same_classes(store: Store, runs: list[Path]) -> None:
    load = Loads()
    given = {"challenger": runs[1], "settings": serving(), "log": quiet}
    with pytest.raises(RecipeError, match="needs a store"):
        build_router(runs[0], load, store=None, **given)  # type: ignore[arg-type]
    assert not load.made

    def other(run: Path, beside: Any) -> StandIn:
        made = load(run, beside)
        if run == runs[1]:
            made.facts = replace(made.facts, classes=("a", "b"))
        return made

    with pytest.raises(InputError, match="other classes"):
        build_router(runs[0], other, store=store, **given)  # type: ignore[arg-type]
    assert not any(one.ready for one in load.made)


def test_the_command_says_what_it_did(runs: list[Path], tmp_path: Path) -> None:
    where = str(tmp_path / "live.db")
    store = open_store(where)
    current_model(runs[0], store, quiet)
    store.close()
    args = ["promote", str(runs[1]), "--store", where]
    made = CliRunner().invoke(app, args)
    assert made.exit_code == 0, made.output
    assert "from first@" in made.output
    assert "no live comparison" in " ".join(made.output.split())
    undone = CliRunner().invoke(app, [*args, "--undo", "--json"])
    assert undone.exit_code == 0, undone.output
    block = json.loads(undone.stdout)
    assert block["schema"] == 1
    assert block["undo"] is True
    assert block["to"] == served_name(runs[0])
    wrong = tmp_path / "mistyped.db"
    lost = CliRunner().invoke(app, [*args[:-1], str(wrong)])
    assert "was not found" in str(lost.exception)
    assert not wrong.exists()
    again = CliRunner().invoke(app, [*args, "--undo"])
    assert isinstance(again.exception, (RecipeError, SystemExit))
    assert again.exit_code != 0


@pytest.mark.parametrize(
    ("cores", "way", "shares"), [(1, "shadow", True), (1, "ab", False), (2, "shadow", False)]
)
def test_the_challenger_shares_the_models_thread_where_there_is_one_core(
    store: Store,
    runs: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    way: str,
    shares: bool,
) -> None:
    monkeypatch.setattr("holdfast.plugins.service.compose.usable_cores", lambda: cores)
    load = Loads()
    settings = serving([f"serve.compare={way}"])
    lineup, _ = build_router(
        runs[0], load, challenger=runs[1], store=store, settings=settings, log=quiet
    )
    lineup.close()
    assert load.beside == [None, load.made[0] if shares else None]


def test_users_of_a_language_model_are_not_parted(store: Store, runs: list[Path]) -> None:
    load = Loads()

    def writers(run: Path, beside: Any) -> StandIn:
        made = load(run, beside)
        made.facts = replace(made.facts, task="causal-lm", classes=None)
        return made

    settings = serving(["serve.compare=ab"])
    with pytest.raises(RecipeError, match="cannot be ab for the task causal-lm"):
        build_router(
            runs[0], writers, challenger=runs[1], store=store, settings=settings, log=quiet
        )
    assert not any(one.ready for one in load.made)
