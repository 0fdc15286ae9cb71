"""Drift as an observer: alarms that are written down once, numbers for /metrics, restarts."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.plugins.drift.rows import (
    DriftRows,
    Reference,
    hashed_word_vectors,
    monitored_statistics,
    unit_vectors,
    word_row_counts,
)
from holdfast.plugins.drift.run_rows import RunReference
from holdfast.plugins.service.compose import start_drift_observer
from holdfast.plugins.service.drift_observer import (
    DriftObserver,
    LazyDriftObserver,
    drift_observers,
    same_answer,
    texts_of,
)
from holdfast.plugins.service.records import EngineFacts, RowPrediction, RowPredictions, Served
from holdfast.plugins.service.settings import serving
from holdfast.plugins.store.records import Feedback
from holdfast.plugins.store.store import open_store
from holdfast.recipe import DataPart

FACTS = EngineFacts(
    "text-classification", "reviews@01", Path("reviews"), ("text",), ("no", "yes"), "float32", ""
)
WORDS = [a + b for a in "bdfgkl" for b in ("a", "e", "i", "o", "u")]


def _texts(n: int, seed: int, word: str = "") -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join([*random.choice(WORDS, 8), word]).strip() for _ in range(n)]


def _vectors(n: int, seed: int, by: float = 0.0) -> Any:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, 12))
    rows[:, 0] += by
    return rows


def _sure(n: int, seed: int) -> Any:
    return np.random.default_rng(100 + seed).uniform(0.7, 1, n)


@pytest.fixture
def held() -> RunReference:
    texts, sure, random = _texts(120, 0), _sure(120, 0), np.random.default_rng(5)
    numbers = monitored_statistics(texts, (), sure.tolist())
    answers = (random.uniform(size=120) < 0.5).astype(np.int64)
    rows = DriftRows(120, unit_vectors(_vectors(120, 0)), answers, numbers)
    right = (random.uniform(size=120) < sure).astype(float)
    reference = Reference(rows, ("no", "yes"), right, word_row_counts(texts), 120)
    return RunReference(reference, hashed_word_vectors(texts))


def _served(
    n: int, seed: int, *, by: float = 0.0, word: str = "", vectors: bool = True, at: int = 0
) -> Served:
    random = np.random.default_rng(seed)
    answers = tuple(
        RowPrediction("yes" if random.uniform() < 0.5 else "no", float(p)) for p in _sure(n, seed)
    )
    made = _vectors(n, seed, by).astype(np.float32) if vectors else None
    rows = tuple({"text": text} for text in _texts(n, seed, word))
    return Served(f"r{seed}-{at}", 0.0, rows, RowPredictions(answers, FACTS.model, made))


def _watch(held: RunReference, **more: Any) -> DriftObserver:
    return DriftObserver(held, more.pop("facts", FACTS), DataPart(), **more)


def _look(watch: DriftObserver, *parts: Served) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for part in parts:
        watch.observe(part)
        found += watch.events()
    return found


def test_clean_requests_raise_no_alarm_and_accuracy_is_estimated(held: RunReference) -> None:
    watch = _watch(held)
    assert _look(watch, *(_served(50, seed) for seed in range(1, 25))) == []
    said = watch.summary()
    assert (said["rows"], said["alarms"], said["by"]) == (1200, 0, "model")
    assert said["accuracy_low"] < said["accuracy_estimated"] < said["accuracy_high"]
    assert said["accuracy_estimated"] == pytest.approx(0.85, abs=0.1)
    json.dumps(said)


def test_a_change_is_told_once_and_what_it_is_like_when_that_is_known(held: RunReference) -> None:
    watch = _watch(held, log_texts=True)
    clean = [_served(50, seed) for seed in range(1, 7)]
    other = [_served(50, seed, by=3.0, word="zebra mail a.b@example.com") for seed in range(50, 70)]
    found = _look(watch, *clean, *other)
    assert [kind for kind, _ in found] == ["drift", "drift regime"]
    alarm, regime = (body for _, body in found)
    assert alarm["side"] == "inputs"
    assert 285 <= alarm["since"] <= 315
    when = f"since about row {alarm['since']}, detected at row {alarm['at']}"
    assert alarm["because"] == f"inputs differ from the validation rows {when}"
    assert "zebra" in {term["word"] for term in regime["terms"]}
    assert regime["inputs"]["told_apart"]["value"] > 0.9
    assert "zebra" in regime["examples"][0]["text"]
    assert "example.com" not in json.dumps(regime["examples"])
    said = watch.summary()
    assert (said["alarms"], said["changed"]) == (1, 1)
    assert said["against"].startswith("rows from row")


def test_the_log_says_what_an_alarm_is_about(held: RunReference) -> None:
    from holdfast.plugins.service.observers import ObserverThread

    lines: list[str] = []
    after = ObserverThread([_watch(held)], None, lines.append)
    for seed in range(50, 70):
        after.notify(_served(50, seed, by=3.0, word="zebra"))
    assert after.wait_until_idle(60)
    after.close(60)
    assert lines[0].startswith("drift: inputs differ from the validation rows")


def test_texts_stay_where_they_are_not_to_be_written_down(held: RunReference) -> None:
    watch = _watch(held)
    secret = [_served(50, seed, by=3.0, word="zebra") for seed in range(50, 70)]
    secret[3] = replace(secret[3], rows=tuple({"text": f"of ada{n}"} for n in range(50)))
    found = _look(watch, *secret)
    body = dict(found)["drift regime"]
    assert "text" not in body["examples"][0]
    assert body["examples"][0]["row"].startswith("r")
    assert "ada" not in json.dumps([found, watch.state(), watch.summary()])


def test_words_stand_in_where_the_model_gives_no_vectors(held: RunReference) -> None:
    clean = [_served(50, seed, vectors=False) for seed in range(1, 7)]
    other = [_served(50, seed, word="zebra zebra", vectors=False) for seed in range(50, 60)]
    watch = _watch(held)
    found = _look(watch, *clean, *other)
    assert watch.summary()["by"] == "words"
    assert found[0][0] == "drift"
    assert 285 <= found[0][1]["since"] <= 320
    # Vectors in another precision than the reference's are not held against it.
    exact = _watch(held, facts=replace(FACTS, precision="int8"))
    _look(exact, _served(50, 1))
    assert exact.summary()["by"] == "words"


def test_a_restart_goes_on(held: RunReference) -> None:
    parts = [_served(50, seed) for seed in range(1, 7)]
    parts += [_served(10, seed, by=3.0) for seed in range(50, 60)]
    whole = _watch(held)
    expected = _look(whole, *parts)
    found = []
    watch = _watch(held)
    for part in parts:
        found += _look(watch, part)
        state = json.loads(json.dumps(watch.state()))
        watch = _watch(held)
        watch.restore(state)
    assert [(k, b["at"]) for k, b in found] == [(k, b["at"]) for k, b in expected]
    assert watch.summary()["rows"] == whole.summary()["rows"]
    for broken in ({}, {"by": "model", "monitor": {}}):
        with pytest.raises(ValueError, match=r"\w"):
            _watch(held).restore(broken)


def test_labels_drawn_evenly_show_harm_and_others_are_counted(held: RunReference) -> None:
    watch = _watch(held, alarm_distance=1000)
    served = _served(300, 1)
    watch.observe(served)
    for n, answer in enumerate(served.predictions.answers[:120]):
        wrong = "no" if answer.prediction == "yes" else "yes"
        watch.add_feedback(Feedback(served.request, n, wrong, "ada", 0.0, drawn="uniform"))
    watch.add_feedback(Feedback(served.request, 1, "no", "ada", 0.0))
    watch.add_feedback(Feedback("unknown", 1, "no", "ada", 0.0, drawn="uniform"))
    said = watch.summary()
    assert [kind for kind, _ in watch.events()].count("harm") >= 1
    assert said["harmful"] == 1
    assert said["labels"] == 120
    assert (said["labels_not_even"], said["labels_of_unknown_rows"]) == (1, 1)
    assert said["accuracy_labelled"] < 0.1


def test_a_row_that_is_labelled_again_and_again_counts_once(held: RunReference) -> None:
    """A client that sends its label until somebody listens is no harm."""
    watch = _watch(held, alarm_distance=1000)
    served = _served(10, 1)
    watch.observe(served)
    for _ in range(60):
        watch.add_feedback(Feedback(served.request, 3, "neither", "ada", 0.0, drawn="uniform"))
    said = watch.summary()
    assert (said["labels"], said["labels_of_a_row_again"], said["harmful"]) == (1, 59, 0)


def test_another_model_is_not_watched(held: RunReference) -> None:
    watch = _watch(held)
    served = _served(50, 1)
    _look(watch, replace(served, predictions=replace(served.predictions, model="new@02")))
    assert watch.summary()["rows"] == 0


def test_through_the_service_an_alarm_is_an_event_and_a_gauge(
    held: RunReference, serving_of: Callable[..., Any], tmp_path: Path
) -> None:
    rows = replace(held.reference.rows, vectors=None, answers=None, numbers={})
    words = RunReference(replace(held.reference, rows=rows, classes=()), held.word_vectors)
    import sys

    facts = sys.modules["stand_in"].FACTS
    watch = DriftObserver(words, facts, DataPart())
    client = serving_of(observers=[watch], store=True)
    for seed in range(4):
        assert client.post("/predict", json={"texts": _texts(60, seed)}).status_code == 200
    for seed in range(10, 20):
        texts = _texts(50, seed, "zebra quagga okapi")
        assert client.post("/predict", json={"texts": texts}).status_code == 200
    assert client.service.observer_thread.wait_until_idle(30)
    shown = client.get("/metrics").text
    assert "drift" in shown
    found = open_store(str(tmp_path / "store.db")).events("drift")
    assert len(found) == 1
    assert found[0].body["side"] == "inputs"
    assert client.service.observer_summaries()["drift"]["alarms"] == 1


def test_what_was_asked_is_read_as_the_reference_reads_it() -> None:
    rows = ({"text": "a", "other": "b", "price": 3}, {"text": None, "other": "c"})
    assert texts_of(rows, FACTS, DataPart()) == ("a", "")
    pair = replace(FACTS, columns=("text", "other", "price"))
    assert texts_of(rows, pair, DataPart(text=("text", "other"))) == ("a ⟂ b", " ⟂ c")
    tags = replace(FACTS, task="token-classification", columns=("tokens",))
    assert texts_of([{"tokens": ["a", "b"]}], tags, DataPart()) == ("a b",)
    assert texts_of([{}], replace(FACTS, task="image-classification"), DataPart()) is None
    assert same_answer(["b", "a"], ["a", "b"], in_order=False)
    assert not same_answer(["b", "a"], ["a", "b"])
    assert same_answer("Yes", " yes")


def test_the_watch_begins_with_the_first_request_and_keeps_its_state(held: RunReference) -> None:
    said: list[str] = []
    first = LazyDriftObserver(lambda: _watch(held), said.append)
    assert first.summary()["watched"] == 0
    first.observe(_served(50, 1))
    assert (first.summary()["watched"], first.summary()["rows"]) == (1, 50)
    state = json.loads(json.dumps(first.state()))
    again = LazyDriftObserver(lambda: _watch(held), said.append)
    again.restore(state)
    # Nothing was asked since: what is stored stays what it was.
    assert again.state() == state
    again.observe(_served(50, 2))
    assert again.summary()["rows"] == 100
    again.add_feedback(Feedback("r2-0", 0, "no", "ada", 0.0))
    assert again.summary()["labels_not_even"] == 1
    assert said == []
    broken = LazyDriftObserver(lambda: _watch(held), said.append)
    broken.restore({"by": "model", "monitor": {}})
    broken.observe(_served(50, 3))
    assert broken.summary()["rows"] == 50
    assert "starts again" in said[0]


def test_a_model_that_takes_over_is_watched_by_its_own_reference(held: RunReference) -> None:
    said: list[str] = []
    model = ["first"]
    watch = LazyDriftObserver(lambda: _watch(held), said.append, lambda: model[0])
    watch.observe(_served(50, 1))
    watch.observe(_served(50, 2))
    assert watch.summary()["rows"] == 100
    watch.observe(_served(400, 4, by=3.0))
    model[0] = "second"
    before = watch.state()
    watch.observe(_served(30, 3))
    assert watch.summary()["rows"] == 30
    # What befell the one before is told all the same, and what is known of it says nothing of this.
    assert "drift" in [kind for kind, _ in watch.events()]
    assert watch.events() == []
    with pytest.raises(ValueError, match="first"):
        watch.restore(before)
    assert ["second" in line and "first" in line for line in said] == [True]


def test_without_a_reference_the_service_goes_on_and_says_why(
    serving_of: Callable[..., Any], tmp_path: Path
) -> None:
    import sys

    facts = replace(sys.modules["stand_in"].FACTS, run=tmp_path / "nothing")
    told: list[Any] = []
    client_log: list[str] = []
    (watch,) = drift_observers(lambda: facts, serving(()), client_log.append, told.append)
    assert "first request" in told[0].because
    client = serving_of(observers=[watch])
    assert client.post("/predict", json={"texts": ["a b"]}).status_code == 200
    assert client.service.observer_thread.wait_until_idle(30)
    assert client.service.observer_thread.defects == 0
    assert client.service.observer_summaries()["drift"]["watched"] == 0
    assert "nothing" in client.service.observer_summaries()["drift"]["why"]
    assert len(client_log) == 1
    assert drift_observers(lambda: facts, serving(["serve.drift=false"]), print, print) == []


@pytest.mark.parametrize("stopped", [False, True])
def test_a_service_that_was_stopped_at_once_is_not_watched_and_says_nothing(
    serving_of: Callable[..., Any], stopped: bool
) -> None:
    client = serving_of()
    client.service.draining = stopped
    start_drift_observer(client.service, lambda _: None)
    assert client.said == []
    assert len(client.service.observer_thread.observers) == (not stopped)


@pytest.mark.parametrize(("rows", "said"), [(39, True), (40, False)])
def test_a_reference_too_small_to_watch_inputs_is_said_when_the_service_starts(
    tmp_path: Path, rows: int, said: bool, finished_run: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    result["valid"]["n"] = rows
    del result["seal"]
    (run / "result.json").write_text(json.dumps(result), "utf-8")
    told: list[Any] = []
    drift_observers(lambda: replace(FACTS, run=run), serving(()), lambda _: None, told.append)
    found = [one for one in told if one.chosen == "inputs are not monitored"]
    assert len(found) == said
    assert not said or "39 validation rows" in found[0].because
