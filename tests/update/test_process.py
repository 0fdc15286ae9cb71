"""The schedule as a process of its own: what SIGTERM ends, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_sigterm_between_two_rounds_ends_it_with_nothing_lost(
    served: Path, tmp_path: Path, odd_rows: Any, write_csv: Any
) -> None:
    path = write_csv(tmp_path / "feedback.csv", odd_rows(20))
    out = tmp_path / "rounds"
    code = "from holdfast.cli.main import main; main()"
    command = [sys.executable, "-c", code, "update", str(served), "--feedback", str(path)]
    command += ["--every", "1h", "--out", str(out)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=dict(os.environ)
    )
    timer = threading.Timer(100, process.kill)
    timer.start()
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "next round" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, said
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    assert "stopped between two rounds" in said[-1]
    (line,) = [json.loads(one) for one in (out / "rounds.jsonl").read_text().splitlines()]
    assert line["skipped"] == "20 new rows; a round needs at least 50 new rows"
    assert line["retest"]["n"] == 20
