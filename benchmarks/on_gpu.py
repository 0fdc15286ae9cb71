"""Held-out accuracy on a GPU, where a strong encoder is affordable with every number of rows.

    python benchmarks/on_gpu.py --jobs 12

Systems, rows and sets are those of ``quality.py`` and ``fresh_sets.py``. Several processes share
the GPU, so a time says nothing but how it compares with another system's. Cells that are there are
not run again.
"""

from __future__ import annotations

from typing import Any

from cells import Cell, grid, run_command
from claims import Claim, Line, Lines, Metric, ReadmeRow, comparison, paired, pick, table
from peers.sets import FRESH_SETS, SETS

from quality import MINILM, NAMES, OURS, STRONG, SYSTEMS, of_arm, possible
from quality import run_one as on_any_machine

NAME = "on_gpu"
SEEDS = 2
PAIRS = [(OURS[encoder], f"early stopping, {encoder}") for encoder in (STRONG, MINILM)]
CHOSEN_ON = {True: "five that no default was chosen on", False: "ten that defaults were chosen on"}


def cells() -> list[dict[str, Any]]:
    """Encoder by encoder, most labelled rows first: those take longest on a processor."""
    found: list[dict[str, Any]] = []
    for arms in PAIRS:
        for seed in range(SEEDS):
            for rows in (400, 100):
                data = (*FRESH_SETS, *SETS)
                found += possible(grid(seed=[seed], rows=[rows], data=data, arm=arms))
    return found


def run_one(cell: Cell) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("not run: there is no GPU")
    return on_any_machine(cell) | {"gpu": torch.cuda.get_device_name()}


def _by_kind(lines: Lines) -> list[Line]:
    return [
        {**line, "sets": CHOSEN_ON[line["data"] in FRESH_SETS]}
        for line in sorted(lines, key=lambda one: int(one["rows"]))
    ]


def finding(lines: Lines) -> str:
    parts = [
        f"with {rows} labelled rows {gap.words(100, 1, ' points')}"
        for rows in (100, 400)
        if (gap := paired(pick(lines, rows=rows), "accuracy", *PAIRS[0])) and gap.has_interval
    ]
    names = " minus ".join(NAMES[one] for one in PAIRS[0])
    return f"{names}, in test accuracy: {'; '.join(parts)}." if parts else ""


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    gap = paired(lines, "accuracy", *PAIRS[0])
    if not gap or not gap.has_interval:
        return []
    what = "Accuracy on a GPU, 100 and 400 labelled texts: Holdfast, choosing MiniLM or "
    what += "all-mpnet-base-v2, minus Trainer on all-mpnet-base-v2"
    return [(what, f"{gap.short(100)} points, {gap.over}", gap.verdict())]


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Accuracy on a GPU",
    """\
The systems and rows are those of [ten sets](quality.md) and [five others](fresh_sets.md). On a GPU
fine-tuning all-mpnet-base-v2 ("mpnet") is within the budget of "Holdfast (auto)" with 400 rows too.
Twelve runs shared the GPU, and each had one thread of the processor: their times compare systems
and are longer than those of a run alone. The weights of mpnet were rounded to float16 for the
transport. Intervals are over the means of sets.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            PAIRS,
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Time of the command, ratio": Metric("command_s", 1, 1, times=True),
            },
            "rows",
            "All sets:",
            names=NAMES,
        )(_by_kind(lines)),
        lambda lines: comparison(
            PAIRS, {"Accuracy, points": Metric("accuracy", 100)}, "sets", "By set:", names=NAMES
        )(_by_kind(lines)),
        lambda lines: table(
            {"rows": "Rows", "data": "Set"},
            {NAMES[name]: of_arm(name) for name in SYSTEMS if pick(lines, arm=name)},
            "Accuracy in % by set, means over seeds:",
        )(_by_kind(lines)),
    ],
    """\
On a GPU the whole command takes longer than Trainer's: besides fine-tuning Holdfast runs probes of
both encoders, the folds of MiniLM, the audit and the analyses. Which of them takes how long there
was not measured.""",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
