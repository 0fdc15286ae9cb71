"""Half the blocks frozen: what are their kept outputs worth, against computing them in every pass?

    python benchmarks/frozen_prefix.py               # three seeds of two sets, three arms
    python benchmarks/frozen_prefix.py --minutes 15  # start no new cell after a quarter of an hour
    python benchmarks/frozen_prefix.py --quick       # a smoke test, nothing is kept

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
from typing import TYPE_CHECKING, Any

from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, Metric, average, comparison, paired, runs, table
from peers.arms import write_recipe
from peers.kept import keep
from peers.process import commit, run_process
from peers.rows import Parts, clean_set, draw, labelled_counts
from peers.script import options, results_path

from holdfast.core.events import Place

if TYPE_CHECKING:
    from holdfast.training.run import Run

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


class Clock:
    """Processor time of the loop, and the loss of every step."""

    name = "clock"
    place: Place = "tell"

    def __init__(self) -> None:
        self.start = self.cpu_s = 0.0
        self.losses: list[float] = []

    def run_start(self, run: Run) -> None:
        self.start = time.process_time()

    def step_done(self, run: Run) -> None:
        self.losses.append(run.running_loss)

    def run_end(self, run: Run) -> None:
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


def planned(rows: Mapping[str, int] = ROWS, seeds: int = SEEDS) -> list[dict[str, Any]]:
    return [
        {**cell, "rows": rows[cell["data"]]}
        for cell in grid(data=list(rows), seed=range(seeds), arm=list(ARMS))
    ]


def main(words: Sequence[str]) -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--child", type=Path, help="(the run of one cell, started by this script)")
    chosen = parser.parse_args(words)
    if chosen.child:
        child(chosen.child)
        return
    path = results_path(NAME, chosen.threads, chosen.quick)
    todo = planned({"cr": QUICK_ROWS}, 1) if chosen.quick else planned()
    run_one = runner(path, chosen.threads, chosen.quick)
    run_cells(NAME, todo, run_one, path, minutes=chosen.minutes)


def finding(lines: Lines) -> str:
    parts = []
    for other, what in (
        ("frozen", "frozen layers that are computed each step"),
        ("full", "no frozen layer"),
    ):
        gain = paired(lines, "loop_cpu_s", other, "cached", times=True)
        if gain:
            parts.append(f"{gain.words(1, 2, sign=False)} compared with {what}")
    if not parts:
        return ""
    return (
        "Storing the outputs of frozen layers shortens the processor time of training by a factor "
        f"of {' and '.join(parts)}."
    )


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "Stored outputs of frozen layers",
    """\
MiniLM, embeddings and 3 of 6 blocks frozen, float32, 10 epochs. `cached` stores the outputs of
the frozen layers (`train.cache_frozen`), `frozen` computes them at each step, `full` freezes
nothing. Storing the outputs, and the measurement that decides whether it pays, are part of the
time.""",
    planned,
    finding,
    [
        comparison(
            [("full", "cached"), ("frozen", "cached")],
            {
                "Training time, ratio": Metric("train_s", 1, 2, times=True),
                "Processor time, ratio": Metric("loop_cpu_s", 1, 2, times=True),
                "Accuracy, points": Metric("accuracy", 100),
            },
        ),
        table(
            {"data": "Set", "arm": "System"},
            {
                "Runs": runs,
                "Training, s": average("train_s", limits=False),
                "Processor time of the loop, s": average("loop_cpu_s", limits=False),
                "Peak memory, MB": average("peak_mb", 1, 0, limits=False),
                "Accuracy, %": average("accuracy", 100, limits=False),
            },
        ),
    ],
    "One set. Only the processor time is shown to be shorter: the intervals of the training time "
    "contain 1. Accuracy was higher with every layer trained, but the interval contains 0.",
)


if __name__ == "__main__":
    main(sys.argv[1:])
