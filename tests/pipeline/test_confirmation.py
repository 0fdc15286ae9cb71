"""A finished run's verdict bears what its own stored predictions say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
