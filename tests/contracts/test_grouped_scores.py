"""Rows that come in groups have intervals by groups in every split of a run, in every task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.contract.predictions import same_text_groups, stored_groups_of
from holdfast.core.records import to_json
from holdfast.metrics.resample import ResampledUnits
from holdfast.metrics.score import rate_estimate
from holdfast.pipeline.main import train
from holdfast.plugins.logs.holdfast_run import run_verdict
from holdfast.recipe import Recipe, override
from holdfast.report.answer import score
from holdfast.runs.finished_run import FinishedRun
from holdfast.training.evaluation_file import EVALUATIONS_FILE, read_evaluations

ONE_STEP = ["train.max_steps=1", "train.folds=0", "probes.skip=all", "model.freeze=none"]
EVERY_TASK = pytest.mark.parametrize(
    "name", ["classes", "several labels", "numbers", "tags", "seq2seq", "chats"]
)


def path_of(settings: list[str]) -> Path:
    return Path(next(one for one in settings if one.startswith("data.path=")).split("=", 1)[1])


def assert_intervals_by_groups(result: Mapping[str, Any]) -> None:
    for split in ("test", "valid", "train_probe"):
        notes = [str(one.get("note")) for one in result[split]["metrics"].values()]
        assert any("groups" in note for note in notes), (split, notes)


@EVERY_TASK
def test_every_split_is_scored_and_judged_by_groups(
    name: str, whole_source: Callable[[str], list[str]], tmp_path: Path
) -> None:
    settings = whole_source(name)
    path = path_of(settings)
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    grouped = (json.dumps(line | {"who": f"person {at // 3}"}) for at, line in enumerate(lines))
    path.write_text("\n".join(grouped), "utf-8")
    result = train(override(Recipe(), [*settings, *ONE_STEP, "data.group=who"]), tmp_path / "run")
    assert_intervals_by_groups(result)
    known = read_evaluations(tmp_path / "run" / EVALUATIONS_FILE).run_facts
    assert known.valid_groups is not None
    assert known.train_groups is not None
    assert len(np.unique(known.valid_groups)) < len(known.valid_groups)
    for log in (tmp_path / "run", tmp_path / "run" / "events.jsonl"):
        again = run_verdict(log)
        assert again is not None
        assert to_json(again.verdict) == result["verdict"]


@EVERY_TASK
def test_rows_with_the_same_text_count_as_one(
    name: str, whole_source: Callable[[str], list[str]], tmp_path: Path
) -> None:
    settings = whole_source(name)
    path = path_of(settings)
    path.write_text(path.read_text() * 2, "utf-8")
    run = tmp_path / "run"
    result = train(override(Recipe(), [*settings, *ONE_STEP]), run)
    test = result["test"]
    assert test["texts"] == test["n"] / 2
    assert_intervals_by_groups(result)
    stored = FinishedRun(run).stored("test")
    groups = stored_groups_of(FinishedRun(run).divided(), "test", stored["row"].to_pylist())
    assert groups is not None
    assert len(set(groups)) == test["texts"]
    assert f"{test['n']} test rows of {test['texts']} texts" in score.test_row_text(result)


def test_intervals_of_rows_with_the_same_text_hold_the_true_accuracy() -> None:
    """100 texts, each four times: Wilson's interval of 400 independent rows covers about 65 %."""
    random, truth, held, by_rows = np.random.default_rng(0), 0.8, 0, 0
    for _ in range(400):
        keys = np.repeat(np.arange(100), 4)
        hits = np.repeat(random.random(100) < truth, 4).astype(float)
        groups = same_text_groups(keys)
        found = rate_estimate(hits, ResampledUnits.by(groups, 400), 0.95)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
        alone = rate_estimate(hits, ResampledUnits.by(None, 400), 0.95)
        assert alone.low is not None
        assert alone.high is not None
        by_rows += alone.low <= truth <= alone.high
    assert by_rows < 280
    assert held >= 368  # 92 %: three standard errors below 95 %


def test_a_few_duplicates_leave_the_rows_independent() -> None:
    keys = np.r_[np.arange(98), [0, 1]]
    assert same_text_groups(keys) is None
    assert same_text_groups(np.r_[np.arange(94), np.arange(6)]) is not None
    assert same_text_groups(np.empty(0)) is None
