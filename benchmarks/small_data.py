"""Accuracy and time on 100, 400 and 1,600 labelled rows, against four peers on the same rows.

    python benchmarks/small_data.py                 # 100 rows seed by seed, then 400, then 1,600
    python benchmarks/small_data.py --minutes 60    # start no new cell after an hour
    python benchmarks/small_data.py --quick         # a smoke test, nothing is kept

CR, MR and TREC without copies; the labelled rows are divided into 82 % training and 18 %
validation, stratified; the test rows are 2,000 others, the same for every seed and size. All start
from MiniLM. Arms: Holdfast's default; the Hugging Face Trainer (3 epochs, its defaults, batches of
8); the Trainer with early stopping (20 epochs, batches of 16, patience 3, the best state by
validation loss restored); SetFit at 100 rows. The linear probe is the one in Holdfast's result.

Every arm learns from the training rows alone. SetFit and the plain Trainer have no use for
validation rows, so "SetFit, all rows" learns from those too; it comes last, once a set.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cells import Cell, grid, run_cells
from claims import Claim, Column, Lines, Metric, average, comparison, paired, pick, runs, table
from peers.arms import Arm
from peers.rows import SETS, Parts, clean_set, draw, labelled_counts
from peers.script import options, results_path, runner

NAME = "small_data"
BY = ("rows", "data", "seed")
SIZES = (100, 400, 1600)
SEEDS = 3
MAIN, PLAIN, STOPPING, SETFIT = "holdfast", "trainer", "early stopping", "setfit"
SETFIT_ALL, PROBE = "setfit, all rows", "linear probe"


def arms(quick: bool) -> dict[str, Arm]:
    """The systems; the quick ones take a step or two."""
    ours = {"train.max_steps": 4} if quick else {}
    setfit = {"num_iterations": 1 if quick else 20}
    stopping = {"epochs": 2 if quick else 20, "batch_size": 16, "patience": 3}
    return {
        MAIN: Arm("holdfast", ours),
        PLAIN: Arm("trainer", {"epochs": 1 if quick else 3, "batch_size": 8}),
        STOPPING: Arm("trainer", stopping),
        SETFIT: Arm("setfit", setfit),
        SETFIT_ALL: Arm("setfit", setfit, whole=True),
    }


def cells(quick: bool) -> list[dict[str, Any]]:
    """By size, then seed, then set, with the arms side by side. SetFit takes as long as all other
    arms together, so it comes after the first seed of the next size; with all rows, last."""
    if quick:
        return grid(rows=[40], seed=[0], data=["cr"], arm=list(arms(quick)))
    todo: list[dict[str, Any]] = []
    for size in SIZES:
        systems = [MAIN, PLAIN, STOPPING]
        todo += grid(rows=[size], seed=range(SEEDS), data=SETS, arm=systems)
    first = [c for c in todo if c["rows"] == SIZES[0] or (c["rows"] == SIZES[1] and not c["seed"])]
    first += grid(rows=SIZES[:1], seed=range(SEEDS), data=SETS, arm=[SETFIT])
    rest = [c for c in todo if c not in first]
    return first + rest + grid(rows=SIZES[:1], seed=[0], data=SETS, arm=[SETFIT_ALL])


def parts_of(cell: Cell, quick: bool) -> Parts:
    rows, counts = clean_set(cell["data"]), labelled_counts(cell["rows"])
    return draw(rows, seed=cell["seed"], **counts, test=slice(0, 40) if quick else None)


def with_probe(done: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The linear probe as an arm of its own; its time is part of Holdfast's."""
    probes = [
        {name: record[name] for name in BY} | {"arm": PROBE, "accuracy": record["probe_accuracy"]}
        for record in done
        if record["arm"] == MAIN and record["probe_accuracy"] is not None
    ]
    return [*map(dict, done), *probes]


def main(words: Sequence[str]) -> None:
    chosen = options(__doc__ or "").parse_args(words)
    path = results_path(NAME, chosen.threads, chosen.quick)
    todo = cells(chosen.quick)
    parts = functools.partial(parts_of, quick=chosen.quick)
    run_one = runner(arms(chosen.quick), parts, path, chosen.threads)
    run_cells(NAME, todo, run_one, path, minutes=chosen.minutes)


def of_arm(name: str) -> Column:
    return lambda lines: average("accuracy", 100, limits=False)(pick(lines, arm=name))


def finding(lines: Lines) -> str:
    parts = []
    for size in SIZES:
        gaps = {
            name: paired(pick(lines, rows=size), "accuracy", MAIN, peer, BY)
            for name, peer in (("Trainer", PLAIN), ("Trainer with early stopping", STOPPING))
        }
        found = [
            f"{gap.words(100, 1, ' points')} compared with {peer}"
            for peer, gap in gaps.items()
            if gap
        ]
        parts += [f"with {size} labelled rows, {' and '.join(found)}"] if found else []
    if not parts:
        return ""
    return (
        "Difference in test accuracy of an earlier default of Holdfast, without cross-fitting: "
        f"{'; '.join(parts)}."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Few labelled rows",
    """\
MiniLM on CR, MR and TREC without duplicates. 82 % of the labelled rows are training rows, the
others validation rows; the 2,000 test rows are the same for every seed and size. Systems on the
same rows: Holdfast's default; Trainer (3 epochs, batches of 8); Trainer with early stopping (at
most 20 epochs, patience 3, the best checkpoint restored); SetFit; the linear probe of Holdfast's
run. Every system trains on the training rows only. Holdfast's default was an earlier one, without
folds (cross-fitting); [another page](quality.md) has the present default.""",
    lambda: cells(quick=False),
    finding,
    [
        lambda lines: comparison(
            [(MAIN, other) for other in (PLAIN, STOPPING, PROBE, SETFIT)],
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Training time, ratio": Metric("train_s", 1, 2, times=True),
            },
            "rows",
        )(with_probe(lines)),
        lambda lines: table(
            {"rows": "Rows", "arm": "System"},
            {
                "Runs": runs,
                "Accuracy, %": average("accuracy", 100, limits=False),
                "Training, s": average("train_s", limits=False),
                "Command, s": average("command_s", limits=False),
                "Peak memory, MB": average("peak_mb", 1, 0, limits=False),
            },
        )(sorted(with_probe(lines), key=lambda line: int(line["rows"]))),
        lambda lines: table(
            {"rows": "Rows", "data": "Set"},
            {name: of_arm(name) for name in (MAIN, PLAIN, STOPPING, PROBE, SETFIT, SETFIT_ALL)},
            "Accuracy in % by set:",
        )(with_probe(lines)),
    ],
    """\
The defaults were chosen on these sets, so another set may show a smaller difference ([ten
sets](quality.md)). Where an interval contains 0, no difference is shown. SetFit has one run, which
cannot show a difference. Texts are in full here and cut on the page of ten sets, so the accuracies
of the two pages cannot be compared.""",
)


if __name__ == "__main__":
    main(sys.argv[1:])
