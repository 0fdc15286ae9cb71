"""Out of domain: what is learned on one source of rows, scored on another; averages beside plain.

    python benchmarks/shift.py               # 400 labelled rows, seed by seed
    python benchmarks/shift.py --minutes 5   # start no new cell after five minutes

Reviews of products (CR) and of films (MR), both praise or blame: learned on one, scored on both.
``ai_text``: people's texts and machines', learned without one generator (GPT-4), scored on pairs of
it; pairs stay together. 400 labelled rows, of which 18 % judge; MiniLM, 1,000 test rows out of
domain and 600 in it (300 and 400 of ``ai_text``, cut to 128 tokens), the same for every seed.
``upper`` is MiniLM's last block over the states of the frozen ones below it, of a text's first 16
words (``stand_in.py``): it trains in seconds, so the reviews have ten seeds of it.

Runs of a seed, at the same rates. ``plain``: a head drawn at random, nothing stops it; its last
state, and the one of lowest validation loss (early stopping). ``default``: from the linear probe,
guarded. ``long``: the same with twice the passes, of which the guard takes what it needs. Averages
do not touch a run, so all are made beside it, each as if it were the only method, and stand for
what the run would have kept. Points of the line from the probe to the end are scored too (*); one
lies beyond the end.
"""

from __future__ import annotations

import csv
import functools
import gzip
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import Cell, Result, grid, run_cells
from claims import Claim, Line, Lines, Metric, comparison, paired
from peers.rows import Rows, clean_set, data_folder, table_of
from peers.script import options, results_path

from holdfast.core.events import OfferTrial, Place

if TYPE_CHECKING:
    from holdfast.training.run import Run

NAME = "shift"
SHIFTS = ("cr to mr", "mr to cr", "ai_text")
SEEDS, MANY = 3, 10
WHOLE, UPPER = "minilm", "upper"
LABELLED, VALID = 400, 72
TESTED = {"in": 600, "out": 1000}
HELD_OUT, LONGEST = "gpt-4", 128
PLAIN, DEFAULT, LONG = "plain", "default", "long"
RUNS: dict[str, dict[str, Any]] = {
    PLAIN: {"methods.probe_first": False, "train.keep": "last", "control.policy": "off"},
    DEFAULT: {},
    LONG: {"train.epochs": 12},
}
SHARES = (0.4, 0.7, 1.3)
SIDES = ("in", "out")
PEER = "plain: last"


def cells() -> list[dict[str, Any]]:
    """What the claim is about comes first."""
    both, three, many = [PLAIN, DEFAULT], [PLAIN, DEFAULT, LONG], range(MANY)
    claim = grid(seed=range(SEEDS), shift=SHIFTS[:2], model=[WHOLE], run=both)
    cheap = grid(shift=SHIFTS[:2], seed=many, model=[UPPER], run=three)
    texts = grid(seed=range(SEEDS), shift=SHIFTS[2:], model=[WHOLE], run=both)
    long = grid(seed=range(SEEDS), shift=SHIFTS[:2], model=[WHOLE], run=[LONG])
    return [*cheap, *claim, *texts, *long]


def reviews(shift: str, seed: int) -> dict[str, Rows]:
    """Labelled rows, and test rows of both domains, which are the same for every seed."""
    near, _, far = shift.split()
    sides = {}
    for side, name in zip(SIDES, (near, far), strict=True):
        rows = clean_set(name)
        order = np.random.default_rng(5).permutation(len(rows))
        sides[side] = rows.take(order[: TESTED[side]])
        rest = order[TESTED[side] :]
        if side == "in":
            drawn = np.random.default_rng([seed, 5]).permutation(rest)
            sides["labelled"] = rows.take(drawn[:LABELLED])
    return sides


def texts(seed: int) -> dict[str, Rows]:
    """Pairs of a person's and a machine's text; those of one generator are only scored."""
    with gzip.open(data_folder() / "ai_text" / "paired_texts.csv.gz", "rt", newline="") as lines:
        read = list(csv.DictReader(lines))
    pairs: dict[str, list[dict[str, str]]] = {}
    for row in read:
        pairs.setdefault(row["pair_id"], []).append(row)
    known = sorted(pairs)
    out = [p for p in known if any(row["model"] == HELD_OUT for row in pairs[p])]
    others = [p for p in known if p not in set(out)]
    fixed = np.random.default_rng(5).permutation(len(others))
    drawn = np.random.default_rng([seed, 5]).permutation(fixed[200:])
    chosen = {
        "in": [others[i] for i in fixed[:200]],
        "out": out,
        "labelled": [others[i] for i in drawn[: LABELLED // 2]],
    }
    return {
        side: Rows(
            tuple(row["text"] for p in ids for row in pairs[p]),
            tuple(row["label"] for p in ids for row in pairs[p]),
        )
        for side, ids in chosen.items()
    }


class Beside:
    """Makes the averages of a run beside it, and offers none: what each method alone would have
    made (``made``), and whether the run would have kept that (``kept``)."""

    name = "zz_beside"
    place: Place = "change"

    def __init__(self, probed: bool) -> None:
        from holdfast.methods.averages import CheckpointSoup, Ema, Swa

        self.probed = probed
        self.running = (*Ema().listeners(), *Swa().listeners(), CheckpointSoup(5))
        self.made: dict[str, Mapping[str, Any]] = {}
        self.kept: dict[str, bool] = {}

    def step_done(self, run: Run) -> None:
        for one in self.running:
            getattr(one, "step_done", lambda _: None)(run)

    def snapshot_taken(self, run: Run) -> None:
        for one in self.running:
            one.snapshot_taken(run)

    def offer(self, run: Run, trial: OfferTrial) -> str:
        from holdfast.methods.averages import LineSearch, interpolate

        self.made["last"], self.made["kept"] = run.previous, run.best.tensors
        lowest = min(self.running[2]._best_states, key=lambda one: one[0])
        self.made["lowest"] = lowest[2]
        searches = [("wise", LineSearch(10, "lowest")), ("wise, start", LineSearch(10, "start"))]
        for name, one in [(one.name, one) for one in self.running] + (
            searches if self.probed else []
        ):
            made = one.offer(run, trial)
            if not isinstance(made, str):
                self.made[name] = dict(made.tensors)
                self.kept[name] = trial.would_keep(trial(made.tensors))
        if self.probed:
            # A head drawn at random is nothing to go back to.
            end = run.best.tensors if run.best.step else run.previous
            self.made["start"] = run.initial_tensors
            for share in SHARES:
                self.made[f"{share:g}"] = interpolate(run.initial_tensors, end, share)
        return "they are made to be compared"


@functools.lru_cache(maxsize=1)
def _prepared(shift: str, seed: int, model: str) -> tuple[Any, int, dict[str, Any]]:
    """What fits begin with, how many rows are labelled, and the encoded test rows by side."""
    sides = texts(seed) if shift == "ai_text" else reviews(shift, seed)
    labelled = sides["labelled"]
    if model == UPPER:
        from peers.stand_in import case

        both = Rows(
            tuple(text for side in SIDES for text in sides[side].texts),
            tuple(label for side in SIDES for label in sides[side].labels),
        )
        made = case("upper", labelled.texts, labelled.labels, both, {"seed": seed})
        near, far = np.split(np.arange(len(both)), [len(sides["in"])])
        held = {"in": made.test.take(near), "out": made.test.take(far)}
        return made.prepared, len(labelled), held
    from holdfast.prepare.model import prepare
    from holdfast.recipe import parse

    order = ("labelled", *SIDES)
    joined = Rows(
        tuple(text for side in order for text in sides[side].texts),
        tuple(label for side in order for label in sides[side].labels),
    )
    cut = {"max_length": LONGEST} if shift == "ai_text" else {}
    recipe = {"task": "text-classification", "seed": seed, "model": cut}
    parsed = parse({**recipe, "data": {"names": False}, "train": {"threads": 1}}, "benchmark")
    prepared = prepare(parsed, table_of(joined, tuple(sorted(set(joined.labels)))))
    ends = np.cumsum([len(sides[side]) for side in order])
    places = np.split(np.arange(len(joined)), ends[:-1])[1:]
    found = {s: prepared.examples.take(at) for s, at in zip(SIDES, places, strict=True)}
    return prepared, len(labelled), found


def run_one(cell: Cell) -> Result:
    """Accuracy in and out of domain of the run's states and of the averages of them."""
    import torch

    from holdfast.fits.fit import fit

    prepared, count, tested = _prepared(cell["shift"], cell["seed"], cell["model"])
    rows, beside, start = np.arange(count), Beside(cell["run"] != PLAIN), time.process_time()
    fitted = fit(prepared, rows[VALID:], rows[:VALID], RUNS[cell["run"]], listeners=(beside,))
    told: Result = {"processor_s": time.process_time() - start}
    told["steps"] = f"{fitted.trained.best_step}/{fitted.trained.last_step}"
    tensors = {**dict(fitted.network.named_parameters()), **dict(fitted.network.named_buffers())}
    known: dict[Any, float] = {}
    for name, made in beside.made.items():
        with torch.no_grad():
            for key, value in made.items():
                tensors[key].copy_(value)
        mark = tuple(float(value.double().sum()) for value in made.values())
        for side in SIDES:
            if (mark, side) not in known:
                guesses = fitted.measure(tested[side])[1].argmax(axis=1)
                known[mark, side] = float((guesses == np.asarray(tested[side].labels)).mean())
            told[f"{name}/{side}"] = known[mark, side]
    told |= {f"{name}/taken": taken for name, taken in beside.kept.items()}
    print(
        "  " + ", ".join(f"{k} {100 * v:.1f}" for k, v in told.items() if "/in" in k or "/out" in k)
    )
    return told


def arms(result: Mapping[str, Any], run: str) -> dict[str, dict[str, float]]:
    """What stands in the table of a run: each arm's accuracy by side. An average that was not made
    or not kept leaves the state that is kept."""
    found = {}
    kept = "last" if run == PLAIN else "kept"
    names = ["last", "lowest"] if run == PLAIN else ["start", "kept"]
    averages = ("ema", "swa", "soup", *(("wise", "wise, start") if run != PLAIN else ()))
    for name in names:
        shown = {"lowest": "early stopping", "start": "probe", "kept": "kept"}.get(name, name)
        found[f"{run}: {shown}"] = {side: result[f"{name}/{side}"] for side in SIDES}
    for name in averages:
        used = name if result.get(f"{name}/taken") else kept
        found[f"{run}: {name}"] = {side: result[f"{used}/{side}"] for side in SIDES}
    for share in SHARES if run != PLAIN else ():
        found[f"{run}: {share:g} of the way *"] = {
            side: result[f"{share:g}/{side}"] for side in SIDES
        }
    return found


def main(words: Sequence[str]) -> None:
    chosen = options(__doc__ or "").parse_args(words)
    run_cells(NAME, cells(), run_one, results_path(NAME, 1, False), minutes=chosen.minutes)


def states(lines: Lines) -> list[Line]:
    """A line for each checkpoint of a run, with its accuracy on both sides."""
    return [
        {**line, "arm": name, **accuracy}
        for line in lines
        for name, accuracy in arms(line, line["run"]).items()
    ]


BY = ("model", "shift", "seed")


def finding(lines: Lines) -> str:
    gaps = [paired(states(lines), side, "default: kept", PEER, BY) for side in SIDES]
    if not all(gaps):
        return ""
    parts = [gap.words(100, 1, " points") for gap in gaps if gap]
    return (
        "Test accuracy of the default minus that of plain fine-tuning: "
        f"{parts[0]} in the domain of the training rows, {parts[1]} out of it."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "Accuracy out of domain",
    """\
400 labelled rows of product reviews (CR), tested on these and on film reviews (MR), and the
reverse. Runs: "plain" (random head, never stopped), "default", and "long" (the default with
twice the epochs). Each run keeps its last checkpoint, its best one ("kept"; "early stopping":
the lowest validation loss), or an average of weights: exponential moving average ("ema"),
stochastic weight averaging ("swa"), a greedy mean of the best checkpoints ("soup"), or a point
between the linear probe and the trained weights that the validation rows choose (WiSE-FT, "wise";
"wise, start" is closer to the probe). An average that the run would not have kept is replaced by
its checkpoint, except for fixed points of the line (*, from 0.4 to 1.3 of the way). Models:
MiniLM, and its last block only.""",
    cells,
    finding,
    [
        lambda lines: comparison(
            [
                (name, PEER)
                for name in dict.fromkeys(l["arm"] for l in states(lines))
                if name != PEER
            ],
            {"In domain, points": Metric("in", 100), "Out of domain, points": Metric("out", 100)},
            by=BY,
        )(states(lines))
    ],
    "Most pairs are of the last block only. No difference between the default and plain "
    "fine-tuning is shown.",
)


if __name__ == "__main__":
    main(sys.argv[1:])
