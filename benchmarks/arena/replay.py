"""Replay searches on the recorded arena and on the cheap one, with the truth beside them.

    python benchmarks/arena/replay.py            # both; resumable

Each search is replayed 1,200 times a set (the slower ones 400 times), each with 60 validation rows
of its own, drawn with repeats from the pool (so that the pool is the population, and the share of
right answers over all of it the truth), and with an order of its own. A search spends row passes:
rows that go forward and back through the network. ``gain``: how much better than the default what
it took is in truth, points, and by chance how much (two standard errors over the draws; the
settings and the pool are those that were recorded). ``optimism``: by how much the validation
accuracy of what it took is above the truth, without the luck that the default had on the same rows;
``printed`` is what our rule said of it beforehand, ``covered`` how often its 95 % interval held the
truth. ``passes`` are those of a search over those of all recorded settings together.

The cheap arena has 64 heads over frozen features on 100 divisions of four sets, each with a pool of
up to 1,500 rows, 12 draws a division: other rows, other trainings, the same rules. Of it the
constants of the rules were chosen on the divisions from 0 on; the table is of divisions from 1000.
The evidence for which a search leaves the default (5 %, corrected for its trials) was not chosen.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from cells import grid, run_cells
from claims import Claim, Line, Lines, average, mean_words, pick, table
from peers.process import commit

from arena import heads, record
from arena.portfolio import greedy
from arena.searches import NEEDS_LOOKS, SEARCHES, Found, Search, by_accuracy, by_rule
from arena.table import Drawn, courses, draws, gains
from holdfast.core.seeds import generator

NAME = "arena"
ROWS, DRAWS = 60, 1200
# These take much longer a search.
FEWER = dict.fromkeys(("tpe-16", "asha-64", "ours-16, racing", "ours, ending"), 400)
# Searches of the cheap arena, whose settings have neither looks nor a space.
OF_HEADS = tuple(name for name in SEARCHES if name not in ("grid", "tpe-16", *NEEDS_LOOKS))
DIVISIONS, PER_DIVISION, FIRST = 100, 12, 1000


# Learned on the two other sets: the one best setting without a trial, and a portfolio to try.
LEARNT = {"no trial": 1, "portfolio-4": 4}


def learnt_elsewhere(data: str, name: str) -> Search:
    """The search that starts from what is best on the other sets."""
    table = gains([table_of(other) for other in record.SETS if other != data])
    if LEARNT[name] == 1:
        best = int(table.mean(axis=1).argmax())
        return lambda drawn, rng: by_accuracy(drawn, [best], 0.0)
    return lambda drawn, rng: by_rule(drawn, greedy(table, LEARNT[name]))


def cells() -> list[dict[str, Any]]:
    every = [*SEARCHES, *LEARNT]
    recorded = grid(arena=["recorded"], rows=[ROWS], data=record.SETS, search=every)
    return [*recorded, *grid(arena=["heads"], rows=[ROWS], data=heads.SETS, search=["all"])]


@functools.cache
def table_of(name: str) -> Any:
    return courses()[name]


def run_one(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A search on a set, or (cheap arena) all of them, since making a division costs more."""
    if cell["arena"] == "recorded":
        table, name = table_of(cell["data"]), cell["search"]
        search = SEARCHES.get(name) or learnt_elsewhere(cell["data"], name)
        count, looks = FEWER.get(name, DRAWS), name in NEEDS_LOOKS
        drawn = draws(table, cell["rows"], count, cell["data"], looks=looks)
        rng = generator(0, "arena", "order", cell["data"], name)
        found = summary([tell(one, search(one, rng)) for one in drawn])
        return {**found, "settings": len(table), "commit": commit()}
    told: dict[str, list[list[float]]] = {name: [] for name in OF_HEADS}
    for one in of_heads(cell["data"], cell["rows"]):
        rng = generator(0, "arena", "order", cell["data"], len(told["default"]))
        for name in OF_HEADS:
            told[name].append(tell(one, SEARCHES[name](one, rng)))
    by_search = {name: summary(rows) for name, rows in told.items()}
    flat = {f"{name}|{k}": v for name, one in by_search.items() for k, v in one.items()}
    return {**flat, "settings": heads.COUNT, "commit": commit()}


def of_heads(name: str, rows: int, first: int = FIRST) -> Iterator[Drawn]:
    """Draws on divisions of the cheap arena."""
    for seed in range(first, first + DIVISIONS):
        made = heads.division(name, seed)
        rng = generator(seed, "arena", "draws", name)
        truth = made.correct.mean(axis=1)
        for _ in range(PER_DIVISION):
            own = rng.integers(0, made.losses.shape[1], rows)
            yield Drawn(made.losses[:, own], made.correct[:, own], truth, made.costs)


def tell(drawn: Drawn, found: Found) -> list[float]:
    """Gain, passes, trials, optimism; and where it was said, what was printed and whether the
    interval held the truth."""
    right, truth = drawn.correct.mean(axis=1), drawn.truth
    luck = right[0] - truth[0]
    said = found.said
    return [
        truth[found.taken] - truth[0],
        found.passes,
        found.trials,
        right[found.taken] - truth[found.taken] - luck,
        np.nan if said is None else said.optimism.value,
        np.nan if said is None else float(said.low <= truth[found.taken] <= said.high),
        truth[found.taken],
    ]


def summary(rows: list[list[float]]) -> dict[str, Any]:
    values = np.array(rows)
    gain, passes, trials, optimism, printed, covered, score = values.mean(axis=0)
    said = not np.isnan(printed)
    return {
        "score": float(score),
        "gain": float(gain),
        "error": float(values[:, 0].std(ddof=1) / np.sqrt(len(values))),
        "passes": float(passes),
        "trials": float(trials),
        "optimism": float(optimism),
        "printed": float(printed) if said else None,
        "covered": float(covered) if said else None,
        "replays": len(values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=None)
    run_cells(NAME, cells(), run_one, minutes=parser.parse_args().minutes)


def searches(lines: Lines) -> list[Line]:
    """A line for each set and search; the cheap arena has all searches of a set in one cell."""
    found = pick(lines, arena="recorded")
    for line in pick(lines, arena="heads"):
        for name in OF_HEADS:
            own = {k.partition("|")[2]: v for k, v in line.items() if k.startswith(f"{name}|")}
            found.append({**line, **own, "search": name})
    return found


def finding(lines: Lines) -> str:
    lines = searches(pick(lines, arena="recorded"))
    searches_named = (
        ("ours-16", "Holdfast's search of 16 trials"),
        ("random-16", "random search of 16 trials"),
        ("grid", "grid search"),
    )
    parts = []
    for name, what in searches_named:
        some = pick(lines, search=name)
        gain = mean_words(some, "gain", 100, 2, " points", sign=True, of="set")
        parts.append(f"{what} {gain}")
    covered = mean_words(pick(lines, search="ours-16"), "covered", 100, 1, " %", of="set")
    return (
        "True accuracy of the setting that a search keeps, minus the default's: "
        f"{', '.join(parts)}. The 95 % interval that Holdfast's search prints covers the true "
        f"accuracy in {covered} of replays."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Hyperparameter searches, replayed",
    """\
31 settings of fine-tuning were trained once on each of three sets ("recorded"). Each search is
then replayed 400 or 1,200 times a set, each time with 60 validation rows drawn from a pool. The
accuracy on the whole pool is the truth. "Heads" are 64 classifiers over frozen features on 100
splits of four sets. "Optimism" is how far the validation accuracy of the kept setting lies above
the truth; "predicted optimism" is Holdfast's estimate of it.

`ours` is the search of `holdfast tune`; the number is that of its trials. With `racing`, losing
trials end early; with `ending`, the search stops when a trial no longer pays. `random`, `grid`,
`tpe` and `asha` keep the best validation accuracy. "No trial" is the best setting of the other
sets, "portfolio" tries up to four settings that did well there.""",
    cells,
    finding,
    [
        lambda lines: table(
            {"arena": "Models", "search": "Search"},
            {
                "Gain, points": average("gain", 100, 2),
                "Trials": average("trials", limits=False),
                "Optimism, points": average("optimism", 100, limits=False),
                "Predicted optimism, points": average("printed", 100, limits=False),
                "95 % interval covers the truth, %": average("covered", 100, limits=False),
            },
        )(searches(lines))
    ],
    """\
With 60 validation rows a search can gain little: most of what it seems to find is chance. Every
interval of a gain contains 0, that of Holdfast's search too, although random, grid, TPE and ASHA
search end below the default on average. The intervals are over three sets (heads: four). Only
settings that had been recorded could be searched.""",
    files=(NAME,),
    command="python benchmarks/arena/replay.py",
)


if __name__ == "__main__":
    main()
