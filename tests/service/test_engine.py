"""The engine of a run: what it reads, whom it drops, how it ends."""

from __future__ import annotations

import asyncio
import base64
import csv
import gc
import importlib.util
import io
import json
import shutil
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stand_in import add_features

from holdfast.core.errors import DataError, InputError, RecipeError
from holdfast.data.columns.profile import is_missing
from holdfast.data.scratch import scratch_file
from holdfast.plugins.export.export import export
from holdfast.plugins.service.engine.columns import run_columns
from holdfast.plugins.service.engine.engine import ModelEngine
from holdfast.plugins.service.engine.open import engine_of, open_engine
from holdfast.plugins.service.engine.precision import choose_precision
from holdfast.plugins.service.engine.request_queue import EngineTurn, QueueLimits, WaitingRequest
from holdfast.plugins.service.engine.rows import required_columns
from holdfast.plugins.service.engine.tables import TableHandler
from holdfast.plugins.service.records import DeadlineExceeded, QueueFull
from holdfast.recipe import read_recipe
from holdfast.runs.predictor import Predictor
from holdfast.runs.threshold import ThresholdRule

HOSTILE = [
    "",
    "  \t\n",
    "　 \u2003",
    "\x1c\x1f",
    "\u180e",
    "\u200b",
    "a\u200bb",
    "\ufeffgood",
    "cafÃ© â€œgoodâ€\x9d",
    "e\u0301 and \U0001f600",
    "x" * 5000,
    "[MASK] [SEP] <pad>",
    "\r\n good \r\n",
    "\x07bell",
    "日本語の文",
]


@pytest.fixture(scope="module")
def engine(finished_run: Path) -> Iterator[ModelEngine]:
    found = open_engine(finished_run, threads=1)
    found.warm()
    yield found
    found.close()


@pytest.fixture(scope="module")
def predictor(finished_run: Path) -> Predictor:
    return Predictor.load(finished_run)


def said(engine: ModelEngine, rows: list[dict[str, Any]]) -> Any:
    return asyncio.run(engine.answer(rows))


def by_predict(predictor: Predictor, rows: list[dict[str, Any]], folder: Path) -> Any:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return list(predictor.predict(str(path), probabilities=True))


def compare(found: Any, expected: Any) -> None:
    for one, other in zip(found.answers, expected, strict=True):
        assert one.prediction == other.prediction
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        assert (one.probabilities is None) == (other.probabilities is None)


def test_its_facts_are_the_runs(engine: ModelEngine, finished_run: Path) -> None:
    facts = engine.facts
    assert (facts.task, facts.precision, facts.run) == (
        "text-classification",
        "float32",
        finished_run,
    )
    assert facts.model.startswith(f"{finished_run.name}@")
    assert facts.columns == ("text",)
    assert facts.label_kind == "class"


def test_texts_are_read_as_predict_reads_them(
    engine: ModelEngine, predictor: Predictor, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"text": text} for text in HOSTILE]
    rows += [{"text": "fine", "other": [1, {"a": None}]}]
    compare(said(engine, rows), by_predict(predictor, rows, tmp_path))
    # These hold what is no text, and go the longer way.
    more: list[dict[str, Any]] = [{"text": None}, {"text": 7}, {"text": True}, {"text": 2.5}]
    compare(said(engine, more), by_predict(predictor, more, tmp_path))


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=40), max_size=6))
def test_any_texts_are(
    engine: ModelEngine, predictor: Predictor, tmp_path: Path, texts: list[str]
) -> None:
    rows = [{"text": text.replace("\0", "")} for text in texts]
    if rows:
        compare(said(engine, rows), by_predict(predictor, rows, tmp_path))


def test_no_white_space_of_arrow_is_text_to_the_engine() -> None:
    """What ``_may_be_missing`` takes for text at a glance is none to Arrow's eye."""
    import pyarrow as pa

    from holdfast.plugins.service.engine.texts import _may_be_missing

    points = [chr(p) for p in range(1, 0x30000) if not 0xD800 <= p < 0xE000]
    missing = is_missing(pa.array(points)).to_numpy(zero_copy_only=False)
    for point, gone in zip(points, missing, strict=True):
        assert not gone or _may_be_missing([point]), hex(ord(point))


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 8_000_001])
def test_what_predict_refuses_is_refused(engine: ModelEngine, text: str) -> None:
    with pytest.raises(DataError) as error:
        said(engine, [{"text": "fine"}, {"text": text}])
    assert "the request" in str(error.value)
    assert "/tmp" not in str(error.value)
    # Nobody else is hurt by it.
    assert said(engine, [{"text": "fine"}]).answers[0].prediction


def test_a_column_that_is_not_there_is_told(engine: ModelEngine) -> None:
    with pytest.raises(InputError, match="'text'"):
        said(engine, [{"txt": "fine"}])


class Held:
    """The engine's network, held until it is let go: what waits behind it can be looked at."""

    def __init__(self, engine: ModelEngine) -> None:
        self.form: Any = engine._handler
        self.inner = self.form.network
        self.go = threading.Event()
        self.asked = 0

    def __call__(self, **batch: Any) -> Any:
        self.go.wait(10)
        self.asked += len(batch["input_ids"])
        return self.inner(**batch)

    def capturing_features(self) -> Any:
        return self.inner.capturing_features()

    def __enter__(self) -> Held:
        self.form.network = self
        return self

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.form.network = self.inner


async def until(done: Any) -> None:
    end = time.monotonic() + 100
    while not done():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def test_many_rows_and_few_come_side_by_side(engine: ModelEngine) -> None:
    """A thousand rows are one request; small ones that come later are answered before it is."""
    large = [
        {"text": f"number {i} of many, some longer than others" * (1 + i % 4)} for i in range(1000)
    ]

    async def both(held: Held) -> tuple[Any, list[str]]:
        ended: list[str] = []
        asked = {"large": asyncio.create_task(engine.answer(large))}
        await until(lambda: engine.figures()["rows_waiting"] >= 900)
        for name in ("first", "second", "third"):
            asked[name] = asyncio.create_task(engine.answer([{"text": "small"}]))
        for name, task in asked.items():
            task.add_done_callback(lambda _, name=name: ended.append(name))
        await until(lambda: len(engine._open_futures) == 4)
        held.go.set()
        await asyncio.gather(*asked.values())
        return await asked["large"], ended

    with Held(engine) as held:
        whole, ended = asyncio.run(both(held))
    assert len(whole.answers) == 1000
    assert ended == ["first", "second", "third", "large"]
    alone = said(engine, [large[17]]).answers[0]
    assert whole.answers[17].prediction == alone.prediction
    assert whole.answers[17].confidence == pytest.approx(alone.confidence, abs=1e-5)


def test_who_went_away_costs_no_time(engine: ModelEngine) -> None:
    async def asked(held: Held) -> None:
        first = asyncio.create_task(engine.answer([{"text": "first"}]))
        await until(lambda: engine.figures()["tokens_waiting"] == 0 and engine._open_futures)
        gone = asyncio.create_task(engine.answer([{"text": "gone"}] * 5))
        await until(lambda: engine.figures()["rows_waiting"] == 5)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        before = engine.figures()["gone_total"]
        held.go.set()
        await first
        await engine.answer([{"text": "last"}])
        assert engine.figures()["gone_total"] == before + 1
        assert held.asked == 2

    with Held(engine) as held:
        asyncio.run(asked(held))


def test_who_is_late_hears_it_in_time_and_costs_none(engine: ModelEngine) -> None:
    async def asked(held: Held) -> None:
        first = asyncio.create_task(engine.answer([{"text": "first"}]))
        await until(lambda: engine.figures()["tokens_waiting"] == 0 and engine._open_futures)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            # The first one still has the model: it is not waited for.
            await engine.answer([{"text": "late"}], began + 0.5)
        with pytest.raises(DeadlineExceeded):
            await engine.answer([{"text": "late"}], began - 1)
        before = engine.figures()["late_total"]
        held.go.set()
        await first
        await engine.answer([{"text": "last"}])
        assert engine.figures()["late_total"] == before + 1
        assert held.asked == 2

    with Held(engine) as held:
        asyncio.run(asked(held))


def test_a_model_that_once_stood_still_is_not_refused_for_ever(finished_run: Path) -> None:
    engine = open_engine(finished_run, threads=1)
    try:
        engine.warm()
        # As after a turn in which the machine slept for a month.
        engine._pace.add(100, 30 * 86_400.0)
        refused = 0
        while True:
            try:
                found = asyncio.run(engine.answer([{"text": "come"}], time.monotonic() + 20))
                break
            except DeadlineExceeded:
                refused += 1
                assert refused < 30
        assert refused > 0
        assert found.answers[0].prediction
    finally:
        engine.close()


def test_more_than_can_wait_is_refused_at_once(finished_run: Path) -> None:
    engine = open_engine(finished_run, threads=1)
    engine._request_queue.limits = QueueLimits(rows=3, tokens=10_000, max_wait_s=60)
    try:
        with pytest.raises(QueueFull, match="not ready"):
            said(engine, [{"text": "early"}])
        engine.warm()

        async def asked(held: Held) -> None:
            first = asyncio.create_task(engine.answer([{"text": "first"}]))
            await until(lambda: engine.figures()["tokens_waiting"] == 0 and engine._open_futures)
            rest = [asyncio.create_task(engine.answer([{"text": "more"}])) for _ in range(3)]
            await until(lambda: engine.figures()["rows_waiting"] == 3)
            with pytest.raises(QueueFull) as full:
                await engine.answer([{"text": "too many"}])
            assert full.value.retry_after >= 1
            held.go.set()
            # Whoever was taken is answered.
            for answered in await asyncio.gather(first, *rest):
                assert answered.answers[0].prediction

        with Held(engine) as held:
            asyncio.run(asked(held))
        assert engine.figures()["refused_total"] == 2
    finally:
        engine.close()


def test_what_was_taken_is_finished_and_no_more_is_taken(finished_run: Path) -> None:
    engine = open_engine(finished_run, threads=1)
    engine.warm()

    async def asked(held: Held) -> None:
        taken = [asyncio.create_task(engine.answer([{"text": "taken"}] * 30)) for _ in range(4)]
        await until(lambda: len(engine._open_futures) == 4)
        end = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        assert not engine.ready
        with pytest.raises(QueueFull, match="shutting down"):
            await engine.answer([{"text": "after"}])
        held.go.set()
        await end
        assert [len((await one).answers) for one in taken] == [30] * 4

    with Held(engine) as held:
        asyncio.run(asked(held))
    engine.close()
    engine.close()


def test_a_request_that_breaks_the_model_breaks_no_other(engine: ModelEngine) -> None:
    class Breaks(Held):
        def __call__(self, **batch: Any) -> Any:
            self.go.wait(10)
            if batch["input_ids"].shape[1] > 60:
                raise RuntimeError("broken")
            return self.inner(**batch)

    async def asked(held: Held) -> None:
        first = asyncio.create_task(engine.answer([{"text": "first"}]))
        await until(lambda: engine.figures()["tokens_waiting"] == 0 and engine._open_futures)
        rest = [
            asyncio.create_task(engine.answer([{"text": text}]))
            for text in ("one", "word " * 90, "two")
        ]
        await until(lambda: engine.figures()["rows_waiting"] == 3)
        held.go.set()
        await first
        found = await asyncio.gather(*rest, return_exceptions=True)
        assert isinstance(found[1], RuntimeError)
        assert found[0].answers[0].prediction
        assert found[2].answers[0].prediction

    with Breaks(engine) as held:
        asyncio.run(asked(held))
    assert said(engine, [{"text": "fine"}]).answers[0].prediction


def test_a_request_that_breaks_the_model_alone_is_not_tried_again(engine: ModelEngine) -> None:
    class Breaks(Held):
        def __call__(self, **batch: Any) -> Any:
            self.asked += len(batch["input_ids"])
            raise RuntimeError("broken")

    with Breaks(engine) as held, pytest.raises(RuntimeError, match="broken"):
        said(engine, [{"text": "alone"}])
    assert held.asked == 1


def test_the_lean_network_is_the_saved_one(engine: ModelEngine, predictor: Predictor) -> None:
    """Batches of all shapes, within a millionth in float32."""
    form: Any = engine._handler
    saved: Any = predictor.model
    network, rng = saved.models[0].network, np.random.default_rng(0)
    for rows, length in ((1, 1), (1, 7), (5, 30), (17, 12)):
        ids = torch.from_numpy(rng.integers(0, 30, (rows, length)))
        mask = torch.ones_like(ids)
        mask[:, 1:] = torch.from_numpy((rng.random((rows, length)) > 0.3).astype(int))[:, 1:]
        batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids}
        with torch.inference_mode():
            found, expected = form.network(**batch).softmax(-1), network(**batch).softmax(-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_another_job_has_the_model_alone(engine: ModelEngine) -> None:
    async def asked() -> str:
        return await engine.run(lambda: threading.current_thread().name)

    assert asyncio.run(asked()) == "model"


def test_an_engine_beside_shares_the_thread_and_comes_second(
    engine: ModelEngine, finished_run: Path
) -> None:
    beside = open_engine(finished_run, share_with=engine)
    assert beside.thread is engine.thread
    beside.warm()
    order: list[str] = []
    engine.listeners.append(lambda *_: order.append("first"))
    beside.listeners.append(lambda *_: order.append("second"))

    async def asked(held: Held) -> None:
        tasks = [asyncio.create_task(engine.answer([{"text": "a"}]))]
        await until(lambda: engine.figures()["tokens_waiting"] == 0 and engine._open_futures)
        tasks.append(asyncio.create_task(beside.answer([{"text": "b"}])))
        await until(lambda: beside.figures()["rows_waiting"] == 1)
        tasks.append(asyncio.create_task(engine.answer([{"text": "c"}])))
        await until(lambda: engine.figures()["rows_waiting"] == 1)
        held.go.set()
        await asyncio.gather(*tasks)

    with Held(engine) as held:
        asyncio.run(asked(held))
    assert order == ["first", "first", "second"]
    beside.close()
    engine.listeners.clear()
    assert said(engine, [{"text": "still there"}]).answers[0].prediction


def test_a_feature_of_the_text_needs_no_column_of_its_own(
    finished_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    add_features(run, "text.length", "price")
    made = open_engine(run)
    made.warm()
    try:
        assert made.facts.columns == ("text", "price")
        (row,) = said(made, [{"text": "w1 good", "price": 2}]).answers
        assert row.prediction in made.facts.classes
    finally:
        made.close()


def test_the_columns_of_a_recipe_are_those_of_the_loaded_model(old_runs: Path) -> None:
    known = {}
    for run in sorted((old_runs / "runs").iterdir()):
        task = str(read_recipe(run / "recipe.yaml").task)
        known[run.name] = run_columns(run, task)
        assert known[run.name] in (None, required_columns(Predictor.load(run)))
    assert sum(one is not None for one in known.values()) >= 4


def test_an_unknown_precision_is_refused(finished_run: Path) -> None:
    with pytest.raises(RecipeError, match="--precision"):
        open_engine(finished_run, "int8")


def test_a_threshold_leaves_rows_to_a_person(
    finished_run: Path, marked_csv: Path, tmp_path: Path
) -> None:
    predictor = Predictor.load(finished_run)
    with marked_csv.open(encoding="utf-8", newline="") as file:
        rows = [{"text": line["text"]} for line in csv.DictReader(file)][:12]
    sure = sorted(one.confidence for one in by_predict(predictor, rows, tmp_path))
    predictor.rule = ThresholdRule("precision", (sure[0] + sure[-1]) / 2)
    made = choose_precision(None, predictor, "float32", lambda _: None)
    recipe = read_recipe(finished_run / "recipe.yaml")
    engine = engine_of(predictor, recipe, made, finished_run, "a@1")
    engine.warm()
    found, expected = said(engine, rows), by_predict(predictor, rows, tmp_path)
    engine.close()
    compare(found, expected)
    assert [one.because for one in found.answers] == [one.because for one in expected]
    assert 0 < sum(one.prediction is None for one in found.answers) < 12


def with_export(run: Path, form: str, ours: float) -> Path:
    """The run with an export that was measured as ``ours`` ms a row, the model itself as 10."""
    folder = export(run, form).folder
    facts = json.loads((folder / "export.json").read_text("utf-8"))
    for row in facts["speed"]["rows"]:
        row["ms"]["16"] = 10.0 if row["engine"] == "torch" else ours
    (folder / "export.json").write_text(json.dumps(facts), "utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_auto_takes_what_export_kept(
    finished_run: Path, engine: ModelEngine, tmp_path: Path, form: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    folder = with_export(run, form, 1.0)
    told: list[Any] = []
    auto = open_engine(run, "auto", threads=1, notify=told.append)
    auto.warm()
    texts = ["w1 w2", "a longer text with more words in it", "x", "", "w3 " * 40]
    found = said(auto, [{"text": text} for text in texts])
    plain = said(engine, [{"text": text} for text in texts])
    auto.close()
    assert auto.facts.precision == f"float32 ({form})"
    assert str(folder) in auto.facts.because
    for one, other in zip(found.answers, plain.answers, strict=True):
        assert one.prediction == other.prediction
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
    # What the file's last layer read is what the network's did.
    assert found.vectors is not None
    np.testing.assert_allclose(found.vectors, plain.vectors, rtol=1e-3, atol=1e-3)
    assert np.isnan(found.vectors[3]).all()


@pytest.mark.slow
def test_an_export_that_is_no_faster_is_not_taken(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    with_export(run, "onnx", 11.0)
    auto = open_engine(run, "auto", threads=1)
    auto.close()
    assert auto.facts.precision == "float32"
    assert "not faster" in auto.facts.because


def test_without_another_engine_auto_is_float32_and_says_why(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def found(name: str, *more: Any) -> Any:
        return None if name in ("openvino", "onnxruntime") else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    auto = open_engine(finished_run, "auto", threads=1)
    auto.close()
    assert auto.facts.precision == "float32"
    assert "pip install" in auto.facts.because
    assert not (finished_run / "export").exists()


@pytest.fixture(scope="module")
def pictures(old_runs: Path) -> Predictor:
    return Predictor.load(old_runs / "runs" / "pictures")


def sent(path: Path) -> dict[str, str]:
    return {"image": base64.b64encode(path.read_bytes()).decode()}


@pytest.mark.slow
def test_pictures_of_requests_leave_the_disk_when_they_are_answered(
    pictures: Predictor, old_runs: Path
) -> None:
    """A service is asked for months, and its disk is full of pictures else."""
    folder = scratch_file("here").parent
    before = set(folder.iterdir())
    some = sorted((old_runs / "rows" / "pictures").rglob("*.png"))[:3]
    form = TableHandler(pictures, pictures.model)
    read = form.read([sent(path) for path in some])
    gc.collect()
    assert len(list(folder.glob("picture-*"))) >= 3
    places = range(len(some))
    form.predict(EngineTurn.of_request(WaitingRequest(read, read.costs), places))
    assert all(one.prediction is not None for one in form.collect([read], "a@1")[0].answers)
    del read
    gc.collect()
    assert set(folder.iterdir()) - before == set()
    with pytest.raises(DataError):
        form.read([{"image": "AAAA"}, sent(some[0]), {"image": 5}])
    gc.collect()
    assert set(folder.iterdir()) - before == set()


def test_a_picture_that_cannot_be_read_is_named_by_its_row_alone(pictures: Predictor) -> None:
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * (100_000).to_bytes(4, "big") + b"\x08\2\0\0\0"
    bomb += zlib.crc32(bomb[12:]).to_bytes(4, "big")
    form = TableHandler(pictures, pictures.model)
    large = io.BytesIO()
    Image.new("1", (8000, 8000)).save(large, "PNG")
    row = {"image": base64.b64encode(large.getvalue()).decode()}
    with pytest.raises(DataError) as refused:
        form.read([row] * 4)
    assert "in total" not in refused.value.rule
    assert str(refused.value.value).startswith("row 0 (")
    for given_ in (bomb, b"<svg/>"):
        with pytest.raises(DataError) as refused:
            form.read([{"image": base64.b64encode(given_).decode()}])
        assert refused.value.what == "the request"
        assert str(refused.value.value).startswith("row 0 (")
        assert "holdfast-" not in str(refused.value)
        assert "picture-" not in str(refused.value)
        assert "in base64" in refused.value.remedy


def test_pictures_that_are_too_much_together_are_refused_before_one_is_decoded(
    pictures: Predictor,
) -> None:
    """Forty of these are 200 kB, and take a minute to decode in which nobody else is read for."""
    file = io.BytesIO()
    Image.new("1", (5700, 5700)).save(file, "PNG")
    row = {"image": base64.b64encode(file.getvalue()).decode()}
    form = TableHandler(pictures, pictures.model)
    with pytest.raises(DataError) as refused:
        form.read([row] * 40)
    rule = "contains images of more than 200 million pixels in total"
    assert (refused.value.what, refused.value.rule) == ("the request", rule)
    assert refused.value.value == "1299 million"
    small = io.BytesIO()
    Image.new("RGB", (224, 224)).save(small, "PNG")
    row = {"image": base64.b64encode(small.getvalue()).decode()}
    read = form.read([row] * 5 + [{"image": "AAAA"}])
    assert (len(read.table), read.because) == (5, {5: "the image cannot be read"})
