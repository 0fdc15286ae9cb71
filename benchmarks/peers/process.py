"""One run, one process: pinned threads, wall and processor time, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
TAIL = 4000


@dataclass(frozen=True, slots=True)
class Ended:
    """What a whole process took. ``peak_mb`` (10⁶ bytes) is the kernel's largest resident set of
    the process, or of one of its children if that was larger."""

    command_s: float
    cpu_s: float
    peak_mb: float


def run_process(command: Sequence[str], folder: Path, threads: int) -> Ended:
    """Run ``command`` in ``folder`` to its end; ``RuntimeError`` with its last words if it fails.

    Both sides are measured from here, with the same clock and the same kernel counter.
    """
    log = folder / "log.txt"
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(threads), stdout=output, stderr=output,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        words = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        raise RuntimeError(f"exit code {process.returncode}:\n{words}")
    peak = usage.ru_maxrss * MEMORY_UNIT / 1e6
    return Ended(round(seconds, 2), round(usage.ru_utime + usage.ru_stime, 2), round(peak, 1))


def environment(threads: int) -> dict[str, str]:
    """The same for every system: ``threads`` threads in every library, no network."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **os.environ, **dict.fromkeys(counts, str(threads)), "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error",
    }  # fmt: skip


def commit() -> str:
    """The commit that is measured, with a plus where the source differs from it."""
    here = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
