"""A service without a store needs no database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# From the options to the loaded model, and what watches for drift behind it.
SERVE = """
import sys
from pathlib import Path
from holdfast.plugins.service.compose import compose
from holdfast.plugins.service.options import ServeOptions
from holdfast.plugins.service.settings import serving
options = ServeOptions(port=0, store="none", threads=1)
running = compose(Path(sys.argv[1]), options, serving(), lambda _: None, print, lambda _: None)
engine, _ = running._load()
engine.close()
import holdfast.plugins.service.drift_observer
running.address.sock.close()
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"))
"""


@pytest.mark.slow
def test_serve_without_a_store_imports_no_sqlalchemy(finished_run: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", SERVE, str(finished_run)], capture_output=True, text=True, check=True
    )
    assert made.stdout.strip() == ""
