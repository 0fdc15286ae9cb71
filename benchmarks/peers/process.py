"""One run, one process: pinned threads, wall and processor time, peak memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
TAIL = 4000
# A new process begins with the peak of the one that forked it, and keeps it through exec: this
# small one stands between, so that a large benchmark script does not count as its arm's memory.
BETWEEN = """
import os, sys
pid = os.fork()
if not pid:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(f"{status} {usage.ru_maxrss} {usage.ru_utime + usage.ru_stime}")
"""


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
    log, told = folder / "log.txt", folder / "usage.txt"
    between = [sys.executable, "-I", "-S", "-c", BETWEEN, str(told), *command]
    start = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            between,
            cwd=folder,
            env=environment(threads),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    seconds = time.perf_counter() - start
    status, peak, cpu = told.read_text().split() if told.exists() else ("9", "0", "0")
    code = os.waitstatus_to_exitcode(int(status))
    if code:
        words = log.read_text(encoding="utf-8", errors="replace")[-TAIL:]
        raise RuntimeError(f"exit code {code}:\n{words}")
    peak_mb = int(peak) * MEMORY_UNIT / 1e6
    return Ended(round(seconds, 2), round(float(cpu), 2), round(peak_mb, 1))


def environment(threads: int) -> dict[str, str]:
    """The same for every system: ``threads`` threads in every library, no network."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(counts, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def commit() -> str:
    """The commit that is measured, with a plus where the source differs from it; ``unknown`` where
    there is no git."""
    here = Path(__file__).resolve().parents[2]
    if shutil.which("git") is None:
        return "unknown"

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=here, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
