"""A finished run's verdict bears what its own stored predictions say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from scipy.stats import fisher_exact

from holdfast.core.records import to_json
from holdfast.core.run_files import read_events
from holdfast.plugins.logs.holdfast_run import run_verdict


def right(table: Any) -> tuple[int, int]:
    pairs = zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)
    return sum(a == b for a, b in pairs), len(table)


def test_the_comparison_is_of_the_stored_predictions(finished_run: Path) -> None:
    import pyarrow.compute as pc

    answers = parquet.read_table(finished_run / "answers.parquet")
    valid = right(answers.filter(pc.equal(answers["split"], "valid")))
    test = right(parquet.read_table(finished_run / "predictions.parquet"))
    verdict = json.loads((finished_run / "result.json").read_text("utf-8"))["verdict"]
    found = verdict["test_comparison"]
    assert found["valid"] == {"value": valid[0] / valid[1], "n": valid[1]}
    assert found["test_rows"] == {"value": test[0] / test[1], "n": test[1]}
    table = [[hits, n - hits] for hits, n in (valid, test)]
    sides = [fisher_exact(table, side).pvalue for side in ("greater", "less")]
    assert found["p_value"] == pytest.approx(min(1.0, 2 * min(sides)))
    assert verdict["test_agrees"] in (True, False, None)
    assert (verdict["test_agrees"] is None) == ("why" in found)


def test_the_label_is_that_of_before_the_test_rows_opened(finished_run: Path) -> None:
    events = read_events(finished_run / "events.jsonl")
    opened = next(i for i, one in enumerate(events) if one.get("what") == "test rows opened")
    verdicts = [one for one in events[:opened] if one["event"] == "verdict"]
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    assert result["verdict"]["label"] == verdicts[-1]["label"]
    assert not [one for one in events[opened:] if one["event"] == "verdict"]


def test_diagnose_gives_the_runs_own_verdict(finished_run: Path, old_runs: Path) -> None:
    for run in [finished_run, *sorted((old_runs / "runs").iterdir())]:
        if not (run / "result.json").is_file():
            continue
        again = run_verdict(run)
        stored = json.loads((run / "result.json").read_text("utf-8"))["verdict"]
        assert again is not None
        assert to_json(again.verdict).get("test_agrees") == stored.get("test_agrees")


def test_what_the_choice_added_is_compared_as_the_verdict_compares() -> None:
    """By groups, which rows of a person are; and not at all where both scores are of one set."""
    from holdfast.analyses.row_scores import SETS, RowScores, compare_scores, comparison_block
    from holdfast.control.choice import Optimism
    from holdfast.runs.scoring import _observed_optimism

    seed, groups, expected = np.random.default_rng(0), np.repeat(np.arange(15), 10), None
    covered = 0
    for _ in range(300):
        valid, test = (seed.random(150) < seed.beta(4, 1, 15)[groups] for _ in range(2))
        names = [np.array([f"{split}{g}" for g in groups]) for split in SETS]
        scores = [RowScores("accuracy", x, g) for x, g in zip((valid, test), names, strict=True)]
        compared = comparison_block("accuracy", compare_scores(*scores), SETS)
        blocks: dict[str, Any] = {
            name: {"n": 150, "metrics": {"accuracy": {"value": float(x.mean())}}}
            for name, x in (("valid", valid), ("test", test))
        }
        expected = Optimism("accuracy", 0.01, -0.01, 0.03, 10, 150)
        found = _observed_optimism(expected, blocks, compared)
        assert found.value == pytest.approx(valid.mean() - test.mean())
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered / 300 > 0.92
    assert expected is not None
    for other in ({}, {"metric": "exact_match"}, {"metric": "accuracy", "why": "one group"}):
        found = _observed_optimism(expected, blocks, other)
        assert (found.low, found.high) == (None, None)
        assert found.value == pytest.approx(valid.mean() - test.mean())
    blocks["test"]["out_of_fold"] = True
    assert _observed_optimism(expected, blocks, compared).value is None
