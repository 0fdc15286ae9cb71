"""What the guard costs: its seconds beside those of the whole training, on real runs.

`python benchmarks/verdicts.py overhead`: Holdfast's command on 400 labelled rows with its defaults.
``guard_s`` is judging and advising at every look; ``evaluate_s``, the measuring of the rows, is
part of the training and shown apart. Demanded: the guard at most 3 % of the rest.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cells import RESULTS, grid, run_cells
from peers.arms import COMMAND, write_recipe
from peers.process import commit, run_process
from peers.rows import SETS, clean_set, draw, labelled_counts
from peers.tables import markdown, records

NAME = "guard_overhead"
ROWS = 400


def run_one(cell: Any) -> dict[str, Any]:
    parts = draw(clean_set(cell["data"]), seed=cell["seed"], **labelled_counts(ROWS))
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        folder = Path(name)
        recipe = write_recipe(parts, folder, cell["seed"])
        words = ["train", str(recipe), "--out", str(folder / "run"), "--quiet"]
        run_process([sys.executable, "-c", COMMAND, *words], folder, 1)
        result = json.loads((folder / "run" / "result.json").read_text(encoding="utf-8"))
        looks = (folder / "run" / "events.jsonl").read_text(encoding="utf-8")
    timing = {k: result["timing"][k] for k in ("train_s", "evaluate_s", "guard_s")}
    rest = timing["train_s"] - timing["evaluate_s"] - timing["guard_s"]
    return {
        **timing,
        "looks": looks.count('"event": "snapshot"'),
        "commit": commit(),
        "share": timing["guard_s"] / rest,
        "verdict": result["verdict"]["label"],
    }


def section() -> str:
    todo = grid(seed=[0], data=SETS)
    done = records(todo, run_cells(NAME, todo, run_one, RESULTS / f"{NAME}.jsonl"))
    lines = [
        [
            r["data"],
            str(r["looks"]),
            f"{r['train_s']:.1f}",
            f"{r['evaluate_s']:.1f}",
            f"{r['guard_s']:.2f}",
            f"{r['share']:.1%}",
            r["verdict"],
        ]
        for r in done
    ]
    head = [
        "Set",
        "Looks",
        "Train, s",
        "of it evaluation, s",
        "of it guard, s",
        "Guard ÷ the rest",
        "Verdict",
    ]
    return "\n\n".join(["### Overhead", (__doc__ or "").strip(), markdown(head, lines)])
