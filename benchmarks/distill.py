"""What three blocks of MiniLM keep of its six: a student with a teacher, and without one.

    python benchmarks/distill.py --seeds 2 --minutes 4     # a piece of it; resumable

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
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, average, mean_words, pick, runs, table
from peers.rows import clean_set

NAME = "distill"
SETS, ARMS, ROWS, BESIDE, TESTED = ("trec", "cr"), ("unlabelled", "labelled"), 400, 2000, 800


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--set", action="append", default=[], help="a setting that is tried")
    args = parser.parse_args()
    more: dict[str, Any] = {"set": [tuple(args.set)]} if args.set else {}
    todo = grid(arm=ARMS, seed=range(args.seeds), data=SETS, **more)
    run_cells(NAME, todo, run_one, minutes=args.minutes)


def finding(lines: Lines) -> str:
    parts = [
        f"{mean_words(some, 'student', 100, 1, ' %')} with {what}"
        for arm, what in (
            ("unlabelled", "2,000 unlabelled texts"),
            ("labelled", "the labelled rows only"),
        )
        if (some := pick(lines, arm=arm))
    ]
    teacher = mean_words(lines, "teacher", 100, 1, " %")
    shown = " and ".join(parts)
    return f"A student of half the layers has an accuracy of {shown}; its teacher {teacher}."


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Distillation",
    """\
Three of MiniLM's six blocks, trained to predict as the six do: 400 labelled rows, 800 test rows.
"Unlabelled": with 2,000 other texts; "labelled": with texts made from the training rows in their
place. "By labels only" is the same student without a teacher. "Kept" is student ÷ teacher.""",
    lambda: grid(arm=ARMS, seed=range(2), data=SETS),
    finding,
    [
        table(
            {"data": "Set", "arm": "Texts"},
            {
                "Runs": runs,
                "Teacher, %": average("teacher", 100, limits=False),
                "Student, %": average("student", 100, limits=False),
                "Kept, %": average("kept", 100, limits=False),
                "By labels only, %": average("alone", 100, limits=False),
                "Speed, times": average("speed", 1, 1, limits=False),
            },
        )
    ],
    "No interval where a row has one or two runs.",
)


if __name__ == "__main__":
    main()
