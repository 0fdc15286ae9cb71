"""Every registered method against the fixed default recipe: what it gains, and what that is worth.

    python benchmarks/methods.py                       # the screen, by value; resumable
    python benchmarks/methods.py --minutes 4           # start no new cell after four minutes
    python benchmarks/methods.py --only mixup --fresh 8    # some arms; fresh runs if they pass

MiniLM; CR, TREC, BANKING77 and MR at 400 labelled rows, the first two at 100 too (BANKING77 has 77
classes: Holdfast refuses two rows of a class); 82 % are learned from; 1,000 test rows, the same
for all of a set. An arm has the rows, the seed and the settings of the default run beside it but
for its own; differences are paired. The screen has three seeds. An arm that is below the default
on every set that it was run on, over two seeds, is given up. Those that are above by more
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
import io
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cells import RESULTS, Cell, Result, key, run_cells, stored
from claims import Claim, Line, Lines, Metric, Section, comparison, paired
from peers.in_process import holdfast_fit, stand_in_fit
from peers.script import options

NAME, BASE = "methods", "standing"
WHOLE, STAND_IN = "MiniLM", "vectors"
Place = tuple[str, int, int]
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
    until = time.monotonic() + 60 * (chosen.minutes or math.inf)
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


def planned() -> list[dict[str, Any]]:
    """Every place of the screens, the fresh seeds, and the default at each."""
    found = []
    for book in (Book(WHOLE), Book(STAND_IN)):
        fresh = FRESH if book.model == WHOLE else ()
        for arm in arms():
            found += [
                book.cell(place, name)
                for place in (*book.places(arm), *fresh)
                for name in (arm, DEFAULT)
            ]
    return found


BY = ("model", "data", "rows", "seed")


def measured(lines: Lines, model: str) -> list[Line]:
    """The lines of a model; those of the whole MiniLM name none."""
    return [line for line in lines if line.get("model", WHOLE) == model and "accuracy" in line]


def screen(model: str) -> Section:
    return lambda lines: comparison(
        [(arm, DEFAULT) for arm in arms()],
        {
            "Accuracy, points": Metric("accuracy", 100, 2),
            "Processor time, ratio": Metric("fit_s", 1, 2, times=True),
        },
        by=BY,
        heading=f"{MODELS[model]}:",
    )(measured(lines, model))


def finding(lines: Lines) -> str:
    gaps = {
        arm: gap
        for arm in arms()
        for model in (WHOLE, STAND_IN)
        if (gap := paired(measured(lines, model), "accuracy", arm, DEFAULT, BY))
        and gap.has_interval
    }
    better = {arm: gap.words(100, 2, " points") for arm, gap in gaps.items() if gap.low > 0}
    shown = ", ".join(f"`{arm}` {words}" for arm, words in better.items())
    shown = f"above 0 for {shown}" if better else "above 0 for none"
    return (
        f"Of {len(gaps)} methods compared with the default recipe, most on a small stand-in "
        f"network only, the 95 % CI of the difference in accuracy lies {shown}."
    )


MODELS = {
    WHOLE: "MiniLM",
    STAND_IN: "Two residual blocks over frozen MiniLM vectors (a stand-in that trains in a second)",
}
CLAIM = Claim(
    NAME,
    "Accuracy",
    "Methods compared with the default recipe",
    """\
Each registered method, switched on in the default recipe (`methods.NAME` or `train.NAME=VALUE`),
against the default on the same rows with the same seed; [docs/recipe.md](../../docs/recipe.md)
describes the methods. "Contrast before" is a contrastive stage of 75 steps before fine-tuning. The
default had no folds yet. A method that is below the default on every set over two seeds is not
measured further.""",
    planned,
    finding,
    [screen(WHOLE), screen(STAND_IN)],
    """\
No difference is shown: that does not mean that a method has no effect. With at most six pairs, most
intervals are one to two points wide, and they are not corrected for the number of methods. The
stand-in shows what a method does to the fitting of few rows, not to the features of an encoder.""",
    files=("standing", NAME),
)


if __name__ == "__main__":
    main(sys.argv[1:])
