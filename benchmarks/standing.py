"""Where the default recipe stands: beside its own probe, plain fine-tuning, and other settings.

    python benchmarks/standing.py                        # every cell; resumable, hours
    python benchmarks/standing.py --minutes 4            # start no new cell after four minutes
    python benchmarks/standing.py --only rows=400,data=trec+cr,seed=0+1,arm=default
    python benchmarks/standing.py --tables               # the tables of what is there

MiniLM on CR, MR, TREC and BANKING77; of the labelled rows 82 % are learned from and the others
judge; 1,000 test rows, the same for all of a set. Plain fine-tuning is Trainer with early stopping
(20 epochs, batches of 16, patience 3, the best state restored), in the same precision. The other
settings are what the table of defaults was weighed against. In one process, so seconds are of the
fit alone: `small_data.py` has whole commands, SetFit, and more test rows.

What was taken from it, of one seed a set: a stage of contrast before the fine-tuning of 400 rows is
as good as none (TREC -1.6, CR -0.8, MR +1.8 points) at more than twice the processor time, so the
table of defaults has none there; the head that begins as the mean of two fits is above the logistic
one after the fine-tuning as well (CR +1.9, MR +0.7, TREC +1.5 points).
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cells import NOT_RUN, RESULTS, Cell, Result, grid, key, publish, run_cells, stored
from peers.in_process import FOUR, holdfast_fit, trainer_fit
from peers.script import options
from peers.tables import markdown, spread

from holdfast.core.wording import count_phrase

NAME = "standing"
DEFAULT, PROBE, STOPPING = "default", "probe", "early stopping"
# The default as it was before its head began as the mean of two.
LOGISTIC = "logistic head"
SIZES = (1600, 400, 100)
SEEDS = 20
# What a longer or another plan would be, by labelled rows where it depends on them.
ARMS: dict[str, dict[Any, Any]] = {
    DEFAULT: {},
    LOGISTIC: {"train.head": "logistic"},
    "2 x epochs": {1600: {"train.epochs": 6}, 400: {"train.epochs": 12}},
    "4 x epochs": {1600: {"train.epochs": 12}, 400: {"train.epochs": 24}},
    "rate 2e-4": {"train.learning_rate": 2e-4},
    "contrast before": {"methods.contrast.steps": 75},
    "contrast before 150": {"methods.contrast.steps": 150},
}
# Those whose probe is measured: the two heads.
PROBED = (DEFAULT, LOGISTIC)
THIRD, FEWEST = 1 / 3, 3


def cells() -> list[dict[str, Any]]:
    """Those of the default and of plain fine-tuning first, by seed."""
    first = grid(seed=range(SEEDS), rows=SIZES, data=FOUR, arm=[DEFAULT, STOPPING])
    # Fewer than three rows of a class cannot be divided, and Holdfast refuses them.
    first = [cell for cell in first if (cell["data"], cell["rows"]) != ("banking77", 100)]
    others = [arm for arm in ARMS if arm != DEFAULT]
    return first + grid(seed=range(3), rows=SIZES[:2], data=FOUR, arm=others)


def with_default(todo: Sequence[Cell]) -> list[dict[str, Any]]:
    """Before each cell that of the default on the same rows, which it is read against."""
    return [{**cell, "arm": arm} for cell in todo for arm in dict.fromkeys((DEFAULT, cell["arm"]))]


def settings_of(cell: Cell) -> dict[str, Any]:
    given = ARMS[cell["arm"]]
    chosen: dict[str, Any] = given.get(cell["rows"], given)
    return chosen


def run_one(cell: Cell) -> Result:
    if cell["arm"] == STOPPING:
        found = trainer_fit(cell)
    else:
        found = holdfast_fit(cell, settings_of(cell), probe=cell["arm"] in PROBED)
    print(f"  {found}", flush=True)
    return found


Found = Mapping[tuple[int, str, str], Mapping[int, float]]


def by_run(done: Mapping[str, Result]) -> dict[tuple[int, str, str], dict[int, float]]:
    """Accuracy in % by labelled rows, set and arm, then seed; the probe is an arm."""
    found: dict[tuple[int, str, str], dict[int, float]] = {}
    for cell in cells():
        got = done.get(key(cell))
        if got is None:
            continue
        place = cell["rows"], cell["data"]
        found.setdefault((*place, cell["arm"]), {})[cell["seed"]] = 100 * got["accuracy"]
        if got.get("probe") is not None:
            probe = PROBE if cell["arm"] == DEFAULT else f"{PROBE}, {cell['arm']}"
            found.setdefault((*place, probe), {})[cell["seed"]] = 100 * got["probe"]
    return found


def report(done: Mapping[str, Result]) -> str:
    found = by_run(done)
    ran = [done[key(cell)] for cell in cells() if key(cell) in done]
    full = sum(result.get("precision") != "bfloat16" for result in ran)
    parts = [
        "## Where the default stands",
        "MiniLM; accuracy on 1,000 test rows in %, mean ± standard deviation over seeds (how "
        "many); the differences are means over the seeds that both have "
        "(`python benchmarks/standing.py`).",
        by_set(found),
        f"`{LOGISTIC}` is the default as it was before its head began as the mean of two; its "
        "cells were run then.",
        "Other settings minus the default, in points, on the same rows with the same seed:",
        others(found),
        "\n".join([*above_probe(found), *beside_plain(found), *spreads(found)]),
        f"{len(ran)} of {len(cells())} cells were run, {full} of them in float32, the others in "
        "bfloat16.",
    ]
    return "\n\n".join(parts)


def shown(of: Mapping[int, float]) -> str:
    return f"{spread(list(of.values()))} ({len(of)})" if of else NOT_RUN


def minus(one: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    return [one[seed] - other[seed] for seed in one if seed in other]


def difference(gaps: Sequence[float]) -> str:
    return f"{statistics.fmean(gaps):+.1f} ({len(gaps)})" if gaps else NOT_RUN


def by_set(found: Found) -> str:
    lines = []
    for rows in sorted(SIZES):
        for data in FOUR:
            if (data, rows) == ("banking77", 100):
                continue
            default, probe, plain, older, its = (
                found.get((rows, data, arm), {})
                for arm in (DEFAULT, PROBE, STOPPING, LOGISTIC, f"{PROBE}, {LOGISTIC}")
            )
            gaps = [difference(minus(default, other)) for other in (probe, plain)]
            each = map(shown, (default, probe, plain, older, its))
            lines.append([str(rows), data, *each, *gaps])
    head = ["Rows", "Set", DEFAULT, "its probe", STOPPING, LOGISTIC, "its probe"]
    return markdown([*head, "default minus probe", f"minus {STOPPING}"], lines)


def others(found: Found) -> str:
    names = [arm for arm in ARMS if arm != DEFAULT]
    lines = []
    for rows in sorted(SIZES[:2]):
        for data in FOUR:
            base = found.get((rows, data, DEFAULT), {})
            gaps = [minus(found.get((rows, data, arm), {}), base) for arm in names]
            lines.append([str(rows), data, *map(difference, gaps)])
    return markdown(["Rows", "Set", *names], lines)


def above_probe(found: Found) -> list[str]:
    lines = []
    for arm, probe in ((DEFAULT, PROBE), (LOGISTIC, f"{PROBE}, {LOGISTIC}")):
        gaps = {
            f"{data} at {rows}": minus(found.get((rows, data, arm), {}), found[rows, data, probe])
            for rows in SIZES
            for data in FOUR
            if (rows, data, probe) in found
        }
        below = [place for place, of in gaps.items() if statistics.fmean(of) <= 0]
        answer = f"**no**, {', '.join(below)}" if below else "yes" if gaps else NOT_RUN
        lines.append(
            f"- {arm}: no set left at its probe: {answer} ({count_phrase(len(gaps), 'cell')} run)."
        )
    return lines


def beside_plain(found: Found) -> list[str]:
    """What is wanted over plain fine-tuning, by labelled rows; of the runs that have both."""
    lines = []
    for rows, wanted_points in ((400, 1.0), (1600, -0.3)):
        what = f"- {rows} rows: at least {wanted_points:+.1f} points over early stopping"
        gaps = [
            gap
            for data in FOUR
            for gap in minus(*(found.get((rows, data, arm), {}) for arm in (DEFAULT, STOPPING)))
        ]
        if not gaps:
            lines.append(f"{what}: {NOT_RUN}.")
            continue
        mean = statistics.fmean(gaps)
        answer = "yes" if round(mean, 1) >= wanted_points else "**no**"
        answer = answer if len(gaps) >= FEWEST else "too few runs to say"
        runs = count_phrase(len(gaps), "run")
        lines.append(f"{what}: {answer} ({mean:+.1f} over {runs}).")
    return lines


def spreads(found: Found) -> list[str]:
    """The spread over seeds of both, pooled over the sets that have three seeds of both: of the
    cells here, and of the commands of ``small_data.py``."""
    lines = []
    for name, runs in (("here", found), ("small_data.py", whole_commands())):
        for rows in (100, 400):
            sides = [[runs.get((rows, d, arm), {}) for d in FOUR] for arm in (DEFAULT, STOPPING)]
            pairs = matched(zip(*sides, strict=True))
            what = f"- {rows} rows, {name}: seed spread at most a third of early stopping's"
            if not pairs:
                lines.append(f"{what}: {NOT_RUN}.")
                continue
            ours, theirs = (pooled([pair[side] for pair in pairs]) for side in (0, 1))
            each = sum(len(a) for a, _ in pairs)
            answer = "yes" if ours <= THIRD * theirs else "**no**"
            lines.append(
                f"{what}: {answer} ({ours:.2f} against {theirs:.2f} points, {each} runs of each on "
                f"{count_phrase(len(pairs), 'set')})."
            )
    return lines


def whole_commands() -> dict[tuple[int, str, str], dict[int, float]]:
    found: dict[tuple[int, str, str], dict[int, float]] = {}
    for name, result in stored(RESULTS / "small_data.jsonl").items():
        cell = json.loads(name)
        arm = DEFAULT if cell["arm"] == "holdfast" else cell["arm"]
        of = found.setdefault((cell["rows"], cell["data"], arm), {})
        of[cell["seed"]] = 100 * result["accuracy"]
    return found


def matched(pairs: Iterable[tuple[Any, ...]]) -> list[tuple[list[float], list[float]]]:
    """The values of both over the seeds that both have, where these are three or more."""
    both = [(a, b, sorted(set(a) & set(b))) for a, b in pairs]
    return [
        ([a[s] for s in seeds], [b[s] for s in seeds]) for a, b, seeds in both if len(seeds) > 2
    ]


def pooled(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation within groups."""
    squares = sum((len(of) - 1) * statistics.variance(of) for of in groups)
    return math.sqrt(squares / sum(len(of) - 1 for of in groups))


def wanted(only: str) -> list[dict[str, Any]]:
    """The cells that a filter names; ``_`` stands for a space, ``+`` is between values."""
    pairs = [pair.partition("=") for pair in only.replace("_", " ").split(",")]
    asked = {name: values.split("+") for name, _, values in pairs}
    return [c for c in cells() if all(str(c[name]) in asked[name] for name in asked)]


def main(words: Sequence[str]) -> None:
    asked = options(__doc__ or "")
    asked.add_argument("--only", action="append", help="e.g. rows=400,data=trec+cr,seed=0")
    chosen = asked.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    path = RESULTS / f"{NAME}.jsonl"
    if not chosen.tables:
        todo = [c for only in chosen.only for c in wanted(only)] if chosen.only else cells()
        todo = with_default(todo)
        run_cells(NAME, todo, run_one, path, minutes=chosen.minutes)
    # Some of the other settings are arms of ``methods.py`` too.
    text = report({**stored(RESULTS / "methods.jsonl"), **stored(path)})
    print(text)
    publish(NAME, text)


if __name__ == "__main__":
    main(sys.argv[1:])
