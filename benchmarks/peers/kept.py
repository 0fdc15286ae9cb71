"""What is too long for a cell: right or wrong of each test row, the course of a run.

It stands beside the cells in ``results/<name>.rows.jsonl``, by cell; the last line of a cell wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cells import key, stored


def beside(results: Path) -> Path:
    return results.with_name(f"{results.stem}.rows{results.suffix}")


def keep(results: Path, cell: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Append one line for ``cell``, on a line of its own even after a kill."""
    path = beside(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_bytes() if path.exists() else b""
    line = json.dumps({"cell": dict(cell), "result": dict(values)}, ensure_ascii=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if old and not old.endswith(b"\n") else "") + line + "\n")


def kept(results: Path, cell: Mapping[str, Any]) -> dict[str, Any]:
    """What was kept of ``cell``."""
    return stored(beside(results))[key(cell)]


def pack(right: Sequence[bool]) -> str:
    """Bits as hexadecimal digits; the first is the highest bit of the first digit."""
    return np.packbits(np.asarray(right, dtype=bool)).tobytes().hex()


def unpack(text: str, count: int) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=count)
    return bits.astype(bool)
