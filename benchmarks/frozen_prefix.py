"""Half the blocks frozen: what are their kept outputs worth, against computing them in every pass?

    python benchmarks/frozen_prefix.py               # three seeds of two sets, three arms
    python benchmarks/frozen_prefix.py --minutes 15  # start no new cell after a quarter of an hour
    python benchmarks/frozen_prefix.py --quick       # a smoke test, nothing is kept
    python benchmarks/frozen_prefix.py --tables      # the tables of what is there

MiniLM in float32 for 10 epochs, never stopped early, everything else Holdfast's own choice; the
arms alternate on the same rows:

- full: every weight learns (`model.freeze=none`)
- frozen: embeddings and 3 of 6 blocks are frozen (`model.freeze=4`), and computed in every pass
- cached: the same, and their outputs are kept (`train.cache_frozen=auto`, which chooses it)

Wall time is `train_s` of the contract: linear stage, the probe that decides, filling, snapshots and
checkpoints in it. Processor time is that of the loop, filling and snapshots in it; a busy machine
changes it little. The losses of every step stand in `results/frozen_prefix.rows.jsonl`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, publish, run_cells
from peers.arms import write_recipe
from peers.kept import keep, kept
from peers.process import commit, run_process
from peers.rows import Parts, clean_set, draw, labelled_counts
from peers.script import options, results_path
from peers.tables import (
    Record,
    column,
    foot,
    markdown,
    matched,
    ratio,
    records,
    spread,
    target,
    times,
)

NAME = "frozen_prefix"
SEEDS = 3
# Labelled rows, 82 % of them for training: CR's texts are twice as long as TREC's.
ROWS, QUICK_ROWS = {"trec": 400, "cr": 250}, 60
TEST_ROWS = 100
SHARED = ("train.epochs=10", "train.precision=float32", "control.policy=off")
ARMS = {
    "full": ("model.freeze=none",),
    "frozen": ("model.freeze=4", "train.cache_frozen=off"),
    "cached": ("model.freeze=4",),
}
TARGETS = {"full": 1.7, "frozen": 1.2}
CELL = ("seed", "data", "arm", "rows")
FROZEN = ("frozen", "cached")
# Losses are called the same up to the rounding of float32 sums in another order.
SAME = 1e-4


class Clock:
    """Processor time of the loop, and the loss of every step."""

    name = "clock"

    def __init__(self) -> None:
        self.start = self.cpu_s = 0.0
        self.losses: list[float] = []

    def run_start(self, run: Any) -> None:
        self.start = time.process_time()

    def step_done(self, run: Any) -> None:
        self.losses.append(run.running_loss)

    def run_end(self, run: Any) -> None:
        self.cpu_s = time.process_time() - self.start


def child(folder: Path) -> None:
    """One run, in a process of its own: ``answer.json`` gets its figures and its losses."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import override, read_recipe

    settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    recipe = override(read_recipe(folder / "recipe.yaml"), settings)
    clock = Clock()
    result = train(recipe, folder / "run", listeners=[clock])
    timing, chosen = result["timing"], result["settings"]["train"]["cache_frozen"]
    lines = (folder / "run" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    looks = [line for line in map(json.loads, lines) if line["event"] == "snapshot"]
    answer = {
        "counts": {name: result["data"][name] for name in ("train", "valid", "test")},
        "figures": {
            "train_s": timing["train_s"],
            "loop_cpu_s": round(clock.cpu_s, 2),
            "examples_per_s": timing["examples_per_s"],
            "evaluate_s": timing["evaluate_s"],
            "steps": result["last_step"],
            "epochs": looks[-1]["epoch"],
            "cache_frozen": chosen,
            "accuracy": result["test"]["metrics"]["accuracy"]["value"],
            "test_loss": result["test"]["metrics"]["loss"]["value"],
        },
        "losses": {
            "steps": clock.losses,
            "train": [look["train_loss"] for look in looks],
            "valid": [look["valid_loss"] for look in looks],
        },
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def parts_of(cell: Cell) -> Parts:
    counts = labelled_counts(cell["rows"])
    return draw(clean_set(cell["data"]), seed=cell["seed"], **counts, test=slice(TEST_ROWS))


def runner(path: Path, threads: int, quick: bool) -> Callable[[Cell], Result]:
    """A ``run_one`` for ``cells.run_cells`` that also keeps the losses."""

    def run_one(cell: Cell) -> Result:
        load, parts = os.getloadavg()[0], parts_of(cell)
        settings = [*SHARED, *ARMS[cell["arm"]], *(["train.max_steps=6"] if quick else [])]
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
            folder = Path(name)
            write_recipe(parts, folder, cell["seed"])
            (folder / "job.json").write_text(json.dumps(settings), encoding="utf-8")
            script = str(Path(__file__).resolve())
            ended = run_process([sys.executable, script, "--child", name], folder, threads)
            answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        wanted = {name: len(rows) for name, rows in parts.named().items()}
        if answer["counts"] != wanted:
            raise ValueError(f"Holdfast used {answer['counts']} rows of {wanted}")
        keep(path, cell, answer["losses"])
        print(f"  {answer['figures']}", flush=True)
        surroundings = {"threads": threads, "load_before": round(load, 2), "commit": commit()}
        return {**answer["figures"], **asdict(ended), **surroundings}

    return run_one


def differences(path: Path, groups: Sequence[Mapping[str, Record]]) -> dict[str, float]:
    """The largest difference of a loss between the frozen arms: of steps, train probe, validation
    and test rows."""
    found: dict[str, float] = {}
    for group in groups:
        cells = ({k: group[arm][k] for k in CELL} for arm in FROZEN)
        first, second = (kept(path, cell) for cell in cells)
        each = {name: np.abs(np.subtract(first[name], second[name])).max() for name in first}
        each["test"] = abs(group["frozen"]["test_loss"] - group["cached"]["test_loss"])
        found = {name: max(found.get(name, 0.0), float(value)) for name, value in each.items()}
    return found


def report(path: Path, todo: Sequence[Cell], results: Sequence[Any], threads: int) -> str:
    done = records(todo, results)
    sets = list(dict.fromkeys(cell["data"] for cell in todo))
    lines = [line(done, data, arm) for data in sets for arm in ARMS]
    head = [
        "Set",
        "Arm",
        "Runs",
        "Train, s",
        "Loop, processor s",
        "Whole process, processor s",
        "Examples/s",
        "Peak, MB",
        "Accuracy, %",
        "Outputs kept",
    ]
    return "\n\n".join(
        [
            "## Frozen first layers",
            "MiniLM, embeddings and 3 of 6 blocks frozen, float32, 10 epochs; mean ± standard "
            "deviation over seeds; ratios over pairs of runs on the same rows, with 95 % "
            "intervals. "
            "Filling, and the probe that decides, are in the train time.",
            markdown(head, lines),
            "\n".join(targets(path, done)),
            foot("python benchmarks/frozen_prefix.py", len(todo), done, threads),
        ]
    )


def line(done: Sequence[Record], data: str, arm: str) -> list[str]:
    runs = [r for r in done if (r["data"], r["arm"]) == (data, arm)]

    def shown(name: str, scale: float = 1.0) -> str:
        return spread([scale * r[name] for r in runs])

    figures = [shown(n) for n in ("train_s", "loop_cpu_s", "cpu_s", "examples_per_s", "peak_mb")]
    settings = ", ".join(sorted({str(r["cache_frozen"]) for r in runs}))
    return [data, arm, str(len(runs)), *figures, shown("accuracy", 100), settings]


def targets(path: Path, done: Sequence[Record]) -> list[str]:
    lines = []
    for arm, least in TARGETS.items():
        pairs = matched(done, ("seed", "data"), (arm, "cached"))
        for name, what in (("train_s", "train time"), ("loop_cpu_s", "processor time")):
            gain = ratio(column(pairs, arm, name), column(pairs, "cached", name), f"{arm} {name}")
            found = f"{times(gain)} over {len(pairs)} pairs"
            holds = gain.value >= least if pairs else None
            lines.append(target(f"cached against {arm}, {what}: at least {least}×", holds, found))
    pairs = matched(done, ("seed", "data"), FROZEN)
    gaps = differences(path, pairs)
    found = ", ".join(f"{name} {value:.1e}" for name, value in gaps.items())
    holds = max(gaps.values()) <= SAME if gaps else None
    what = f"losses of cached and frozen the same (largest difference, at most {SAME:g} nats)"
    return [*lines, target(what, holds, found)]


def main(words: Sequence[str]) -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--child", type=Path, help="(the run of one cell, started by this script)")
    chosen = parser.parse_args(words)
    if chosen.child:
        child(chosen.child)
        return
    path = results_path(NAME, chosen.threads, chosen.quick)
    seeds = range(1 if chosen.quick else SEEDS)
    rows = {"cr": QUICK_ROWS} if chosen.quick else ROWS
    todo = [
        {**cell, "rows": rows[cell["data"]]}
        for cell in grid(data=list(rows), seed=seeds, arm=list(ARMS))
    ]
    run_one = runner(path, chosen.threads, chosen.quick)
    minutes = 0 if chosen.tables else chosen.minutes
    results = run_cells(NAME, todo, run_one, path, minutes=minutes)
    text = report(path, todo, results, chosen.threads)
    print(f"\n{text}")
    if not chosen.quick:
        publish(path.stem, text)


if __name__ == "__main__":
    main(sys.argv[1:])
