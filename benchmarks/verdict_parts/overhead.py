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
        "Computing the guard's verdicts and advice adds "
        f"{mean_words(lines, 'share', 100, 2, ' %')} to the training time, in which the "
        "evaluations that the guard reads are already included."
    )


CLAIM = Claim(
    NAME,
    "Speed and memory",
    "The time of the guard's verdicts",
    """\
`holdfast train` on 400 labelled rows with its defaults. The guard needs the evaluations of training
and validation rows. Their time counts as training, and has its own column.""",
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
