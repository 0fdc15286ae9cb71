"""``python -m holdfast``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_it_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "audit", str(tmp_path / "none.csv")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 2
    assert "none.csv: does not exist" in done.stderr
