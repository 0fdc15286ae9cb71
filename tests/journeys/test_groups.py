"""A run with a few large groups and copies across them: divided evenly, dropped rows told, and no
interval where so few groups cannot give one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

GROUPS = 8


def test_few_groups_with_copies_end_in_an_honest_run(
    holdfast: Any, sets: list[str], marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = [(text, label, f"prompt {n % GROUPS}") for n, (text, label) in enumerate(marked_rows())]
    # Each of the first eight rows is copied into every other group.
    copies = [
        (rows[n][0], rows[n][1], f"prompt {(n + k) % GROUPS}")
        for n in range(GROUPS)
        for k in range(1, GROUPS)
    ]
    source = write_csv(tmp_path / "a.csv", [*rows, *copies], ("text", "label", "prompt"))
    done = holdfast("train", source, "--group", "prompt", "--out", "run", "--verbose", *sets)
    assert done.code == 0, done.err
    assert "copies_across_groups" in done.err
    assert "no interval: all rows are of one group" in " ".join(done.out.split())
    assert "None" not in done.out

    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "leave-one-group-out" in json.dumps(result["test"])
    (finding,) = [f for f in result["data"]["findings"] if f["check"] == "copies_across_groups"]
    splits = pq.read_table(tmp_path / "run" / "splits.parquet").to_pylist()
    gone = [record for record in splits if record["split"] == "dropped"]
    assert finding["count"] == len(gone) > GROUPS
    assert all("another group" in record["note"] for record in gone)
    texts = [row[0] for row in (*rows, *copies)]
    sides: dict[str, set[str]] = {}
    for record in splits:
        if record["split"] != "dropped":
            sides.setdefault(texts[record["row"]], set()).add(record["split"])
    assert all(len(found) == 1 for found in sides.values())

    held = {record["group"] for record in splits if record["split"] == "test"}
    assert len(held) < 3
    for name in ("f1_macro", "loss"):
        metric = result["test"]["metrics"][name]
        assert metric["value"] is not None
        assert (metric["low"], metric["high"]) == (None, None), name
        assert "leave-one-group-out" in metric["why"], name
    assert result["baseline"]["comparison"]["p_value"] is None
    page = (tmp_path / "run" / "report.html").read_text()
    assert "leave-one-group-out" in page
    refused = holdfast("fairness", "run", "--group", "prompt")
    assert refused.code == 2
    assert "was split by 'prompt' (data.group)" in refused.err
