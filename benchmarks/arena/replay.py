"""Replay searches on the recorded arena and on the cheap one, with the truth beside them.

    python benchmarks/arena/replay.py            # both; resumable; the tables into RESULTS.md
    python benchmarks/arena/replay.py --tables   # only the tables of what is there

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
from cells import RESULTS, grid, key, machine, publish, run_cells, stored
from peers.process import commit
from peers.tables import markdown

from arena import heads, record
from arena.portfolio import greedy
from arena.searches import NEEDS_LOOKS, SEARCHES, Found, Search, by_accuracy, by_rule
from arena.table import Drawn, courses, draws, gains, kept
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


def report(path: Path | None = None) -> str:
    """The tables of what is there."""
    told = stored(path or RESULTS / f"{NAME}.jsonl")
    lines: list[str] = ["## The arena of searches", (__doc__ or "").split("\n\n", 2)[2].strip()]
    for arena, names, sets in (
        ("recorded", (*SEARCHES, *LEARNT), record.SETS),
        ("heads", OF_HEADS, heads.SETS),
    ):
        of = {(name, data): _result(told, arena, name, data) for name in names for data in sets}
        lines += [_title(arena, told), markdown(_head(sets), _lines(of, names, sets))]
    lines += [
        "Without a trial, points below the best of all settings (number 0 is the default):",
        best_of_all(),
    ]
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    lines.append(f"`python benchmarks/arena/replay.py`. Machine: {facts}.")
    return "\n\n".join(lines)


def best_of_all() -> str:
    """How far the default, and what is best on the other sets, are below the best setting of each
    set: that is found on one half of the pool and scored on the other, so that no luck is in it."""
    rng, lines = generator(0, "arena", "halves"), []
    for name in record.SETS:
        table, regrets = table_of(name), []
        others = gains([table_of(other) for other in record.SETS if other != name])
        picked = int(others.mean(axis=1).argmax())
        for _ in range(DRAWS):
            order = rng.permutation(table[0].losses.shape[1])
            first, second = np.array_split(order, 2)
            seen, scored = (
                np.array([_half(course, rows) for course in table]) for rows in (first, second)
            )
            top = scored[int(seen.argmax())]
            regrets.append([top - scored[0], top - scored[picked]])
        shown = 100 * np.mean(regrets, axis=0)
        lines.append([name, f"{shown[0]:+.2f}", str(picked), f"{shown[1]:+.2f}"])
    mean = np.mean([[float(line[1]), float(line[3])] for line in lines], axis=0)
    lines.append(["mean", f"{mean[0]:+.2f}", "", f"{mean[1]:+.2f}"])
    return markdown(["set", "regret of the default", "best elsewhere", "its regret"], lines)


def _half(course: Any, rows: Any) -> float:
    return float(course.correct[int(kept(course.losses[:, None][..., rows])[0])][rows].mean())


def _result(told: Any, arena: str, name: str, data: str) -> dict[str, Any] | None:
    cell = {"arena": arena, "rows": ROWS, "data": data}
    if arena == "recorded":
        return told.get(key({**cell, "search": name}))
    found = told.get(key({**cell, "search": "all"}))
    if found is None:
        return None
    return {k.partition("|")[2]: v for k, v in found.items() if k.startswith(f"{name}|")}


def _title(arena: str, told: Any) -> str:
    if arena == "heads":
        return "The cheap arena, 64 heads, 1,200 draws a set:"
    counts = {one.get("settings") for one in told.values() if one.get("settings") != heads.COUNT}
    many = ", ".join(str(count) for count in sorted(counts)) or str(heads.COUNT)
    return f"The recorded arena, {many} settings a set (searches of more trials try all of them):"


def _head(sets: tuple[str, ...]) -> list[str]:
    return [
        "search",
        *(f"gain {name}" for name in sets),
        "gain, all",
        "passes",
        "trials",
        "optimism",
        "printed",
        "covered",
    ]


def _lines(of: Any, names: tuple[str, ...], sets: tuple[str, ...]) -> list[list[str]]:
    lines = []
    for name in names:
        found = [of[name, data] for data in sets]
        if any(one is None for one in found):
            lines.append([name, *["not run"] * (len(sets) + 6)])
            continue
        gains = [f"{100 * r['gain']:+.2f} ± {200 * r['error']:.2f}" for r in found]
        means = {k: np.mean([r[k] for r in found]) for k in ("gain", "trials", "optimism")}
        # Against the passes of all settings together.
        everything = [of["random-64", data]["passes"] for data in sets]
        passes = np.mean(
            [r["passes"] / all_of for r, all_of in zip(found, everything, strict=True)]
        )
        said = found[0]["printed"] is not None
        lines.append(
            [
                name,
                *gains,
                f"{100 * means['gain']:+.2f}",
                f"{100 * passes:.0f} %",
                f"{means['trials']:.1f}",
                f"{100 * means['optimism']:+.1f}",
                f"{100 * np.mean([r['printed'] for r in found]):+.1f}" if said else "",
                f"{100 * np.mean([r['covered'] for r in found]):.1f} %" if said else "",
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--tables", action="store_true", help="of what is there, run nothing")
    asked = parser.parse_args()
    if not asked.tables:
        run_cells(NAME, cells(), run_one, minutes=asked.minutes)
    publish(NAME, report())


if __name__ == "__main__":
    main()
