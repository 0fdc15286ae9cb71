"""What three blocks of MiniLM keep of its six: a student with a teacher, and without one.

    python benchmarks/distill.py --seeds 2 --minutes 4     # a piece of it; resumable
    python benchmarks/distill.py --tables                  # the table of what is there

A run of 400 labelled rows (82/18 divided) is the teacher. Its student, `holdfast distill RUN
--layers 3`, learns from the same rows (`labelled`) and with 2,000 further texts of the set without
their labels (`unlabelled`). `alone` is what `distill` trains beside it: the same three blocks of
the untuned MiniLM on the labels, as `train` does. All are scored on the same 800 rows.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import NOT_RUN, RESULTS, Cell, Result, grid, key, processor, publish, run_cells, stored
from peers.rows import clean_set

NAME = "distill"
SETS, ARMS, ROWS, BESIDE, TESTED = ("trec", "cr"), ("unlabelled", "labelled"), 400, 2000, 800
TEXT = """## Distillation

Three of MiniLM's six blocks, taught by the six (`benchmarks/distill.py`, 400 labelled rows, 800
test rows; `unlabelled`: 2,000 texts beside them; `labelled`: none, and texts crossed of the
training rows in their place). Accuracy in %; `kept` is student ÷ teacher, `alone` the same blocks
of the untuned model by the labels alone, `gain` in points over it; means over {seeds}, of each seed
in brackets; {machine}, one thread, other work beside it.

| set | arm | teacher | student | kept | alone | gain | speed |
|---|---|---|---|---|---|---|---|
{lines}
{first}"""
# Before the benchmark: one draw of TREC by the command itself.
FIRST = """
One draw of TREC by the command itself (400 rows, seed 0, 800 other rows as `--test`), before the
table: teacher 90.0 %, the student alone 80.8 %. With 2,000 unlabelled texts 87.9 %, kept 97.6 %
(95.7 to 99.4) at 5.3 times the speed; with crossed texts 85.0 %, kept 94.4 % (92.0 to 96.7).
With crossed texts and the first three blocks in the place of three spread ones 82.9 %, kept 92.1 %
(89.5 to 94.6). Without a teacher it is the other way round (300 rows: first 86.6 %, spread 80.6 %).
Without either, and stopped by the guard after 76 of 504 steps as memorizing, 73.5 %: which is why a
student has crossed texts, and no policy. Hidden states beside brought nothing in two trials (300
rows, weight 10: TREC 76.4 and 76.6 %, CR 77.9 and 77.8 % with and without, in a plain loop).
"""


def _folder() -> Path:
    place = Path(os.environ.get("HOLDFAST_BENCH", tempfile.gettempdir())) / "holdfast-distill"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _write(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)
    return str(path)


def _files(data: str, seed: int) -> tuple[Path, dict[str, str]]:
    """Labelled, unlabelled and test rows of one draw, none in two of them."""
    rows, place = clean_set(data), _folder() / f"{data}-{seed}"
    place.mkdir(exist_ok=True)
    fixed = np.random.default_rng(99).permutation(len(rows.texts))
    test, rest = fixed[:TESTED], np.random.default_rng(seed).permutation(fixed[TESTED:])
    parts = {"labelled": rest[:ROWS], "unlabelled": rest[ROWS : ROWS + BESIDE], "test": test}
    made = {}
    for name, at in parts.items():
        bare = name == "unlabelled"
        lines = [[rows.texts[i]] if bare else [rows.texts[i], str(rows.labels[i])] for i in at]
        columns = ["text"] if bare else ["text", "label"]
        made[name] = _write(place / f"{name}.csv", columns, lines)
    return place, made


def run_one(cell: Cell) -> Result:
    """One student; its teacher is trained where it is not there."""
    import holdfast
    from holdfast.contract.run_folder import is_finished

    place, files = _files(cell["data"], cell["seed"])
    teacher = place / "teacher"
    if not is_finished(teacher):
        holdfast.train(
            files["labelled"],
            test=files["test"],
            out=teacher,
            seed=cell["seed"],
            quiet=True,
            resume=teacher.exists(),
        )
    out = place / str(cell["arm"])
    if is_finished(out):
        # Of other settings, or of an older version.
        shutil.rmtree(out)
    run = holdfast.distill(
        teacher,
        layers=3,
        unlabelled=files["unlabelled"] if cell["arm"] == "unlabelled" else None,
        settings=[*cell.get("set", ()), f"distill.alone={cell['arm'] == ARMS[0]}".lower()],
        out=out,
        resume=(out / "recipe.yaml").exists(),
        quiet=True,
    )
    block, result = run.result["distilled"], run.result
    return {
        "teacher": block["teacher"]["value"],
        "student": block["student"]["value"],
        "kept": block["kept"]["value"],
        "low": block["kept"]["low"],
        "high": block["kept"]["high"],
        "alone": block["alone"].get("value"),
        "agreement": block["agreement"]["value"],
        "speed": block["speed"]["value"],
        "seconds": result["timing"]["train_s"],
        "epochs": result["settings"]["train"]["epochs"],
        "best": f"{result['best_step']} of {result['last_step']}",
    }


def report(todo: Sequence[Cell]) -> str:
    done = stored(RESULTS / f"{NAME}.jsonl")
    lines, seeds = [], sorted({cell["seed"] for cell in todo})
    for data in SETS:
        without = {
            c["seed"]: done[key(c)]["alone"]
            for c in todo
            if c["data"] == data and c["arm"] == ARMS[0] and key(c) in done
        }
        for arm in ARMS:
            mine = [c for c in todo if (c["data"], c["arm"]) == (data, arm)]
            found = [(c["seed"], done[key(c)]) for c in mine if key(c) in done]
            if not found:
                lines.append(f"| {data} | {arm} |" + f" {NOT_RUN} |" * 6)
                continue
            both = [(one, without[seed]) for seed, one in found if without.get(seed) is not None]
            values: dict[str, list[float]] = {
                "teacher": [100 * one["teacher"] for _, one in found],
                "student": [100 * one["student"] for _, one in found],
                "kept": [100 * one["kept"] for _, one in found],
                "alone": [100 * bare for _, bare in both],
                "gain": [100 * (one["student"] - bare) for one, bare in both],
                "speed": [one["speed"] for _, one in found],
            }
            shown = " | ".join(_mean(one) for one in values.values())
            lines.append(f"| {data} | {arm} | {shown} |")
    return TEXT.format(
        seeds=f"{len(seeds)} seeds", machine=processor(), lines="\n".join(lines), first=FIRST
    )


def _mean(values: Sequence[float]) -> str:
    if not values:
        return NOT_RUN
    each = ", ".join(f"{one:.1f}" for one in values)
    return f"{np.mean(values):.1f} ({each})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--tables", action="store_true", help="what is there, and into RESULTS.md")
    parser.add_argument("--set", action="append", default=[], help="a setting that is tried")
    args = parser.parse_args()
    more: dict[str, Any] = {"set": [tuple(args.set)]} if args.set else {}
    todo = grid(arm=ARMS, seed=range(args.seeds), data=SETS, **more)
    if args.tables:
        publish(NAME, report(todo))
        print(report(todo))
        return
    run_cells(NAME, todo, run_one, minutes=args.minutes)


if __name__ == "__main__":
    main()
