"""Rows that come in groups have intervals by groups in every split of a run, in every task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override

ONE_STEP = ["train.max_steps=1", "train.folds=0", "probes.skip=all", "model.freeze=none"]


@pytest.mark.parametrize(
    "name", ["classes", "several labels", "numbers", "tags", "seq2seq", "chats"]
)
def test_every_split_is_scored_by_groups(
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
