"""A label column as people fill it: five spellings, two classes, from training to evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

SPELLINGS = {"yes": ["Yes", "Yes", "Yes", "yes ", "YES"], "no": ["No", "No", "no"]}


def respelled(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (text, SPELLINGS[label][n // 2 % len(SPELLINGS[label])])
        for n, (text, label) in enumerate(rows)
    ]


def test_two_classes_come_of_five_spellings(
    holdfast: Any, sets: list[str], marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    source = write_csv(
        tmp_path / "a.csv", [*respelled(marked_rows(120)), ("w1 w2 w3", "N/A"), ("w4 w5 w6", "")]
    )
    done = holdfast("train", source, "--out", "run", *sets, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["classes"] == ["No", "Yes"]
    assert result["data"]["used"] == 120
    (merged,) = [d for d in result["decisions"] if d["what"] == "labels"]
    assert "data.labels=exact" in merged["because"]
    (missing,) = [f for f in result["data"]["findings"] if f["check"] == "missing_label"]
    assert (missing["count"], missing["rows"]) == (2, [120, 121])
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet")
    assert set(rows["label"].to_pylist()) | set(rows["prediction"].to_pylist()) == {"No", "Yes"}

    others = respelled(marked_rows(40, seed=7))
    scored = holdfast("evaluate", "run", write_csv(tmp_path / "b.csv", others), "--json")
    assert scored.code == 0, scored.err
    plain = [(text, label.strip().title()) for text, label in others]
    same = holdfast("evaluate", "run", write_csv(tmp_path / "c.csv", plain), "--json")
    blocks = [json.loads(one.out) for one in (scored, same)]
    assert blocks[0]["n"] == 40
    assert blocks[0]["metrics"] == blocks[1]["metrics"]


@pytest.mark.slow
def test_a_test_file_is_read_in_the_spelling_of_the_source(
    holdfast: Any, sets: list[str], marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    source = write_csv(tmp_path / "a.csv", respelled(marked_rows(90)))
    test = write_csv(tmp_path / "t.csv", [(t, x.upper()) for t, x in marked_rows(30, seed=3)])
    done = holdfast("train", source, "--test", test, "--out", "run", *sets, "--json")
    assert done.code == 0, done.err
    rows = pq.read_table(tmp_path / "run" / "predictions.parquet")
    assert sorted(set(rows["label"].to_pylist())) == ["No", "Yes"]
