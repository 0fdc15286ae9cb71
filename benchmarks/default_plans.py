"""What the default for few labelled rows was chosen from: folds (cross-fitting), the length of the
contrastive phase, the names of the classes, unlabelled texts, patience, LoRA.

    python benchmarks/default_plans.py --part folds --jobs 2  # or names, unlabelled, patience, lora

The sets, rows and systems are those of ``quality.py``, whose cells of the default are the other
half of these comparisons.
"""

from __future__ import annotations

import csv
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from cells import Cell, grid, run_command
from claims import CHOSEN, Claim, Lines, Metric, chosen_elsewhere, comparison, paired, pick
from peers.arms import Arm, run_arm
from peers.sets import MANY_CLASSES, PLAIN, SETS, spare_texts
from peers.strong import strong_folder

from quality import MINILM, OURS, STRONG, possible, rows_of

NAME = "default_plans"
DEFAULT = OURS[MINILM]
# Folds, steps of contrast and their learning rate, compared where rows are few. The default with
# 100 rows, two folds of 40 steps at 1e-4, takes as long as 75 steps without folds.
CONTRAST_PLANS = ((0, 40, 1e-4), (3, 40, 1e-4), (3, 25, 1e-4), (3, 25, 1.6e-4))
# With 50 rows the default has 25 steps; this was its plan before.
FEWEST_ROWS, LONGER_PLAN = 50, (2, 40, 1e-4)
STRONG_CONTRAST_PLANS = ((0, 40, 6e-5), (3, 25, 6e-5), (3, 25, 1e-4))
# With 400 rows: folds, and epochs at 1e-4. The second is the default; six epochs are the default's.
EPOCH_PLANS = ((0, 6), (2, 6), (2, 9), (2, 4), (2, 3))
# Folds, epochs and their learning rate from the strong encoder, with 400 rows of short texts.
STRONG_EPOCH_PLANS = ((0, 4, 5e-5), (2, 4, 5e-5))
SHORT_SETS = ("cr", "mr", "trec", "queries")
# Sets whose labels are words, which the default may learn from.
NAMED_SETS = ("banking77", "packages", "instructions", "queries", "clinic")
WITHOUT_NAMES = f"without names, {MINILM}"
# As the longer plan for 50 rows.
LONGER_WITHOUT_NAMES = f"{LONGER_PLAN[1]} steps without names, {MINILM}"
# Six or seven rows of each of many classes.
MANY_ROWS = 500
# Texts of the set without their labels, and how they are labelled.
UNLABELLED_SETS = (*PLAIN, "packages", "queries", "instructions")
UNLABELLED_TEXTS = 2000
UNLABELLED = {
    f"unlabelled texts, {method}, {MINILM}": method for method in ("propagation", "self-training")
}
# Evaluations without improvement after which a run stops; without folds, where no other fit has
# set the number of steps.
PATIENCE = {f"patience {count}, {MINILM}": count for count in (1, 2, 4, 8)}
# More epochs than the default's three, with more rows; the checkpoint is kept as by default.
MANY_LABELLED = 1600
LENGTHS = {f"{epochs} epochs, {MINILM}": epochs for epochs in (6, 9)}
# Epochs, rows of a batch and learning rate from the strong encoder, with so many rows. The first is
# the default, the last was it before.
STRONG_LENGTHS = ((2, 16, 5e-5), (1.5, 16, 5e-5), (1, 16, 5e-5), (4, 32, 3e-5))
# LoRA in place of the layers that the default trains, where rows are few.
LORA = f"LoRA of rank 8, {MINILM}"
PARTS = ("folds", "names", "unlabelled", "patience", "length", "lora")


def arms() -> dict[str, Arm]:
    """The plans by name."""
    strong, embedded = str(strong_folder()), {"model.name": "embedded"}
    settings: dict[str, dict[str, Any]] = {
        DEFAULT: embedded,
        WITHOUT_NAMES: {**embedded, "data.class_names": False},
        LORA: {**embedded, "model.adapter.kind": "lora", "model.adapter.rank": 8},
        **{name: {**embedded, "data.unlabelled_by": how} for name, how in UNLABELLED.items()},
        **{
            name: {**embedded, "train.folds": 0, "train.patience": count}
            for name, count in PATIENCE.items()
        },
        **{
            name: {**embedded, "train.epochs": epochs, "train.keep": "newest_unless_worse"}
            for name, epochs in LENGTHS.items()
        },
    }
    for encoder, model, plans in (
        (MINILM, "embedded", (*CONTRAST_PLANS, LONGER_PLAN)),
        (STRONG, strong, STRONG_CONTRAST_PLANS),
    ):
        for folds, steps, rate in plans:
            settings[contrast_plan(folds, steps, rate, encoder)] = {
                "model.name": model,
                "train.folds": folds,
                "methods.contrast.steps": steps,
                "methods.contrast.learning_rate": rate,
            }
    longer = settings[contrast_plan(*LONGER_PLAN, MINILM)]
    settings[LONGER_WITHOUT_NAMES] = {**longer, "data.class_names": False}
    for folds, epochs in EPOCH_PLANS:
        length = {} if epochs == EPOCH_PLANS[0][1] else {"train.epochs": epochs}
        settings[epoch_plan(folds, epochs)] = {**embedded, "train.folds": folds, **length}
    for folds, epochs, rate in STRONG_EPOCH_PLANS:
        settings[epoch_plan(folds, epochs, rate)] = {
            "model.name": strong,
            "train.folds": folds,
            "train.epochs": epochs,
            "train.learning_rate": rate,
        }
    for passes, batch, rate in STRONG_LENGTHS:
        settings[length_plan(passes, batch, rate)] = {
            "model.name": strong,
            "train.epochs": passes,
            "train.batch_size": batch,
            "train.learning_rate": rate,
            "train.keep": "newest_unless_worse",
        }
    # A trial of the default plan would replace the plan that is measured.
    given = {name: {**one, "control.policy": "stop"} for name, one in settings.items()}
    return {name: Arm("holdfast", one, whole=True) for name, one in given.items()}


def length_plan(epochs: float, batch: int, rate: float) -> str:
    return f"{epochs:g} epochs in batches of {batch} at {rate:g}, {STRONG}"


def epoch_plan(folds: int, epochs: int, rate: float | None = None) -> str:
    """From the strong encoder where a rate is given."""
    plan = f"folds {folds}, {epochs} epochs"
    return f"{plan}, {MINILM}" if rate is None else f"{plan} at {rate:g}, {STRONG}"


def contrast_plan(folds: int, steps: int, rate: float, encoder: str) -> str:
    return f"folds {folds}, {steps} steps at {rate:g}, {encoder}"


def cells(part: str) -> list[dict[str, Any]]:
    """The cells of a part, seed by seed."""
    planned: dict[str, list[dict[str, Any]]] = {
        "folds": [
            *grid(
                seed=range(2),
                rows=[FEWEST_ROWS],
                data=SETS,
                arm=[contrast_plan(*LONGER_PLAN, MINILM)],
            ),
            *(
                cell
                for sizes, seeds in (((100, 50), 2), ((200,), 1))
                for cell in grid(
                    seed=range(seeds),
                    rows=sizes,
                    data=SETS,
                    arm=[contrast_plan(*plan, MINILM) for plan in CONTRAST_PLANS],
                )
            ),
            *grid(
                seed=[0],
                rows=(100,),
                data=SETS,
                arm=[contrast_plan(*plan, STRONG) for plan in STRONG_CONTRAST_PLANS],
            ),
            *grid(
                seed=range(2),
                rows=(400,),
                data=SETS,
                arm=[epoch_plan(*plan) for plan in EPOCH_PLANS],
            ),
            *grid(
                seed=[0],
                rows=(400,),
                data=SHORT_SETS,
                arm=[epoch_plan(*plan) for plan in STRONG_EPOCH_PLANS],
            ),
        ],
        "names": [
            *grid(seed=range(2), rows=[100], data=NAMED_SETS, arm=[WITHOUT_NAMES]),
            *grid(seed=range(2), rows=[FEWEST_ROWS], data=NAMED_SETS, arm=[LONGER_WITHOUT_NAMES]),
            *grid(
                seed=range(5), rows=(MANY_ROWS,), data=[MANY_CLASSES], arm=[DEFAULT, WITHOUT_NAMES]
            ),
        ],
        "unlabelled": [
            *grid(seed=range(2), rows=(100,), data=UNLABELLED_SETS, arm=list(UNLABELLED)),
            *grid(seed=range(5), rows=(MANY_ROWS,), data=[MANY_CLASSES], arm=list(UNLABELLED)),
        ],
        "lora": grid(seed=range(2), rows=(100,), data=SETS, arm=[LORA]),
        "patience": grid(seed=[0], rows=(400,), data=SETS, arm=list(PATIENCE)),
        "length": [
            *grid(seed=range(2), rows=(MANY_LABELLED,), data=SETS, arm=list(LENGTHS)),
            *grid(
                seed=[0],
                rows=(MANY_LABELLED,),
                data=SETS,
                arm=[length_plan(*plan) for plan in STRONG_LENGTHS[:3]],
            ),
            *grid(
                seed=[0],
                rows=(MANY_LABELLED,),
                data=("mr", "trec"),
                arm=[length_plan(*STRONG_LENGTHS[3])],
            ),
        ],
    }
    return possible(planned[part])


def run_one(cell: Cell) -> dict[str, Any]:
    parts, arm = rows_of(cell["data"], cell["rows"], cell["seed"]), arms()[cell["arm"]]
    with tempfile.TemporaryDirectory() as folder:
        if cell["arm"] in UNLABELLED:
            texts = spare_texts(cell["data"], parts, UNLABELLED_TEXTS)
            path = Path(folder) / "unlabelled.csv"
            with path.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("text",), *((text,) for text in texts)])
            arm = replace(arm, settings={**arm.settings, "data.unlabelled": str(path)})
        return run_arm(arm, parts, seed=cell["seed"], threads=1).result


def for_readers(name: str) -> str:
    """The name of a plan, as the other pages name its parts."""
    for word, other in (
        (f", {MINILM}", ", MiniLM"),
        (f", {STRONG}", ", mpnet"),
        ("folds 0", "no folds"),
        ("1 epochs", "1 epoch"),
    ):
        name = name.replace(word, other)
    return name


WITHOUT_FOLDS = contrast_plan(*CONTRAST_PLANS[0], MINILM)


def with_choice(lines: Lines) -> list[Any]:
    """The lines, and those of the plan for few rows that is best on the other sets."""
    plans = [DEFAULT, *(contrast_plan(*plan, MINILM) for plan in CONTRAST_PLANS)]
    return [*lines, *chosen_elsewhere(lines, plans)]


# Rows, plans and in words what they differ in.
FINDINGS = (
    (100, DEFAULT, WITHOUT_FOLDS, "cross-fitting"),
    (400, epoch_plan(*EPOCH_PLANS[1]), epoch_plan(*EPOCH_PLANS[0]), "cross-fitting"),
    (100, DEFAULT, WITHOUT_NAMES, "learning from the class names"),
    *(
        (100, name, DEFAULT, f"{how} of unlabelled texts instead of cross-fitting")
        for name, how in UNLABELLED.items()
    ),
)


def finding(lines: Lines) -> str:
    parts = []
    for size, first, second, what in FINDINGS:
        gap = paired(pick(lines, rows=size), "accuracy", first, second)
        if gap and gap.has_interval:
            parts.append(f"{what} {gap.words(100, 1, ' points')} at {size} labelled rows")
    return f"Change in test accuracy: {'; '.join(parts)}." if parts else ""


CLAIM = Claim(
    NAME,
    "Accuracy",
    "How the default training plans were chosen",
    """\
Rows and sets as in [Accuracy on ten sets](quality.md); the encoders are MiniLM and
all-mpnet-base-v2 ("mpnet"). With folds (cross-fitting, `train.folds`) the validation rows are
trained on too; "no folds" sets them aside. "Steps" are updates of supervised contrastive learning,
at the learning rate that follows. The default from MiniLM has two folds: 25 steps at 0.0001 up to
64 rows, 40 up to 200, 6 epochs up to 400. "Without names" does not learn from the names of the
classes. Unlabelled texts: up to 2,000, labelled by label propagation or self-training; with them
Holdfast cannot cross-fit, which the default does up to 400 rows. The lines with 500 rows are of all
77 intents of BANKING77. With 1,600 rows, "6 epochs" and "9 epochs" are compared with the default's
three, and other plans from mpnet with its default (two in batches of 16). With 1,600 rows
mpnet's plans of 1 to 2 epochs ran on a GPU, its plan of 4 epochs and MiniLM on a CPU; all ratios
are of processor time, not of GPU time. "Patience k": no cross-fitting, and training stops
after k of at most 20 evaluations without improvement. Planned comparisons without measurements are
not in the table. "The best on the other sets": for each set, the plan (with or without folds)
with the highest mean accuracy on the other sets. Processor time is that of the whole
command; only pairs that were run less than 3 hours apart are compared. Intervals are over the means
of sets where at least five sets were measured, otherwise over pairs.""",
    lambda: [
        *(cell for part in PARTS for cell in cells(part)),
        *possible(grid(seed=range(2), rows=(50, 100, MANY_LABELLED), data=SETS, arm=[DEFAULT])),
    ],
    finding,
    [
        lambda lines: comparison(
            [
                (DEFAULT, WITHOUT_FOLDS),
                (DEFAULT, contrast_plan(*LONGER_PLAN, MINILM)),
                (CHOSEN, WITHOUT_FOLDS),
                *(
                    (contrast_plan(*one, encoder), contrast_plan(*plans[0], encoder))
                    for encoder, plans in (
                        (MINILM, CONTRAST_PLANS),
                        (STRONG, STRONG_CONTRAST_PLANS),
                    )
                    for one in plans[1:]
                ),
                *((epoch_plan(*one), epoch_plan(*EPOCH_PLANS[0])) for one in EPOCH_PLANS[1:]),
                (epoch_plan(*STRONG_EPOCH_PLANS[1]), epoch_plan(*STRONG_EPOCH_PLANS[0])),
                (DEFAULT, WITHOUT_NAMES),
                (contrast_plan(*LONGER_PLAN, MINILM), LONGER_WITHOUT_NAMES),
                (LORA, DEFAULT),
                *((name, DEFAULT) for name in UNLABELLED),
                *((name, epoch_plan(*EPOCH_PLANS[0])) for name in PATIENCE),
                *((name, DEFAULT) for name in LENGTHS),
                *(
                    (length_plan(*plan), length_plan(*STRONG_LENGTHS[0]))
                    for plan in STRONG_LENGTHS[1:]
                ),
                (length_plan(*STRONG_LENGTHS[0]), DEFAULT),
            ],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Processor time, ratio": Metric("cpu_s", 1, 2, times=True),
            },
            "rows",
            names={line["arm"]: for_readers(line["arm"]) for line in with_choice(lines)},
        )(sorted(with_choice(lines), key=lambda line: int(line["rows"])))
    ],
    """\
The default was chosen on these sets, so its lead may be optimistic. Only "the best on the other
sets" avoids this, but the plans themselves were also drawn up on these sets. Each line of the table
compares only the runs that both plans have, so do not subtract results of different lines.""",
    files=("quality", NAME),
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one, PARTS)
