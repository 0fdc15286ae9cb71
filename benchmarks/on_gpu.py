"""Held-out accuracy on a GPU, where a strong encoder is affordable with every number of rows.

    python benchmarks/on_gpu.py --jobs 12

Systems, rows and sets are those of ``quality.py`` and ``fresh_sets.py``. Several processes share
the GPU, so a time says nothing but how it compares with another system's. Cells that are there are
not run again.
"""

from __future__ import annotations

from typing import Any

from cells import Cell, grid, run_command
from claims import Claim, Gap, Line, Lines, Metric, ReadmeRow, comparison, paired, pick
from peers.sets import FRESH_SETS, SETS

from quality import MINILM, NAMES, OURS, STRONG, by_set, possible
from quality import run_one as on_any_machine

NAME = "on_gpu"
SIZES = (100, 400)
SEEDS = 2
PAIRS = [(OURS[encoder], f"early stopping, {encoder}") for encoder in (STRONG, MINILM)]
CHOSEN_ON = {True: "five not used to choose defaults", False: "ten used to choose defaults"}


def cells() -> list[dict[str, Any]]:
    """Encoder by encoder, most labelled rows first: those take longest on a processor."""
    found: list[dict[str, Any]] = []
    for arms in PAIRS:
        for seed in range(SEEDS):
            for rows in reversed(SIZES):
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
        for rows in SIZES
        if (gap := _gap(pick(lines, rows=rows))) and gap.has_interval
    ]
    names = " minus ".join(NAMES[one] for one in PAIRS[0])
    return f"{names}, in test accuracy: {'; '.join(parts)}." if parts else ""


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    return [
        (
            f"Accuracy, {what}, on a GPU: Holdfast (auto) minus Trainer with early stopping on "
            "all-mpnet-base-v2",
            f"{gap.short(100)} points, {gap.over}, in "
            f"{slower.short(1, 1, sign=False)} times its time",
            gap.verdict(),
        )
        for what, some in (
            *((f"{rows} labelled texts", pick(lines, rows=rows)) for rows in SIZES),
            (
                "100 and 400 labelled texts of data sets on which no default was chosen",
                pick(lines, data=FRESH_SETS),
            ),
        )
        if (gap := _gap(some)) and (slower := _gap(some, "command_s"))
    ]


def _gap(lines: Lines, of: str = "accuracy") -> Gap | None:
    return paired(lines, of, *PAIRS[0], times=of != "accuracy")


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Accuracy on a GPU",
    """\
"Holdfast (auto)" and "Trainer (mpnet)" are described with the [ten sets](quality.md) on which the
defaults were chosen; the [other five](fresh_sets.md) were not used for that. On a GPU fine-tuning
all-mpnet-base-v2 ("mpnet") fits the time budget of "auto" with 400 rows too; it still chose MiniLM
in 5 of 15 runs with 100 rows and in 16 of 24 with 400. Twelve runs shared one NVIDIA H200, with one
CPU thread each: times are longer than those of a single run, and their ratio may differ. Holdfast
trained in bfloat16, Trainer in float32, as by default. Both began from weights of mpnet that were
rounded to float16. Intervals are over the means of sets.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            PAIRS,
            {
                "Accuracy, points": Metric("accuracy", 100),
                "Wall time of the command, ratio": Metric("command_s", 1, 1, times=True),
            },
            "rows",
            "All sets:",
            names=NAMES,
        )(_by_kind(lines)),
        lambda lines: comparison(
            PAIRS,
            {"Accuracy, points": Metric("accuracy", 100)},
            "sets",
            "By group of sets, 100 and 400 rows together:",
            names=NAMES,
        )(_by_kind(lines)),
        lambda lines: by_set(_by_kind(lines)),
    ],
    """\
Holdfast's whole command took longer than Trainer's, while on a CPU it takes [less time](quality.md)
with 100 rows. At that commit it scored the test rows on the CPU, in float32 with one thread; this
has been changed since, and not measured again.""",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
