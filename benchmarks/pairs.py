"""Rows that come in pairs of different labels on one subject: are they found, and what does it
bring to keep them together?

    python benchmarks/pairs.py --jobs 2

Whether rows come in pairs is asked of the ten sets of ``peers/sets.py``; one of them consists of
pairs, a human's and a machine's answer to one prompt. On that one Holdfast's default is run as it
is, and once without the search.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
from cells import Cell, Result, grid, run_command
from claims import Claim, Lines, Metric, comparison, paired, pick, share
from peers import arms
from peers.sets import SETS

from holdfast.duplicates.opposite_pairs import opposite_pairs
from quality import SEEDS, SIZES, possible, rows_of

NAME = "pairs"
PAIRED = "ai_text"
TOGETHER, APART, SEARCH = "together", "apart", "search"
WITHOUT_SEARCH = (
    "from unittest import mock; "
    "mock.patch('holdfast.split.split_table.opposite_pairs_of', lambda table: None).start(); "
)
COMMANDS = {TOGETHER: arms.COMMAND, APART: WITHOUT_SEARCH + arms.COMMAND}


def cells() -> list[dict[str, Any]]:
    """The searches, then the runs by seed."""
    searches = grid(data=SETS, rows=SIZES, seed=range(SEEDS), arm=[SEARCH])
    return possible(
        [*searches, *grid(seed=range(3), data=[PAIRED], rows=(100, 400), arm=list(COMMANDS))]
    )


def run_one(cell: Cell) -> Result:
    parts = rows_of(cell["data"], cell["rows"], cell["seed"])
    if cell["arm"] != SEARCH:
        arm = arms.Arm("holdfast", {"model.name": "embedded"}, whole=True)
        with mock.patch.object(arms, "COMMAND", COMMANDS[cell["arm"]]):
            return arms.run_arm(arm, parts, seed=cell["seed"], threads=1).result
    known = parts.whole().train
    found = opposite_pairs(known.texts, np.unique(known.labels, return_inverse=True)[1])
    return {"found": found is not None, "pairs": 0 if found is None else len(found)}


def finding(lines: Lines) -> str:
    searches = pick(lines, arm=SEARCH)
    of_pairs = pick(searches, data=PAIRED)
    others = [line for line in searches if line["data"] != PAIRED]
    if not of_pairs or not others:
        return ""
    found, wrong = (sum(one["found"] for one in some) for some in (of_pairs, others))
    told = (
        "Pairs of texts on one subject with different labels are detected in "
        f"{share(found, len(of_pairs), long=True)} draws of the set made of such pairs "
        f"and in {share(wrong, len(others), long=True)} draws of the others."
    )
    gap = paired(lines, "accuracy", TOGETHER, APART)
    if gap is None:
        return told
    change = gap.words(100, 1, " points")
    return f"{told} Keeping pairs of rows in one split changes test accuracy by {change}."


CLAIM = Claim(
    NAME,
    "Data",
    "Rows in pairs of different labels",
    """\
A pair of rows is two texts on one subject with different labels. The search for pairs runs on 50 to
1,600 labelled rows of the [ten sets](quality.md), with five seeds. One set consists of pairs:
`ai_text`, a human's and a machine's answer to the same prompt. On it the default is trained with
the search ("together": each pair in one split) and without it ("apart"), on the same rows.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [(TOGETHER, APART)], {"Accuracy, points": Metric("accuracy", 100)}, "rows"
        )([line for line in lines if line["arm"] != SEARCH])
    ],
    """\
Only one set consists of pairs, so there is no interval over sets. The draws of a set are not
independent, so the intervals above are too narrow. No difference in accuracy is shown.""",
)


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
