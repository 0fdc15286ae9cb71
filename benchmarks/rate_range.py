"""The learning-rate range test: is the rate that ``holdfast lr`` suggests as good as the table's?

    python benchmarks/rate_range.py [--minutes M]      # the cells, resumable; then the table

MiniLM on CR, MR and TREC at 400 labelled rows, 1,000 test rows: the sweep of each, and the default
recipe at the table's rate and at the suggested one, on the same rows and seed. The rule (the rate
of the steepest fall, 1506.01186) was not chosen on these.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from cells import NOT_RUN, RESULTS, Cell, Result, grid, key, publish, run_cells, stored
from peers.in_process import holdfast_fit, prepared_for
from peers.tables import markdown

NAME = "rate_range"
SWEEP, TABLE, SUGGESTED = "sweep", "table", "suggested"
TEXT = """## The learning-rate range test

Is the rate that `holdfast lr` suggests as good as the table's (`benchmarks/rate_range.py`)? MiniLM,
400 labelled rows, 1,000 test rows, accuracy in points, both runs on the same rows and seed. The
rule was not chosen on these rows. So few runs are a check that nothing is far off, no proof.
"""


def cells() -> list[dict[str, Any]]:
    arms = [SWEEP, SUGGESTED, TABLE]
    return grid(seed=[0, 1, 2], data=["trec", "cr", "mr"], rows=[400], arm=arms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float)
    asked, every = parser.parse_args(), cells()
    results = run_cells(NAME, every, run_one, minutes=asked.minutes)
    publish(NAME, TEXT + "\n" + table(dict(zip(map(key, every), results, strict=True))))


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


def table(found: dict[str, Result | None]) -> str:
    """A line a set and seed, then the mean of the differences."""
    head = ["set", "seed", "table's rate", "suggested", "region", "at the table's", "at the other"]
    lines, gains = [], []
    for cell in cells():
        if cell["arm"] != SWEEP:
            continue
        sweep, one, two = (found[key({**cell, "arm": a})] for a in (SWEEP, TABLE, SUGGESTED))
        scores = [NOT_RUN if fit is None else _points(fit["accuracy"]) for fit in (one, two)]
        if one and two and two["accuracy"] is not None:
            gains.append(100 * (two["accuracy"] - one["accuracy"]))
            scores[1] += f" ({gains[-1]:+.1f})"
        lines.append([str(cell["data"]), str(cell["seed"]), *_rates(sweep), *scores])
    mean = (
        f"{statistics.mean(gains):+.1f} ({len(gains)} of {len(lines)} pairs)" if gains else NOT_RUN
    )
    return markdown([*head], [*lines, ["mean", *[""] * 5, mean]])


def _points(share: float | None) -> str:
    return "no rate" if share is None else f"{100 * share:.1f}"


def _rates(sweep: Result | None) -> list[str]:
    if sweep is None:
        return [NOT_RUN] * 3
    if sweep["suggested"] is None:
        return [f"{sweep['planned']:.2g}", "none", ""]
    region = f"{sweep['low']:.2g} to {sweep['high']:.2g}"
    return [f"{sweep['planned']:.2g}", f"{sweep['suggested']:.2g}", region]


if __name__ == "__main__":
    main()
