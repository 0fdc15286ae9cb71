"""What a terminal says of a model that writes; of runs by an older version too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.analyses.outputs import generation_blocks
from holdfast.terminal.results.errors import errors_text


@pytest.mark.parametrize("task", ["causal", "seq2seq"])
def test_an_older_run_is_told_of_by_the_texts_that_it_kept(old_runs: Path, task: str) -> None:
    result = json.loads((old_runs / "runs" / task / "result.json").read_text("utf-8"))
    found = generation_blocks(result)
    assert found["worth"]["start"]["zero_shot"]["n"] == result["test"]["n"]
    shown = len(result["generations"]["test"])
    assert found["outputs"]["n"]["test"] == found["worth"]["win_rate"]["zero_shot"]["n"] == shown
    assert "older version" in found["worth"]["left_out"]["general"]
    assert "cut" not in {share["mark"] for share in found["outputs"]["shares"]}
    said = " ".join(errors_text(found, 80).split())
    assert said.startswith(f"Comparison with the base model {found['worth']['because']}")
    assert f"Output quality {found['outputs']['because']}" in said


def test_a_stored_block_is_told_as_it_is() -> None:
    stored = {"worth": {"verdict": "yes"}, "outputs": {"shares": []}}
    assert generation_blocks({**stored, "generations": {}}) == stored
    assert generation_blocks({"task": "text-classification"}) == {}
