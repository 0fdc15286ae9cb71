"""The example of docs/guard.md runs as it stands there, and its table names every setting."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from holdfast import Guard

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "guard.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    code = GUIDE.read_text("utf-8").split("test_guide.py -->\n```python\n", 1)[1].split("```", 1)[0]
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "guard.md", "exec"), names)
    guard = names["guard"]
    assert guard.history[0].step == 0
    assert len(guard.history) == 6
    said = capfd.readouterr()
    assert guard.verdict.label in said.out
    assert "held out" in said.err
    assert (tmp_path / "example" / "holdfast" / "report.html").exists()


def test_the_table_names_every_setting() -> None:
    table = GUIDE.read_text("utf-8").split("## Settings", 1)[1]
    named = {
        name
        for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    }
    assert named == {*inspect.signature(Guard).parameters}
