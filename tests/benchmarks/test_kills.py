"""What the benchmark of kills calls identical: every byte but those of clocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def test_a_byte_a_number_and_a_file_more_are_seen_and_a_clock_is_not(
    finished_run: Path, tmp_path: Path
) -> None:
    from kills import differences

    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    assert differences(finished_run, run) == []
    told = json.loads((run / "result.json").read_text("utf-8"))
    told["timing"]["total_s"] += 1
    told["test"]["opened_at"] = "another time"
    (run / "result.json").write_text(json.dumps(told))
    assert differences(finished_run, run) == []
    told["best_step"] += 1
    (run / "result.json").write_text(json.dumps(told))
    weights = run / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    (run / "events.jsonl").write_text((run / "events.jsonl").read_text("utf-8") + "{}\n")
    (run / "left.partial").write_text("")
    (run / "report.html").unlink()
    assert differences(finished_run, run) == [
        "events.jsonl",
        "left.partial",
        "model/model.safetensors",
        "report.html",
        "result.json",
    ]
