"""Every benchmark, one after the other, each in its own process: what ``make bench`` runs.

    python benchmarks/run_all.py                  # all of them, resuming what is there
    python benchmarks/run_all.py quality.py    # one
    BENCH_MINUTES=30 make bench                   # start no new cell after 30 minutes a script

A script that does not exist is printed as not run; one that fails does not stop the others. At the
end ``claims.py`` writes the pages.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    "vs_trainer.py",
    "methods.py",
    "rate_range.py",
    "honest_intervals.py",
    "side_columns.py",
    "foretold.py",
    "few_groups.py",
    "near_duplicates.py",
    "many_texts.py",
    "audit.py",
    "balance.py",
    "heads.py",
    "tuned_heads.py",
    "probe_scores.py",
    "frozen_prefix.py",
    "make_base_models.py",
    "vs_trainer_tasks.py",
    "entities.py",
    "end_to_end.py",
    "looks.py",
    "streams.py",
    "drift.py",
    "live.py",
    "wrong_labels.py",
    "label_weights.py",
    "repairs.py",
    "labels.py",
    "memory.py",
    "verdicts.py",
    "verdict_parts/planted.py",
    "verdict_parts/harmless.py",
    "kept_state.py",
    "arena/record.py",
    "arena/replay.py",
    "forks.py",
    "forgetting.py",
    "primacy.py",
    "kills.py",
    "fuzz.py",
    # Last, from the lines of all others: the pages and their index.
    "claims.py",
)


def main(wanted: list[str], folder: Path = HERE) -> int:
    """Run the wanted scripts (all, when none is named); 1 when one of them failed."""
    outcomes = {name: run(folder / name) for name in wanted or SCRIPTS}
    print("\n".join(f"{name:24s} {outcome}" for name, outcome in outcomes.items()))
    return int(any(outcome.startswith("failed") for outcome in outcomes.values()))


def run(script: Path) -> str:
    if not script.exists():
        return "not run: no such script"
    print(f"== {script.name}", flush=True)
    code = subprocess.run([sys.executable, str(script)], check=False).returncode
    return "done" if code == 0 else f"failed with exit code {code}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
