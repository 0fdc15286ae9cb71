"""What a student keeps of its teacher: fewer blocks, a static model, a small one of a strong one.

    python benchmarks/distill.py --seeds 2 --minutes 4     # a piece of it; resumable
    python benchmarks/distill.py --arms static             # one arm of it

A run of 400 labelled rows (82/18 divided) is the teacher: from MiniLM, or in the arms `strong …`
from all-mpnet-base-v2 (``peers/strong.py``). The student learns from the same rows, and unless the
arm says `labelled` from 2,000 further texts of the set without their labels.
`alone` is what `distill` trains for comparison: the same student on the labels, as `train` does.
All are scored on the same 600 rows.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, average, mean_words, pick, renamed, runs, table
from peers.rows import Rows, clean_set
from peers.sets import WHOLE
from peers.strong import strong_folder

NAME = "distill"
SETS, ROWS, UNLABELLED, TESTED = ("cr", "trec", "mr"), 400, 2000, 600


@dataclass(frozen=True, slots=True)
class StudentArm:
    """The ``student`` as arguments of ``holdfast.distill``, and whether its teacher is ``strong``
    and it learns from ``unlabelled`` texts."""

    student: dict[str, Any]
    strong: bool = False
    unlabelled: bool = True


ARMS = {
    "unlabelled": StudentArm({"layers": 3}),
    "labelled": StudentArm({"layers": 3}, unlabelled=False),
    "static": StudentArm({"to": "static"}),
    "static, labelled": StudentArm({"to": "static"}, unlabelled=False),
    "static, no block": StudentArm({"to": "static", "layers": 0}),
    "strong": StudentArm({"student": "embedded"}, strong=True),
    "strong, labelled": StudentArm({"student": "embedded"}, strong=True, unlabelled=False),
    "strong, static": StudentArm({"to": "static"}, strong=True),
}


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


def _rows_of(data: str) -> Rows:
    return WHOLE[data]() if data in WHOLE else clean_set(data)


def _files(data: str, seed: int) -> tuple[Path, dict[str, str]]:
    """Labelled, unlabelled and test rows of one draw, none in two of them."""
    rows, place = _rows_of(data), _folder() / f"{data}-{seed}"
    place.mkdir(exist_ok=True)
    fixed = np.random.default_rng(99).permutation(len(rows.texts))
    test, rest = fixed[:TESTED], np.random.default_rng(seed).permutation(fixed[TESTED:])
    parts = {"labelled": rest[:ROWS], "unlabelled": rest[ROWS : ROWS + UNLABELLED], "test": test}
    made = {}
    for name, at in parts.items():
        bare = name == "unlabelled"
        lines = [[rows.texts[i]] if bare else [rows.texts[i], str(rows.labels[i])] for i in at]
        columns = ["text"] if bare else ["text", "label"]
        made[name] = _write(place / f"{name}.csv", columns, lines)
    return place, made


def _teacher(place: Path, files: dict[str, str], seed: int, strong: bool) -> Path:
    """The teacher's run, which is trained where it is not there."""
    import holdfast
    from holdfast.contract.run_folder import is_finished

    teacher = place / ("strong" if strong else "teacher")
    if not is_finished(teacher):
        holdfast.train(
            files["labelled"],
            test=files["test"],
            out=teacher,
            seed=seed,
            model=str(strong_folder()) if strong else "embedded",
            settings=["train.threads=1"],
            quiet=True,
            resume=teacher.exists(),
        )
    return teacher


def run_one(cell: Cell) -> Result:
    """One student; its teacher is trained where it is not there."""
    import holdfast
    from holdfast.api.trained_run import TrainedRun
    from holdfast.contract.run_folder import is_finished

    arm = ARMS[cell["arm"]]
    place, files = _files(cell["data"], cell["seed"])
    teacher = _teacher(place, files, cell["seed"], arm.strong)
    out = place / str(cell["arm"]).replace(", ", "-")
    out = out.with_name(f"student-{out.name}")
    if is_finished(out):
        # Of other settings, or of an older version.
        shutil.rmtree(out)
    start = time.perf_counter()
    run = holdfast.distill(
        teacher,
        **arm.student,
        unlabelled=files["unlabelled"] if arm.unlabelled else None,
        settings=["train.threads=1", *cell.get("set", ())],
        out=out,
        resume=(out / "recipe.yaml").exists(),
        quiet=True,
    )
    seconds = time.perf_counter() - start
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
        "rate": _rate(run, files["test"]) / _rate(TrainedRun(teacher), files["test"]),
        "seconds": seconds,
        "train_s": result["timing"]["train_s"],
        "epochs": result["settings"]["train"]["epochs"],
        "best": f"{result['best_step']} of {result['last_step']}",
    }


def _rate(run: Any, file: str) -> float:
    """Texts per second of ``run.predict`` on the test rows' texts, warm: the best of three."""
    with Path(file).open(encoding="utf-8", newline="") as lines:
        texts = [row["text"] for row in csv.DictReader(lines)]
    run.predict(texts)
    passes = []
    for _ in range(3):
        start = time.perf_counter()
        run.predict(texts)
        passes.append(time.perf_counter() - start)
    return len(texts) / min(passes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--set", action="append", default=[], help="a setting that is tried")
    args = parser.parse_args()
    more: dict[str, Any] = {"set": [tuple(args.set)]} if args.set else {}
    todo = grid(arm=args.arms, seed=range(args.seeds), data=args.data, **more)
    run_cells(NAME, todo, run_one, minutes=args.minutes)


# How a reader knows the students.
STUDENTS = {
    "strong": "MiniLM taught by mpnet",
    "strong, labelled": "MiniLM taught by mpnet, no unlabelled texts",
    "unlabelled": "half of MiniLM's layers taught by MiniLM",
    "labelled": "half of MiniLM's layers taught by MiniLM, no unlabelled texts",
    "static": "static taught by MiniLM",
    "static, no block": "static without a block taught by MiniLM",
    "static, labelled": "static taught by MiniLM, no unlabelled texts",
    "strong, static": "static taught by mpnet",
}


def finding(lines: Lines) -> str:
    parts = []
    for arm, what in STUDENTS.items():
        if some := pick(lines, arm=arm):
            speed = f" at {mean_words(some, 'rate', 1, 1)} times its speed" if len(some) > 2 else ""
            parts.append(f"{what} {mean_words(some, 'kept', 100, 1, ' %')}{speed}")
    of = "Share of the teacher's accuracy that a student has"
    return f"{of}: {'; '.join(parts)}." if parts else ""


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Distillation",
    """\
The teacher is a run on 400 labelled rows, from MiniLM or from all-mpnet-base-v2 ("mpnet"); teacher
and student are scored on 600 other rows. "Static" is a table of token vectors, with or without
one small attention block. Students also learn from texts that the teacher labels: 2,000 unlabelled
texts; if there are none, combined texts (the beginning of one training text and the end of
another); both for a static student. "Without teacher" is the same student trained on the labels
only. "Speed-up" is the student's ÷ the teacher's rows per second in `predict`, one thread.""",
    lambda: grid(arm=ARMS, seed=range(2), data=SETS),
    finding,
    [
        lambda lines: table(
            {"arm": "Student", "data": "Set"},
            {
                "Runs": runs,
                "Teacher, %": average("teacher", 100, limits=False),
                "Student, %": average("student", 100, limits=False),
                "Student ÷ teacher, %": average("kept", 100, limits=False),
                "Without teacher, %": average("alone", 100, limits=False),
                "Speed-up, times": average("rate", 1, 1, limits=False),
            },
        )(renamed(lines, arm=STUDENTS))
    ],
    """\
Intervals are over runs, of at most two seeds on three sets: they do not show how results differ
between data sets. Not measured: students with half of MiniLM's layers (`--layers 3`), and static
students of mpnet or without unlabelled texts. Lines on one set can have teachers and baselines
that were trained on different days; their accuracies differ by up to two points.""",
)


if __name__ == "__main__":
    main()
