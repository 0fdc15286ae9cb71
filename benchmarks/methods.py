"""Every registered method against the fixed default recipe: what it gains, and what that is worth.

    python benchmarks/methods.py                       # the screen, by value; resumable
    python benchmarks/methods.py --minutes 4           # start no new cell after four minutes
    python benchmarks/methods.py --only mixup --fresh 8    # some arms; fresh runs if they pass
    python benchmarks/methods.py --tables              # the tables of what is there

MiniLM; CR, TREC, BANKING77 and MR at 400 labelled rows, the first two at 100 too (BANKING77 has 77
classes: Holdfast refuses two rows of a class); 82 % are learned from; 1,000 test rows, the same
for all of a set. An arm has the rows, the seed and the settings of the default run beside it but
for its own; differences are paired. The screen has three seeds. An arm that is below the default
on every set that it was run on, over two seeds, is not run further. Those that are above by more
than one standard error go on to fresh seeds, and only those are tested, two-sided, by Student's t
over runs with Holm's correction. At 100 rows, and for many classes, the default is a stage of
contrast without fine-tuning: what changes the losses of fine-tuning has nothing to change there
and is run on CR, TREC and MR at 400 rows alone. A stand-in that trains in a second is screened
beside it, on more runs.

**Worth in rows**: how many more labelled rows the default would need for the same accuracy, by its
own learning curve on the set (accuracy linear in the logarithm of the rows between sizes run); of
a size that it was not run at, by the default's with the logistic head that it had before.
"""

from __future__ import annotations

import contextlib
import functools
import io
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
from peers.in_process import holdfast_fit, stand_in_fit
from peers.script import options
from peers.tables import markdown
from scipy.stats import t as student

NAME, BASE = "methods", "standing"
WHOLE, STAND_IN = "MiniLM", "vectors"
Place = tuple[str, int, int]
BOOK = HERE / "methods.md"
DEFAULT, BEFORE = "default", "logistic head"
# The screen in its order: what separates methods soonest comes first.
SCREEN = (
    *(("trec", 400, 0), ("cr", 400, 0), ("trec", 400, 1), ("banking77", 400, 0)),
    *(("trec", 100, 0), ("cr", 100, 0), ("cr", 400, 1), ("banking77", 400, 1)),
    *(("trec", 100, 1), ("cr", 100, 1)),
    *(("trec", 400, 2), ("cr", 400, 2), ("banking77", 400, 2), ("trec", 100, 2), ("cr", 100, 2)),
    *(("mr", 400, 0), ("mr", 400, 1), ("mr", 400, 2)),
)
# Without a fine-tuning there is nothing that a method of its losses could change.
TUNED = (
    *(("trec", 400, 0), ("cr", 400, 0), ("trec", 400, 1), ("mr", 400, 0), ("cr", 400, 1)),
    *(("mr", 400, 1), ("trec", 400, 2), ("cr", 400, 2), ("mr", 400, 2)),
)
# The stand-in: three sets, at 100 rows too.
QUICK = tuple((d, rows, s) for rows in (400, 100) for s in range(4) for d in ("trec", "cr", "mr"))
# Of the stand-in's own learning curve, by which a gain is told in rows.
LEARNING = tuple(
    (d, rows, s) for s in range(2) for rows in (200, 800, 1600) for d in ("trec", "cr", "mr")
)
# What changes words has none to change in the stand-in, which reads vectors.
WORDS = ("word_dropout",)
EARLY = 2
TOGETHER = 6
# Of those that pass: seeds that the screen has not seen, and a fourth set.
FRESH = tuple(
    (data, 400, seed) for seed in range(3, 10) for data in ("trec", "cr", "banking77", "mr")
)
CURVE = (50, 100, 200, 400, 800, 1600)
# Those first of which the literature says that they help; what is registered and not named here
# follows with its usual settings.
TRIES: dict[str, dict[str, Any]] = {
    "contrast before": {"methods.contrast.steps": 75},
    "ema": {"methods.ema": True},
    "wise": {"methods.wise": True},
    "mixup": {"methods.mixup": True},
    "gce": {"methods.gce": True},
    "reinit": {"methods.reinit": True},
    "hype": {"methods.hype": True},
    "rdrop": {"methods.rdrop": True},
    "label_smoothing": {"train.label_smoothing": 0.1},
    "word_dropout": {"methods.word_dropout": True},
    "soup": {"methods.soup": True},
    "unfreeze": {"methods.unfreeze": True},
    "swa": {"methods.swa": True},
    "l2_sp": {"methods.l2_sp": True},
    "schedule=one_cycle": {"train.schedule": "one_cycle"},
    "layer_decay=0.9": {"train.layer_decay": 0.9},
    "weight_decay=0": {"train.weight_decay": 0.0},
    "weight_decay=0.1": {"train.weight_decay": 0.1},
    "keep=last": {"train.keep": "last"},
    "schedule=cosine": {"train.schedule": "cosine"},
    "sam": {"methods.sam": True},
    "dropout": {"methods.dropout.hidden": 0.2},
}
# Part of the default; or of no use where a row has a class.
NOT_HERE = ("contrast", "probe_first", "neftune", "replay")


def arms() -> dict[str, dict[str, Any]]:
    """Every arm whose method is registered, in the order in which they are run."""
    from holdfast.methods.optimizers import SCHEDULES
    from holdfast.methods.registry import all_methods

    known = all_methods()
    found = {}
    for name, settings in TRIES.items():
        wanted = [key.split(".")[1] for key in settings if key.startswith("methods.")]
        schedule = settings.get("train.schedule", "linear")
        if all(one in known for one in wanted) and schedule in SCHEDULES:
            found[name] = settings
    for name, entry in known.items():
        if entry.key is None and name not in (*NOT_HERE, *found):
            found[name] = {f"methods.{name}": True}
    return found


def idle_without_tuning(settings: Mapping[str, Any]) -> bool:
    """Whether an arm changes the losses or the rows of the fine-tuning, and nothing else."""
    from holdfast.methods.registry import RunContext, complete_settings, parts_of

    asked = {}
    for name, given in settings.items():
        if name == "train.label_smoothing":
            asked["label_smoothing"] = {"share": given}
        elif name.startswith("methods."):
            short = name.split(".")[1]
            known = RunContext(328, 1e-4, 6)
            asked[short] = complete_settings(
                short, given if isinstance(given, Mapping) else {}, known
            )
        else:
            return False
    parts = parts_of(asked)
    rest = parts.stages or parts.stepper or parts.listeners()
    return parts.changes_finetuning and not rest


def run_one(cell: Cell) -> Result:
    """One fit; what is refused is kept as that, with the reason."""
    from holdfast.core.errors import InputError

    is_default = cell["arm"] == DEFAULT
    settings = {} if is_default else arms()[cell["arm"]]
    try:
        if cell.get("model") == STAND_IN:
            return stand_in_fit(cell, settings)
        found = holdfast_fit(cell, settings, probe=is_default)
    except InputError as refused:
        return {"refused": str(refused)}
    print(f"  {found}", flush=True)
    return found


class Book:
    """What has been measured so far with a model: ``WHOLE``, or its ``STAND_IN``."""

    def __init__(self, model: str = WHOLE) -> None:
        self.model = model
        self.mine = RESULTS / f"{NAME}.jsonl"
        self.base = RESULTS / f"{BASE}.jsonl" if model == WHOLE else self.mine
        commands = stored(RESULTS / "small_data.jsonl") if model == WHOLE else {}
        self._commands = commands
        self.read()

    def read(self) -> None:
        self._found = {**stored(self.base), **stored(self.mine)}

    def cell(self, place: Place, arm: str) -> dict[str, Any]:
        data, rows, seed = place
        found = {"data": data, "rows": rows, "seed": seed, "arm": arm}
        return found if self.model == WHOLE else {**found, "model": self.model}

    def get(self, place: Place, arm: str = DEFAULT) -> Result | None:
        return self._found.get(key(self.cell(place, arm)))

    def command(self, place: Place) -> Result | None:
        """The default's accuracy by ``small_data.py``, which draws the same rows."""
        return self._commands.get(key(self.cell(place, "holdfast")))

    def refused(self, arm: str) -> bool:
        return any("refused" in (self.get(p, arm) or {}) for p in self.places(arm))

    def places(self, arm: str) -> tuple[Place, ...]:
        tuned = idle_without_tuning(arms()[arm])
        if self.model == WHOLE:
            return TUNED if tuned else SCREEN
        if arm in WORDS:
            return ()
        return tuple(place for place in QUICK if place[1] == 400 or not tuned)

    def gains(self, arm: str, places: Sequence[Place] = ()) -> dict[Place, float]:
        """Points above the default run beside it, by place, where both are there."""
        found = {}
        for place in places or self.places(arm):
            one, base = self.get(place, arm), self.get(place)
            if one and base and "accuracy" in one:
                found[place] = 100 * (one["accuracy"] - base["accuracy"])
        return found

    def run(self, place: Place, arm: str) -> None:
        """Run an arm and the default beside it, where they are not there."""
        for name, path in {DEFAULT: self.base, arm: self.mine}.items():
            if self.get(place, name) is None:
                with contextlib.redirect_stdout(io.StringIO()):
                    run_cells(NAME, [self.cell(place, name)], run_one, path, minutes=1e9)
        self.read()
        print(self.model, place, arm, self.gains(arm, [place]), flush=True)


def lost(book: Book, arm: str) -> bool:
    """Whether two seeds or more are there, and every set's mean is below the default."""
    sets: dict[str, list[float]] = {}
    gains = book.gains(arm)
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
    """Mean accuracy of the default in % by labelled rows, over the seeds that were run; by
    ``small_data.py`` or with the head that it had before, where it was not."""
    found = {rows: [100 * got["accuracy"] for got in runs_of(book, data, rows)] for rows in CURVE}
    return {rows: statistics.fmean(of) for rows, of in found.items() if of}


def runs_of(book: Book, data: str, rows: int) -> list[Result]:
    places = [(data, rows, seed) for seed in range(20)]
    for others in (book.get, book.command, functools.partial(book.get, arm=BEFORE)):
        found = [one for one in map(others, places) if one is not None]
        if found:
            return found
    return []


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


def report() -> str:
    """The quick screen, the screen with the whole model, and fresh seeds of those that passed."""
    quick, whole = Book(STAND_IN), Book()
    passed = [arm for arm in arms() if passes(list(whole.gains(arm).values()))]
    parts = [
        "## Methods against the fixed default recipe",
        "Differences in test accuracy to the default run on the same rows with the same seed, in "
        "points: of each set the mean (runs), over all ± one standard error over runs. *goes on*: "
        "above by more than one standard error; *loses*: below on every set over two seeds, not "
        "run further; *nothing there*: the default has no fine-tuning there that it could change; "
        "*refused*: the method does not apply to that network "
        "(`python benchmarks/methods.py`).",
        "The whole of MiniLM:",
        screen(whole, COLUMNS),
        confirmed(whole, passed),
        "A stand-in that trains in a second, two residual blocks over MiniLM's frozen vectors, "
        "under the same recipe. Its default is hardly above a linear probe, so it shows what a "
        "method does to the fitting of few rows, not to the features:",
        screen(quick, QUICK_COLUMNS),
        f"Pictures, and the small language model with LoRA: {NOT_RUN}.",
    ]
    return "\n\n".join(part for part in parts if part)


COLUMNS = (*((data, 400) for data in ("trec", "cr", "banking77", "mr")), ("trec", 100), ("cr", 100))
QUICK_COLUMNS = tuple((data, rows) for rows in (400, 100) for data in ("trec", "cr", "mr"))


def screen(book: Book, columns: Sequence[tuple[str, int]]) -> str:
    head = ["Arm", *(f"{data} {rows}" for data, rows in columns)]
    head = [*head, "over all", "worth in rows", "processor time", "screen"]
    sizes = {data: curve(book, data) for data in ALL}
    told = "; ".join(
        f"{data} " + ", ".join(f"{rows}: {value:.1f}" for rows, value in of.items())
        for data, of in sizes.items()
        if of
    )
    table = markdown(head, [screen_line(book, arm, columns) for arm in arms()])
    return f"{table}\n\nThe default's own accuracy in % by labelled rows: {told}."


def screen_line(book: Book, arm: str, columns: Sequence[tuple[str, int]]) -> list[str]:
    places, gains = book.places(arm), book.gains(arm)
    shown = []
    for column in columns:
        planned = [p for p in places if p[:2] == column]
        of = [gains[p] for p in planned if p in gains]
        tuned = idle_without_tuning(arms()[arm])
        empty = NOT_RUN if planned else "nothing there" if tuned else ""
        shown.append(f"{statistics.fmean(of):+.1f} ({len(of)})" if of else empty)
    values = list(gains.values())
    return [
        arm,
        *shown,
        over_all(values),
        rows_worth(book, gains),
        cost(book, arm, gains),
        word_for(book, arm, values, len(places)),
    ]


def word_for(book: Book, arm: str, gains: Sequence[float], planned: int) -> str:
    if book.refused(arm):
        return "refused"
    if not planned:
        return "nothing there"
    if not gains:
        return NOT_RUN
    if lost(book, arm) and len(gains) < planned:
        return "loses, stopped"
    left = f", {planned - len(gains)} of {planned} {NOT_RUN}" if len(gains) < planned else ""
    if len(gains) == 1:
        return "one run" + left
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
        # The mean of those that are on it would leave out the largest.
        off = len(known) < len(each)
        told.append(
            f"off the curve at {size}" if off else f"{statistics.fmean(known):+.0f} at {size}"
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
    asked.add_argument("--model", choices=(WHOLE, STAND_IN), help="one of the two screens")
    asked.add_argument("--depth", type=int, help="how many places of the screen")
    asked.add_argument("--fresh", type=int, default=0, help="fresh places of those that passed")
    chosen = asked.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    unknown = sorted(set(chosen.only or ()) - set(arms()))
    if unknown:
        raise SystemExit(f"no such arm: {', '.join(unknown)}; there are {', '.join(arms())}")
    until = time.monotonic() + (0 if chosen.tables else 60 * (chosen.minutes or math.inf))
    for place in LEARNING:
        if time.monotonic() < until and Book(STAND_IN).get(place) is None:
            Book(STAND_IN).run(place, DEFAULT)
    for model in (STAND_IN, WHOLE):
        if chosen.model in (None, model):
            book = Book(model)
            for arm, place in plan(book, chosen.only or list(arms()), chosen.depth, chosen.fresh):
                if time.monotonic() >= until:
                    break
                if not book.refused(arm) and not (place in book.places(arm) and lost(book, arm)):
                    book.run(place, arm)
    text = report()
    print(text)
    publish(NAME, text, BOOK)


def plan(
    book: Book, names: Sequence[str], depth: int | None, fresh: int
) -> Iterator[tuple[str, Place]]:
    """What is to be run; the arms of a place share what is prepared."""
    whole = tuple(dict.fromkeys((*SCREEN, *TUNED)))[:depth]
    # For each place of the whole model two seeds of the stand-in on all sets.
    quick = QUICK[: None if depth is None else 6 * depth]
    # A few arms at all of the places before the next few: one run tells nothing of an arm.
    for start in range(0, len(names), TOGETHER):
        for place in quick if book.model == STAND_IN else whole:
            for arm in names[start : start + TOGETHER]:
                if place in book.places(arm) and book.get(place, arm) is None:
                    yield arm, place
    for place in FRESH[:fresh]:
        for arm in names:
            if book.get(place, arm) is None and passes(list(book.gains(arm).values())):
                yield arm, place


if __name__ == "__main__":
    main(sys.argv[1:])
