"""Rows that come in groups have intervals by groups in every split of a run, in every task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import to_json
from holdfast.pipeline.main import train
from holdfast.plugins.logs.holdfast_run import run_verdict
from holdfast.recipe import Recipe, override
from holdfast.training.evaluation_file import EVALUATIONS_FILE, read_evaluations

ONE_STEP = ["train.max_steps=1", "train.folds=0", "probes.skip=all", "model.freeze=none"]


@pytest.mark.parametrize(
    "name", ["classes", "several labels", "numbers", "tags", "seq2seq", "chats"]
)
def test_every_split_is_scored_and_judged_by_groups(
    name: str, whole_source: Callable[[str], list[str]], tmp_path: Path
) -> None:
    settings = whole_source(name)
    path = Path(next(one for one in settings if one.startswith("data.path=")).split("=", 1)[1])
    lines: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    grouped = (json.dumps(line | {"who": f"person {at // 3}"}) for at, line in enumerate(lines))
    path.write_text("\n".join(grouped), "utf-8")
    result = train(override(Recipe(), [*settings, *ONE_STEP, "data.group=who"]), tmp_path / "run")
    for split in ("test", "valid", "train_probe"):
        notes = [str(one.get("note")) for one in result[split]["metrics"].values()]
        assert any("groups" in note for note in notes), (split, notes)
    known = read_evaluations(tmp_path / "run" / EVALUATIONS_FILE).run_facts
    assert known.valid_groups is not None
    assert known.train_groups is not None
    assert len(np.unique(known.valid_groups)) < len(known.valid_groups)
    for log in (tmp_path / "run", tmp_path / "run" / "events.jsonl"):
        again = run_verdict(log)
        assert again is not None
        assert to_json(again.verdict) == result["verdict"]
