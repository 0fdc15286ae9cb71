"""Every registered method against the fixed default recipe: what it gains, and what that is worth.

    python benchmarks/methods.py                       # the screen, by value; resumable
    python benchmarks/methods.py --minutes 4           # start no new cell after four minutes
    python benchmarks/methods.py --only mixup --seeds 6 --sets cr,trec,mr    # more of some
    python benchmarks/methods.py --tables              # the tables of what is there

MiniLM; CR, TREC and BANKING77 at 400 labelled rows, the first two at 100 too (BANKING77 has 77
classes: Holdfast refuses two rows of a class); 82 % are learned from; 1,000 test rows, the same
for all of a set. An arm has the rows, the seed and the settings of the
default run beside it but for its own; differences are paired. The screen has three seeds. An arm
that is below the default on every set that it was run on, over two seeds, is not run further.
Those that are above by more than one standard error go on to fresh seeds, and only those are
tested, two-sided, by Student's t over runs with Holm's correction. At 100 rows, and for many
classes, the default is a stage of contrast without fine-tuning: what changes the losses of
fine-tuning has nothing to change there and is run on CR, TREC and MR at 400 rows alone.

**Worth in rows**: how many more labelled rows the default would need for the same accuracy, by its
own learning curve on the set (accuracy linear in the logarithm of the rows between sizes run).
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from cells import HERE, NOT_RUN, RESULTS, Cell, Result, key, publish, run_cells, stored
from peers.in_process import FOUR as ALL
from peers.in_process import holdfast_fit
from peers.script import options
from peers.tables import markdown
from scipy.stats import t as student

NAME, BASE = "methods", "standing"
BOOK = HERE / "methods.md"
DEFAULT = "default"
# The screen in its order: what separates methods soonest comes first.
SCREEN = (
    *(("trec", 400, 0), ("trec", 400, 1), ("cr", 400, 0), ("banking77", 400, 0)),
    *(("trec", 100, 0), ("cr", 100, 0), ("cr", 400, 1), ("banking77", 400, 1)),
    *(("trec", 100, 1), ("cr", 100, 1)),
    *(("trec", 400, 2), ("cr", 400, 2), ("banking77", 400, 2), ("trec", 100, 2), ("cr", 100, 2)),
)
# Without a fine-tuning there is nothing that a method of its losses could change.
TUNED = (
    *(("trec", 400, 0), ("trec", 400, 1), ("cr", 400, 0), ("mr", 400, 0), ("cr", 400, 1)),
    *(("mr", 400, 1), ("trec", 400, 2), ("cr", 400, 2), ("mr", 400, 2)),
)
EARLY = 2
# Of those that pass: seeds that the screen has not seen, and a fourth set.
FRESH = tuple(
    (data, 400, seed) for seed in range(3, 10) for data in ("trec", "cr", "banking77", "mr")
)
CURVE = (50, 100, 200, 400, 800, 1600)
# Those first of which the literature says that they help; what is registered and not named here
# follows with its usual settings.
TRIES: dict[str, dict[str, Any]] = {
    "contrast=75": {"methods.contrast.steps": 75},
    "hype": {"methods.hype": True},
    "ema": {"methods.ema": True},
    "reinit": {"methods.reinit": True},
    "mixup": {"methods.mixup": True},
    "label_smoothing": {"train.label_smoothing": 0.1},
    "rdrop": {"methods.rdrop": True},
    "word_dropout": {"methods.word_dropout": True},
    "wise": {"methods.wise": True},
    "swa": {"methods.swa": True},
    "l2_sp": {"methods.l2_sp": True},
    "schedule=one_cycle": {"train.schedule": "one_cycle"},
    "layer_decay=0.9": {"train.layer_decay": 0.9},
    "gce": {"methods.gce": True},
    "unfreeze": {"methods.unfreeze": True},
    "soup": {"methods.soup": True},
    "weight_decay=0": {"train.weight_decay": 0.0},
    "weight_decay=0.1": {"train.weight_decay": 0.1},
    "keep=last": {"train.keep": "last"},
    "schedule=cosine": {"train.schedule": "cosine"},
    "sam": {"methods.sam": True},
}
# Part of the default; or of no use where a row has a class.
NOT_HERE = ("contrast", "probe_first", "neftune", "replay")


def arms() -> dict[str, dict[str, Any]]:
    """Every arm whose method is registered, in the order in which they are run."""
    from holdfast.methods.registry import all_methods
    from holdfast.methods.schedules import SCHEDULES

    known = all_methods()
    found = {}
    for name, settings in TRIES.items():
        wanted = [key.removeprefix("methods.") for key in settings if key.startswith("methods.")]
        schedule = settings.get("train.schedule", "linear")
        if all(one in known for one in wanted) and schedule in SCHEDULES:
            found[name] = settings
    for name, entry in known.items():
        if entry.key is None and name not in (*NOT_HERE, *found):
            found[name] = {f"methods.{name}": True}
    return found


def idle_without_tuning(settings: Mapping[str, Any]) -> bool:
    """Whether an arm changes the losses or the rows of the fine-tuning, and nothing else."""
    from holdfast.methods.registry import Known, parts_of, settle

    asked = {}
    for name, given in settings.items():
        if name == "train.label_smoothing":
            asked["label_smoothing"] = {"share": given}
        elif name.startswith("methods."):
            short = name.removeprefix("methods.")
            known = Known(328, 1e-4, 6)
            asked[short] = settle(short, given if isinstance(given, Mapping) else {}, known)
        else:
            return False
    parts = parts_of(asked)
    rest = parts.stages or parts.stepper or parts.listeners()
    return parts.changes_finetuning and not rest


def cell_of(place: tuple[str, int, int], arm: str) -> dict[str, Any]:
    data, rows, seed = place
    return {"data": data, "rows": rows, "seed": seed, "arm": arm}


def run_one(cell: Cell) -> Result:
    is_default = cell["arm"] == DEFAULT
    found = holdfast_fit(cell, {} if is_default else arms()[cell["arm"]], probe=is_default)
    print(f"  {found}", flush=True)
    return found


class Book:
    """What has been measured so far."""

    def __init__(self) -> None:
        self.mine = RESULTS / f"{NAME}.jsonl"
        self.base = RESULTS / f"{BASE}.jsonl"
        self.commands = stored(RESULTS / "small_data.jsonl")
        self.read()

    def read(self) -> None:
        self._found = {**stored(self.base), **stored(self.mine)}

    def get(self, place: tuple[str, int, int], arm: str = DEFAULT) -> Result | None:
        return self._found.get(key(cell_of(place, arm)))

    def gains(self, arm: str, places: Sequence[tuple[str, int, int]]) -> dict[Any, float]:
        """Points above the default run beside it, by place, where both are there."""
        pairs = {p: (self.get(p, arm), self.get(p)) for p in places}
        return {
            p: 100 * (one["accuracy"] - base["accuracy"])
            for p, (one, base) in pairs.items()
            if one is not None and base is not None
        }

    def run(self, place: tuple[str, int, int], arm: str) -> None:
        """Run an arm and the default beside it, where they are not there."""
        for name, path in ((DEFAULT, self.base), (arm, self.mine)):
            if self.get(place, name) is None:
                # An arm that cannot be run is told and passed over.
                run_cells(NAME, [cell_of(place, name)], run_one, path, minutes=1e9)
        self.read()


def places_of(arm: str) -> tuple[tuple[str, int, int], ...]:
    return TUNED if idle_without_tuning(arms()[arm]) else SCREEN


def lost(book: Book, arm: str) -> bool:
    """Whether two seeds or more are there, and every set's mean is below the default."""
    gains = book.gains(arm, places_of(arm))
    sets: dict[str, list[float]] = {}
    for (data, _, _), gain in gains.items():
        sets.setdefault(data, []).append(gain)
    seeds = {seed for _, _, seed in gains}
    return len(seeds) >= EARLY and all(statistics.fmean(of) < 0 for of in sets.values())


def passes(gains: Sequence[float]) -> bool:
    """More than one standard error above nothing."""
    if len(gains) < 2:
        return False
    return statistics.fmean(gains) > statistics.stdev(gains) / math.sqrt(len(gains))


def curve(book: Book, data: str) -> dict[int, float]:
    """Mean accuracy of the default in % by labelled rows, over the seeds that were run, here or by
    ``small_data.py``, which draws the same rows."""
    found = {rows: [100 * got["accuracy"] for got in runs_of(book, data, rows)] for rows in CURVE}
    return {rows: statistics.fmean(of) for rows, of in found.items() if of}


def runs_of(book: Book, data: str, rows: int) -> list[Result]:
    both = [
        book.get((data, rows, seed))
        or book.commands.get(key(cell_of((data, rows, seed), "holdfast")))
        for seed in range(20)
    ]
    return [one for one in both if one is not None]


def worth(points: Mapping[int, float], rows: int, gain: float) -> float | None:
    """How many more labelled rows (fewer, below 0) give the default this ``gain`` in points;
    ``None`` where its curve does not reach that far.

    >>> round(worth({100: 70.0, 400: 80.0}, 100, 5.0))
    100
    """
    sizes = sorted(points)
    if rows not in points or len(sizes) < 2:
        return None
    # A curve that falls by chance would make more rows worth less.
    heights = np.maximum.accumulate([points[size] for size in sizes])
    wanted = float(heights[sizes.index(rows)]) + gain
    if not heights[0] <= wanted <= heights[-1]:
        return None
    return float(np.exp(np.interp(wanted, heights, np.log(sizes)))) - rows


def report(book: Book) -> str:
    """The screen, the fresh seeds of those that passed it, and what they are worth."""
    names = arms()
    lines = []
    passed = []
    for arm in names:
        gains = book.gains(arm, places_of(arm))
        lines.append(screen_line(book, arm, gains))
        if passes(list(gains.values())):
            passed.append(arm)
    sizes = {data: curve(book, data) for data in ALL}
    told = "; ".join(
        f"{data} " + ", ".join(f"{rows}: {value:.1f}" for rows, value in of.items())
        for data, of in sizes.items()
        if of
    )
    parts = [
        "## Methods against the fixed default recipe",
        "Differences in test accuracy to the default run on the same rows with the same seed, in "
        "points: of each set the mean (runs), over all ± one standard error. *goes on*: above by "
        "more than one standard error; *loses*: below on every set over two seeds, not run "
        "further; *nothing there*: the default has no fine-tuning there that it could change "
        "(`python benchmarks/methods.py`).",
        markdown(HEAD, lines),
        f"The default's own accuracy in % by labelled rows: {told}.",
        confirmed(book, passed),
    ]
    return "\n\n".join(part for part in parts if part)


COLUMNS = (*((data, 400) for data in ("trec", "cr", "banking77", "mr")), ("trec", 100), ("cr", 100))
HEAD = ["Arm", *(f"{data} {rows}" for data, rows in COLUMNS)]
HEAD = [*HEAD, "over all", "worth in rows", "processor time", "screen"]


def screen_line(book: Book, arm: str, gains: Mapping[Any, float]) -> list[str]:
    places = places_of(arm)
    columns = []
    for column in COLUMNS:
        planned = [p for p in places if p[:2] == column]
        of = [gains[p] for p in planned if p in gains]
        empty = NOT_RUN if planned else "nothing there" if places == TUNED else ""
        columns.append(f"{statistics.fmean(of):+.1f} ({len(of)})" if of else empty)
    everything = list(gains.values())
    return [
        arm,
        *columns,
        over_all(everything),
        rows_worth(book, gains),
        cost(book, arm, gains),
        word_for(book, arm, everything, len(places)),
    ]


def word_for(book: Book, arm: str, gains: Sequence[float], planned: int) -> str:
    if not gains:
        return NOT_RUN
    if lost(book, arm) and len(gains) < planned:
        return "loses, stopped"
    left = f", {planned - len(gains)} of {planned} {NOT_RUN}" if len(gains) < planned else ""
    return ("goes on" if passes(gains) else "within one") + left


def over_all(gains: Sequence[float]) -> str:
    if not gains:
        return NOT_RUN
    if len(gains) == 1:
        return f"{gains[0]:+.1f}"
    return f"{statistics.fmean(gains):+.2f} ± {statistics.stdev(gains) / math.sqrt(len(gains)):.2f}"


def rows_worth(book: Book, gains: Mapping[Any, float]) -> str:
    """By size, the mean over the sets of what the set's mean gain is worth."""
    told = []
    for size in sorted({rows for _, rows, _ in gains}):
        each = []
        for data in {d for d, rows, _ in gains if rows == size}:
            of = [gain for (d, rows, _), gain in gains.items() if (d, rows) == (data, size)]
            each.append(worth(curve(book, data), size, statistics.fmean(of)))
        known = [value for value in each if value is not None]
        outside = f", {len(each) - len(known)} off the curve" if len(known) < len(each) else ""
        told.append(
            f"{statistics.fmean(known):+.0f} at {size}{outside}"
            if known
            else f"off the curve at {size}"
        )
    return "; ".join(told) or NOT_RUN


def cost(book: Book, arm: str, gains: Mapping[Any, float]) -> str:
    """Processor time of the fit beside the default's, the median over runs."""
    shares = []
    for place in gains:
        one, base = book.get(place, arm), book.get(place)
        assert one is not None
        assert base is not None
        shares.append(one["fit_s"] / base["fit_s"])
    return f"× {statistics.median(shares):.2f}" if shares else NOT_RUN


def confirmed(book: Book, passed: Sequence[str]) -> str:
    """Those that went on, on seeds that the screen has not seen, with Holm's correction."""
    found = {}
    for arm in passed:
        gains = book.gains(arm, FRESH)
        if len(gains) >= 2:
            found[arm] = gains
    if not found:
        return f"On fresh seeds: {NOT_RUN} ({', '.join(passed) or 'nothing'} passed the screen)."
    each = {arm: p_value(list(gains.values())) for arm, gains in found.items()}
    held = holm(each)
    lines = []
    for arm, gains in found.items():
        values = list(gains.values())
        half = (
            float(student.ppf(0.975, len(values) - 1))
            * statistics.stdev(values)
            / math.sqrt(len(values))
        )
        by_set = ", ".join(
            f"{data} {statistics.fmean(of):+.1f} ({len(of)})"
            for data in ALL
            if (of := [g for (d, _, _), g in gains.items() if d == data])
        )
        lines.append(
            [
                arm,
                by_set,
                f"{statistics.fmean(values):+.2f} ± {half:.2f}",
                rows_worth(book, gains),
                f"{each[arm]:.3f}",
                f"{held[arm]:.3f}",
            ]
        )
    missing = [arm for arm in passed if arm not in found]
    rest = f" Passed the screen and {NOT_RUN} here: {', '.join(missing)}." if missing else ""
    title = (
        "On fresh seeds (95 % intervals of Student's t; p after Holm over the arms of this table):"
    )
    head = ["Arm", "by set (runs)", "over all", "worth in rows", "p", "p, Holm"]
    return f"{title}\n\n{markdown(head, lines)}\n\n{rest}".rstrip()


def p_value(gains: Sequence[float]) -> float:
    """Two-sided, of no difference."""
    spread = statistics.stdev(gains) / math.sqrt(len(gains))
    if spread == 0:
        return 1.0 if statistics.fmean(gains) == 0 else 0.0
    return float(2 * student.sf(abs(statistics.fmean(gains)) / spread, len(gains) - 1))


def holm(each: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down correction.

    >>> holm({"a": 0.01, "b": 0.04})
    {'a': 0.02, 'b': 0.04}
    """
    found, highest = {}, 0.0
    for place, name in enumerate(sorted(each, key=lambda name: each[name])):
        highest = max(highest, min(1.0, (len(each) - place) * each[name]))
        found[name] = highest
    return found


def main(words: Sequence[str]) -> None:
    asked = options(__doc__ or "")
    asked.add_argument("--only", action="append", help="this arm; may be said again")
    asked.add_argument("--depth", type=int, default=len(SCREEN), help="places of the screen")
    asked.add_argument("--fresh", type=int, default=0, help="fresh places of those that passed")
    chosen = asked.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    book = Book()
    if not chosen.tables:
        until = time.monotonic() + 60 * (chosen.minutes or math.inf)
        names = chosen.only or list(arms())
        for arm, place in plan(book, names, chosen.depth, chosen.fresh):
            if time.monotonic() >= until:
                break
            if place in places_of(arm) and lost(book, arm):
                continue
            book.run(place, arm)
    text = report(book)
    print(text)
    publish(NAME, text, BOOK)


def plan(
    book: Book, names: Sequence[str], depth: int, fresh: int
) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """What is to be run, place by place, so that the arms of a place share what is prepared."""
    for turn in range(depth):
        for arm in names:
            places = places_of(arm)
            if turn < len(places) and book.get(places[turn], arm) is None:
                yield arm, places[turn]
    for place in FRESH[:fresh]:
        for arm in names:
            if book.get(place, arm) is None and passes(
                list(book.gains(arm, places_of(arm)).values())
            ):
                yield arm, place


if __name__ == "__main__":
    main(sys.argv[1:])
