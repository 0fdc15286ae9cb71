"""A model tried from a page: it answers as ``predict`` does, one at a time, and is let go."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.core.errors import DataError
from holdfast.plugins.dashboard.inference import Busy, ModelTrial, input_fields
from holdfast.runs.predictor import Predictor

ORIGIN = {"origin": "http://127.0.0.1:8081"}


def test_it_answers_as_predict_does(finished_run: Path) -> None:
    text = "w1 bad w2 w3"
    (wanted,) = Predictor.load(finished_run).predict([text], probabilities=True)
    trier = ModelTrial()
    tried = asyncio.run(trier.predict(finished_run, {"text": text}, True))
    trier.close()
    assert tried.prediction == wanted.prediction
    assert tried.confidence == wanted.confidence
    assert wanted.probabilities is not None
    assert {one.name: one.share / 100 for one in tried.probabilities} == pytest.approx(
        dict(wanted.probabilities)
    )
    assert tried.probabilities[0].name == tried.answer
    assert tried.loaded
    assert tried.reasons is not None


def test_the_model_is_loaded_once_and_let_go_when_nobody_asks(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    real = Predictor.load

    def counted(run: Path) -> Predictor:
        loads.append(run)
        return real(run)

    monkeypatch.setattr(Predictor, "load", counted)
    trier = ModelTrial(idle_s=0.0)
    row = {"text": "w1 w2"}

    async def twice() -> None:
        assert (await trier.predict(finished_run, row, False)).loaded
        assert not (await trier.predict(finished_run, row, False)).loaded

    asyncio.run(twice())
    assert loads == [finished_run]
    trier._unload_if_idle()
    assert trier._loaded is None
    trier.close()


def test_a_threshold_chosen_after_the_first_answer_applies_to_the_next(
    finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    rows = [{"text": text} for text in ("w1 bad w2", "w1 good w2", "w1 w2", "good bad")]
    trier = ModelTrial()
    before = [asyncio.run(trier.predict(run, row, False)).prediction for row in rows]
    holdfast.threshold(run, coverage=0.1)
    after = [asyncio.run(trier.predict(run, row, False)).prediction for row in rows]
    trier.close()
    assert None not in before
    assert None in after


def test_who_comes_when_many_wait_is_told_at_once(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    trier = ModelTrial(waiting=2)
    monkeypatch.setattr(trier, "_predict_row", lambda *_: held.wait(20))

    async def crowd() -> int:
        asked = [asyncio.create_task(trier.predict(finished_run, {}, False)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await trier.predict(finished_run, {}, False)
        held.set()
        await asyncio.gather(*asked)
        return trier._waiting

    assert asyncio.run(crowd()) == 0
    trier.close()


@pytest.mark.parametrize("text", ["", "   ", "x" * 20_001])
def test_a_row_that_cannot_be_read_is_refused_before_a_model_is_loaded(
    finished_run: Path, text: str
) -> None:
    trier = ModelTrial()
    with pytest.raises(DataError):
        asyncio.run(trier.predict(finished_run, {"text": text}, False))
    assert trier._loaded is None
    trier.close()


def test_every_task_answers_on_the_page_and_takes_what_is_right(
    old_runs: Path, open_client: Callable[..., Any], tmp_path: Path
) -> None:
    """The runs of an older version, one of each task and kind of label."""
    from holdfast.plugins.store.store import open_store

    answered: list[str] = []
    store = open_store(str(tmp_path / "store.db"))
    with open_client(old_runs / "runs", store) as client:
        for run in sorted(path for path in (old_runs / "runs").iterdir() if path.is_dir()):
            fields = input_fields(run)
            address = f"/try?run={run.name}&part=answer"
            page = client.get(f"/try?run={run.name}")
            assert page.status_code == 200
            if fields[0].input_type == "picture":
                picture = next((old_runs / "rows").rglob("*.png")).read_bytes()
                made = client.post(address, content=picture, headers=ORIGIN)
                refused = client.post(address, content=b"no picture", headers=ORIGIN)
                assert refused.status_code == 400
            else:
                row = {
                    f"f.{one.name}": "w1 jo@example.com" if one.input_type == "text" else "1"
                    for one in fields
                }
                made = client.post(address, data=row, headers=ORIGIN)
            assert made.status_code == 200, (run.name, re.sub(r"<[^>]*>", " ", made.text))
            assert "answer-title" in made.text
            kept = re.search(r'name="answer" value="([^"]*)"', made.text)
            if kept is not None:
                given = {"answer": kept[1], "who": "Ada"} | filled(made.text)
                sent = client.post(f"/feedback?run={run.name}", data=given, headers=ORIGIN)
                assert sent.status_code == 303, (run.name, re.sub(r"<[^>]*>", " ", sent.text))
                answered.append(run.name)
    assert len(answered) >= 5
    labels = store.feedback()
    assert len(labels) == len(answered)
    assert {type(one.label) for one in labels} >= {str, list, float}
    assert all(one.row for one in labels)
    # As of a service: masked, and with an end.
    stored = json.dumps([one.row for one in labels])
    assert "[EMAIL]" in stored
    assert "jo@example.com" not in stored
    assert all(one.expires_at == pytest.approx(one.at + 30 * 86_400) for one in labels)
    assert store.expire(max(one.at for one in labels) + 31 * 86_400) == len(labels)
    store.close()


def filled(page: str) -> dict[str, str]:
    """A label as the form has it already, or one that could be right."""
    text = re.search(r'<textarea id="label"[^>]*>(.*?)</textarea>', page, re.DOTALL)
    if text is not None:
        return {"label": html.unescape(text[1]).strip() or "w1"}
    found = re.search(r'(?:option value|name="label" value)="([^"]*)"', page)
    return {"label": html.unescape(found[1])} if found else {}
