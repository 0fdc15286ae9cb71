"""The work that is foretold for the time after training is the work that is done, in rows passed
forward and in batches of generated texts; and each of its stretches is shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.contract.written_text import WrittenSamples
from holdfast.core.decisions import report_progress_to, stage, tick
from holdfast.fits import duration
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.tasks.lm import generation


@pytest.fixture(autouse=True)
def _only_rows_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes neither rows nor texts has a fixed time."""
    monkeypatch.setattr(duration, "OTHER_S", 0.0)


class Foretold:
    """What the loop's first look foretells, in rows and in batches of texts, and when it ends."""

    name, place = "foretold", "tell"

    def __init__(self) -> None:
        self.rows = self.batches = 0.0
        self.ended = False

    def snapshot_taken(self, run: Any) -> None:
        if not self.rows:
            self.batches = run.job.overhead_s(0.0)
            self.rows = run.job.overhead_s(1.0) - self.batches

    def run_end(self, run: Any) -> None:
        self.ended = True


def told(settings: list[str], run: Path) -> tuple[Foretold, list[tuple[str, int | None]]]:
    """A run; and each thing that was shown after its training, with its total once it was done."""
    foretold, shown = Foretold(), []

    def watcher(what: str, done: int | None, total: int | None) -> None:
        assert foretold.ended
        if done == total:
            shown.append((what, total))

    with report_progress_to(watcher):
        train(override(Recipe(), settings), run, listeners=(foretold,))
    return foretold, shown


def test_rows_that_a_classifier_passes_after_training(
    tmp_path: Path, quick: list[str], marked_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A passage counts as a row here, not as the rows of its length.
    monkeypatch.setattr(duration, "_as_rows", lambda texts, _: len(texts))
    foretold, shown = told([f"data.path={marked_csv}", *quick], tmp_path / "run")
    assert foretold.batches == 0
    passed = sum(total or 0 for _, total in shown)
    assert foretold.rows == passed
    names = {what for what, _ in shown}
    assert {"saving the model", "scoring the test rows", "writing the report"} <= names
    assert any("without test rows: forgetting" in what for what in names)


def test_the_saved_model_of_a_run_in_half_precision_counts_twice(
    tmp_path: Path, quick: list[str], marked_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "_as_rows", lambda texts, _: len(texts))
    settings = [f"data.path={marked_csv}", *quick, "train.precision=bfloat16"]
    foretold, shown = told(settings, tmp_path / "run")
    test_rows = dict(shown)["scoring the test rows"]
    assert foretold.rows == sum(total or 0 for _, total in shown) + (test_rows or 0)


def test_rows_behind_cached_layers_count_with_all_layers(
    tmp_path: Path, quick: list[str], marked_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration, "_as_rows", lambda texts, _: len(texts))
    settings = [f"data.path={marked_csv}", *quick, "model.freeze=2", "train.cache_frozen=on"]
    foretold, shown = told(settings, tmp_path / "run")
    # One of the two blocks is cached.
    assert foretold.rows == 2 * sum(total or 0 for _, total in shown)


@pytest.mark.slow
def test_texts_that_a_language_model_generates_after_training(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sums.jsonl"
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(300)])
    rows = [{"text": " ".join(rng.choice(words, 20))} for _ in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made: list[int] = []
    generate = generation._generate

    def counted(network: Any, tokenizer: Any, prompts: Any, *rest: Any) -> Any:
        made.append(len(prompts))
        return generate(network, tokenizer, prompts, *rest)

    monkeypatch.setattr(generation, "_generate", counted)
    # Each batch of texts takes one second, however long it is.
    monkeypatch.setattr(duration, "_time_tokens", lambda *_: (1.0, 0.0))
    monkeypatch.setattr(duration, "_as_rows", lambda texts, _: len(texts))
    settings = [
        "task=causal-lm",
        f"data.path={path}",
        f"model.name={tiny_llama}",
        "train.max_steps=3",
        "train.threads=1",
        "train.precision=float32",
        "generate.rows=10",
        "generate.max_new_tokens=4",
        "model.max_length=160",
        "probes.shots=0",
    ]
    foretold, shown = told(settings, tmp_path / "run")
    assert foretold.batches == len(made)
    others = sum(total or 0 for _, total in shown) - sum(made)
    # A passage may be cut in two.
    assert foretold.rows == pytest.approx(others, rel=0.02)
    eight = [*settings, "model.adapter.kind=lora", "model.quantize=8bit"]
    twice, _ = told(eight, tmp_path / "eight")
    test_rows = json.loads((tmp_path / "eight" / "result.json").read_text())["data"]["test"]
    assert twice.rows == foretold.rows + test_rows
    names = [what for what, _ in shown]
    for what in ("generating texts", "generating texts by the base model"):
        assert what in names


def test_the_longest_text_of_a_batch_is_the_mean_of_the_largest_of_its_draws() -> None:
    rng = np.random.default_rng(0)
    answers = ["w " * n for n in rng.integers(1, 60, 40)]

    def tokenizer(texts: list[str], **_: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [text.split() for text in texts]}

    plan: Any = SimpleNamespace(loaded=SimpleNamespace(tokenizer=tokenizer))
    samples = WrittenSamples({}, answers, None, 50)
    sizes = np.minimum([len(one.split()) + 1 for one in answers], 50)
    drawn = rng.choice(sizes, (40_000, generation.TOGETHER)).max(axis=1)
    assert duration._longest_of_batch(plan, samples) == pytest.approx(drawn.mean(), rel=0.005)
    assert duration._longest_of_batch(plan, WrittenSamples({}, [], None, 50)) == 50


def test_a_tick_outside_of_a_stage_or_without_a_watcher_says_nothing() -> None:
    heard: list[Any] = []
    with report_progress_to(lambda *given: heard.append(given)):
        tick(1, 2)
        with stage("outer"), stage("inner"):
            tick(1, 2)
    with stage("nobody"):
        tick(1, 2)
    assert heard == [("outer", None, None), ("inner", None, None), ("inner", 1, 2)]
