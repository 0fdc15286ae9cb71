"""What the guard costs: its seconds beside those of the whole training, on real runs.

`python benchmarks/verdicts.py overhead`: Holdfast's command on 400 labelled rows with its defaults.
``guard_s`` is judging and advising at every look; ``evaluate_s``, the measuring of the rows, is
part of the training and shown apart. Demanded: the guard at most 3 % of the rest.
"""

from __future__ import annotations

from typing import Any

from cells import grid
from claims import Claim, Lines, average, mean_words, table
from peers.rows import SETS

NAME = "guard_overhead"


def cells() -> list[dict[str, Any]]:
    return grid(seed=[0], data=SETS)


def finding(lines: Lines) -> str:
    return (
        "The guard, which judges and advises at every evaluation, adds "
        f"{mean_words(lines, 'share', 100, 2, ' %')} to the rest of the training time."
    )


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "What the guard costs",
    """\
`holdfast train` on 400 labelled rows with its defaults. The time of the evaluations themselves
counts as training and has its own column.""",
    cells,
    finding,
    [
        table(
            {"data": "Set"},
            {
                "Evaluations": average("looks", 1, 0),
                "Training, s": average("train_s"),
                "of it evaluation, s": average("evaluate_s"),
                "of it guard, s": average("guard_s", 1, 2),
                "Guard ÷ the rest, %": average("share", 100, 2),
            },
        )
    ],
    command="python benchmarks/verdicts.py overhead",
)
