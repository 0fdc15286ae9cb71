"""What the scripts share: their options, and a run of one cell."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cells import RESULTS

from peers.arms import Arm, run_arm
from peers.kept import keep, pack
from peers.rows import Parts


def options(description: str) -> argparse.ArgumentParser:
    """``--minutes``, ``--threads``, ``--quick``."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="start no new cell after this time")
    parser.add_argument("--threads", type=int, default=1, help="threads of every system")
    parser.add_argument("--quick", action="store_true", help="a few rows and steps, not kept")
    return parser


def results_path(name: str, threads: int, quick: bool) -> Path:
    """Runs of other thread counts, and quick ones (begun anew), never mix with the real ones."""
    tail = "" if threads == 1 else f"-{threads}-threads"
    if not quick:
        return RESULTS / f"{name}{tail}.jsonl"
    path = RESULTS / f"{name}{tail}-quick.tmp"
    path.unlink(missing_ok=True)
    return path


def runner(
    arms: Mapping[str, Arm],
    parts_of: Callable[[Mapping[str, Any]], Parts],
    path: Path,
    threads: int,
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A ``run_one`` for ``cells.run_cells`` that also keeps which rows were right."""

    def run_one(cell: Mapping[str, Any]) -> dict[str, Any]:
        answer = run_arm(arms[cell["arm"]], parts_of(cell), seed=cell["seed"], threads=threads)
        keep(path, cell, {"rows": len(answer.right), "right": pack(answer.right)})
        result = answer.result
        print(
            f"  accuracy {result['accuracy']:.3f}, train {result['train_s']:.1f} s, "
            f"command {result['command_s']:.1f} s",
            flush=True,
        )
        return result

    return run_one
