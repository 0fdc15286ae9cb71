"""The learning-rate range test: is the rate that ``holdfast lr`` suggests as good as the table's?

    python benchmarks/rate_range.py [--minutes M]      # the cells, resumable; then the table

MiniLM on CR, MR and TREC at 400 labelled rows, 1,000 test rows: the sweep of each, and the default
recipe at the table's rate and at the suggested one, on the same rows and seed. The rule (the rate
of the steepest fall, 1506.01186) was not chosen on these.
"""

from __future__ import annotations

import argparse
from typing import Any

from cells import RESULTS, Cell, Result, grid, key, run_cells, stored
from claims import Claim, Lines, Metric, comparison, paired
from peers.in_process import holdfast_fit, prepared_for

NAME = "rate_range"
SWEEP, TABLE, SUGGESTED = "sweep", "table", "suggested"


def cells() -> list[dict[str, Any]]:
    arms = [SWEEP, SUGGESTED, TABLE]
    return grid(seed=[0, 1, 2], data=["trec", "cr", "mr"], rows=[400], arm=arms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float)
    asked, every = parser.parse_args(), cells()
    run_cells(NAME, every, run_one, minutes=asked.minutes)


def run_one(cell: Cell) -> Result:
    """The sweep of a cell's rows, or a fit at the arm's rate."""
    if cell["arm"] == SWEEP:
        return swept(cell)
    settings: dict[str, float] = {}
    if cell["arm"] == SUGGESTED:
        found = stored(RESULTS / f"{NAME}.jsonl")[key({**cell, "arm": SWEEP})]
        if found["suggested"] is None:
            return {"suggested": None, "accuracy": None}
        settings["train.learning_rate"] = found["suggested"]
    return holdfast_fit(cell, settings, probe=False)


def swept(cell: Cell) -> Result:
    from holdfast.search.rate_range import find_rate_range

    prepared, train, valid, _, _ = prepared_for(cell["data"], cell["rows"], cell["seed"])
    found = find_rate_range(prepared, train, valid)
    return {
        "suggested": found.suggested,
        "low": found.low,
        "high": found.high,
        "planned": found.planned,
        "updates": len(found.points),
        "because": found.because,
    }


def finding(lines: Lines) -> str:
    gap = paired(lines, "accuracy", SUGGESTED, TABLE)
    return (
        f"The suggested learning rate changes accuracy by {gap.words(100, 1, ' points')}."
        if gap
        else ""
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "The learning rate range test",
    """\
MiniLM, 400 labelled rows, 1,000 test rows: a run with the rate that `holdfast lr` suggests
against one with the default rate, on the same rows with the same seed. The rule was not chosen on
these rows.""",
    cells,
    finding,
    [comparison([(SUGGESTED, TABLE)], {"Accuracy, points": Metric("accuracy", 100)})],
)


if __name__ == "__main__":
    main()
