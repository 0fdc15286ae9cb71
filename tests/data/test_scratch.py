"""What lies in the temporary folder, and for how long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from holdfast.data.load import load_table
table = load_table(sys.argv[1])
mapped = Path(table.rows.cache_files[0]["filename"])
assert mapped.is_file() and sys.argv[2] in str(mapped), mapped
assert [p.name for p in mapped.parent.iterdir()] == [mapped.name], "only the rows are kept"
if sys.argv[3] == "fail":
    raise SystemExit(2)
"""


@pytest.mark.parametrize("end", ["well", "fail"])
def test_nothing_is_left_when_the_process_ends(end: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    source = tmp_path / "a.csv"
    source.write_text("text,label\n" + "".join(f"text {n} here,{n % 2}\n" for n in range(12)))
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(source), str(scratch), end],
        env={**os.environ, "TMPDIR": str(scratch)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == (0 if end == "well" else 2), done.stderr
    assert list(scratch.iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.csv", "scratch"]
