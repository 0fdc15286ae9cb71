"""Are plain cases named, and sound runs left alone? Fresh runs of MiniLM on real rows.

    python benchmarks/fresh_verdicts.py --jobs 16                # every cell, 16 at a time
    python benchmarks/fresh_verdicts.py --jobs 16 --out FILE.jsonl
    python benchmarks/fresh_verdicts.py --seeds 0 1 --only overfit --out pilot.jsonl
    python benchmarks/fresh_verdicts.py --again LOOKS            # judged again by this code

A run does not depend on what is said of it, and its looks are kept where ``HOLDFAST_FRESH_LOOKS``
names a folder: ``--again`` judges these, so a changed detector costs no new run.

Three groups of runs, each through three entry points: ``train`` (the default recipe's way: every
weight, the head begins as a fitted linear probe), ``train new head`` (every weight, a random head)
and ``guard`` (``holdfast.Guard`` in ``transformers.Trainer``: every weight, a random head).

- *overfit*: overfitted on purpose: 40 to 100 training rows, many epochs, a high rate, no decay.
- *sound*: 300 to 400 training rows, two epochs or one at a usual rate. (The default
  recipe as it is ends overfitted on most of these sets, by the truth below, and keeps an earlier
  checkpoint, so it is no sound run to its end.)
- *faults*: a rate ÷ 30, too few steps, a rate × 100, 35 % wrong labels, validation rows among the
  training rows, shuffled labels.

What is true of a run is decided by some 400 rows that nothing in it ever saw, measured at each of
its evaluations, by the rules of ``verdict_parts/fresh_truth.py``, which were written before any
verdict was read. A run that was meant to overfit and did not, or was meant to be sound and is not,
counts in neither group; the tables say how many there were.

Seeds below 100 are the pilot's: thresholds may be chosen on them. The measurement is on seeds of
100 and more, which no threshold has seen.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import RESULTS, append, run_cells, stored
from cells import key as key_of
from claims import Claim, Line, Lines, ReadmeRow, pick, renamed, runs, share, table
from peers.sets import SETS as ALL_SETS
from verdict_parts.fresh_truth import ACCEPTED, ACCUSED, NAMED, is_named, truth_of

NAME = "fresh_verdicts"
# Test rows of the novels are of other novels: what validation cannot show is no fault of a verdict.
SETS = tuple(name for name in ALL_SETS if name != "novels")
ENTRIES = ("train", "train new head", "guard")
VALID = (11, 24, 45, 100, 200)
TRAIN = (40, 60, 100)
FAULTS = ("rate /30", "short", "rate x100", "noise 35", "copies 100", "copies 50", "shuffled")
# Of a head that begins fitted to the training rows neither is a fault.
SLOW = ("rate /30", "short")
FRESH = tuple(range(100, 106))
Cell = Mapping[str, Any]


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{NAME}.jsonl")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(FRESH))
    parser.add_argument("--only", choices=("overfit", "sound", "faults"), nargs="*")
    parser.add_argument("--cells", type=int, help="no more than the first so many")
    parser.add_argument("--minutes", type=float, help="start no new cell after this time")
    parser.add_argument("--again", type=Path, help="run nothing, judge the looks of this folder")
    options = parser.parse_args()
    groups = options.only or ("overfit", "sound", "faults")
    cells = [c for c in all_cells(options.seeds) if c["group"] in groups][: options.cells]
    if options.again:
        done = stored(options.out)
        for cell in cells:
            again(cell, done.get(key_of(cell)), options)
    else:
        run_cells(NAME, cells, run_one, options.out, minutes=options.minutes, jobs=options.jobs)


def run_one(cell: Cell) -> dict[str, Any]:
    # Torch is loaded by the process that trains alone.
    from verdict_parts.fresh_runs import run

    return run(cell)


def again(
    cell: Cell, result: dict[str, Any] | None, options: argparse.Namespace
) -> dict[str, Any] | None:
    """A result with the verdict of this code on the kept looks of its run, which is stored where it
    is another one."""
    if result is None:
        return None
    from verdict_parts.fresh_runs import judged_again

    new = {**result, **judged_again(cell, options.again)}
    if new != result:
        append(options.out, cell, new)
    return new


def all_cells(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Of each seed a run of each set meant to overfit, two meant to be sound, and every fault; the
    entry point and the sizes turn with the seed, so that each meets each."""
    cells = []
    for seed in seeds:
        for place, name in enumerate(SETS):
            turn = seed + place
            entry = ENTRIES[turn % 3]
            sizes = {"train": TRAIN[(seed + 2 * place) % 3], "valid": VALID[turn % 5]}
            cells.append(_cell("overfit", "overfit", name, entry, sizes, seed))
            # Two, since about half of them are not sound to the end.
            for later, way in enumerate(("early", "brief"), turn + 1):
                sizes = {"train": (300, 400)[later % 2], "valid": VALID[later % 5]}
                cells.append(_cell("sound", way, name, ENTRIES[later % 3], sizes, seed))
        for place, fault in enumerate(FAULTS):
            turn = seed + place
            valid = VALID[2:][turn % 3]
            # Copies of all validation rows leave as many training rows again.
            sizes = {"train": max(160, 2 * valid), "valid": valid}
            name, entry = SETS[(seed + 2 * place) % len(SETS)], ENTRIES[turn % 3]
            if fault in SLOW and entry == "train":
                entry = "train new head"
            cells.append(_cell("faults", fault, name, entry, sizes, seed))
    return cells


def _cell(
    group: str, way: str, name: str, entry: str, sizes: Mapping[str, int], seed: int
) -> dict[str, Any]:
    return {"group": group, "way": way, "data": name, "entry": entry, **sizes, "seed": seed}


Judged = tuple[Cell, Mapping[str, Any]]


def _counts(one: Judged) -> bool:
    cell, result = one
    return bool(cell["group"] == "faults" or truth_of(result) == cell["group"])


def _right(one: Judged) -> bool:
    cell, result = one
    if cell["group"] == "overfit":
        return result["label"] in NAMED
    if cell["group"] == "sound":
        return result["label"] not in ACCUSED
    return is_named(cell["way"], result)


def _words(one: Judged) -> str:
    cell, result = one
    named = (
        f"{VARIANTS[cell['way']]}, {cell['data']}, `{cell['entry']}`, {cell['train']} training and "
        f"{cell['valid']} validation rows, seed {cell['seed']}"
    )
    wanted = "" if cell["group"] != "faults" else f"; accepted: {', '.join(ACCEPTED[cell['way']])}"
    return (
        f"{named}: {result['label']} ({result['cause']}); training {result['train_accuracy']:.0%}, "
        f"validation {result['valid_accuracy']:.0%}, unseen {result['pool_accuracy']:.0%}; unseen "
        f"loss {result['pool_loss']:.2f}, lowest {result['pool_least']:.2f}{wanted}"
    )


def counted(lines: Lines) -> list[Line]:
    """The runs that are what they were meant to be, with whether the verdict is right."""
    pairs = [(line, line) for line in lines]
    return [{**line, "right": _right((line, line))} for line, _ in pairs if _counts((line, line))]


def truly_overfit(lines: Lines) -> list[Line]:
    """All runs without a planted fault that truly overfit, whatever they were meant to be."""
    return [
        {**line, "right": line["label"] in NAMED}
        for line in lines
        if line["group"] != "faults" and truth_of(line) == "overfit"
    ]


def rights(lines: Lines) -> tuple[int, int]:
    return sum(line["right"] for line in lines), len(lines)


def finding(lines: Lines) -> str:
    every = share(*rights(truly_overfit(lines)), long=True)
    lines = counted(lines)
    wrong, sound = rights(pick(lines, group="sound"))
    return (
        "Of runs designed to overfit that did overfit, "
        f"{share(*rights(pick(lines, group='overfit')), long=True)} are called overfit or "
        "memorizing; of all runs that overfit, including slight and unintended overfitting, "
        f"{every}. "
        "Of runs designed not to overfit that did not, "
        f"{share(sound - wrong, sound, long=True)} get a false alarm (a verdict other than "
        "underfit that names a fault). Of runs with another, planted fault "
        f"{share(*rights(pick(lines, group='faults')), long=True)} get a verdict that fits it."
    )


def rows_of_readme(lines: Lines) -> list[ReadmeRow]:
    every = rights(truly_overfit(lines))
    lines = counted(lines)
    wrong, sound = rights(pick(lines, group="sound"))
    slow = len(pick(lines, group="sound", label="underfit"))
    overfit, faults = (rights(pick(lines, group=group)) for group in ("overfit", "faults"))
    return [
        (
            "Runs that were designed to overfit and did: share called overfit or memorizing",
            share(*overfit, long=True),
            "",
        ),
        (
            "… all runs that overfit, including slight and unintended overfitting",
            share(*every, long=True),
            "",
        ),
        (
            "Runs with a planted fault other than overfitting: share with a verdict that fits it "
            "(overfit counts for wrong or shuffled labels)",
            share(*faults, long=True),
            "",
        ),
        (
            "Runs that were designed not to overfit and did not: share with a verdict that names a "
            "fault (underfit not counted)",
            f"{share(sound - wrong, sound, long=True)}; {slow} of {sound} are called underfit",
            "",
        ),
    ]


def correct(lines: Lines) -> str:
    return share(*rights(lines))


VARIANTS = {
    "overfit": "few rows, many epochs",
    "early": "two epochs",
    "brief": "one epoch",
    "rate /30": "learning rate ÷ 30",
    "short": "too few steps",
    "rate x100": "learning rate × 100",
    "noise 35": "35 % wrong labels",
    "copies 100": "all validation rows in training",
    "copies 50": "half of the validation rows in training",
    "shuffled": "shuffled labels",
}


def labels(lines: Lines) -> str:
    return ", ".join(
        f"{label} {n}" for label, n in Counter(l["label"] for l in lines).most_common()
    )


def wrong_ones(lines: Lines) -> str:
    wrong = [f"- {_words((line, line))}" for line in counted(lines) if not line["right"]]
    return remarks(wrong, [(l["group"], truth_of(l)) for l in lines if not _counts((l, l))])


def remarks(wrong: Sequence[str], aside: Sequence[tuple[str, str]]) -> str:
    """What a page says below its tables: the wrong verdicts, an item each, and the runs that were
    left out, by what they were meant to be and what they truly are."""
    told = ", ".join(
        f"{n} meant as {group} but measured as {truth}"
        for (group, truth), n in Counter(aside).items()
    )
    return "\n\n".join(
        [
            "\n".join(["Wrong verdicts:", "", *wrong]) if wrong else "",
            f"Excluded from the tables, whatever their verdict: {told}." if told else "",
        ]
    )


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Verdicts on overfitted, sound and faulty runs",
    """\
New runs of MiniLM on nine sets: runs meant to overfit, runs meant to be sound (one or two epochs),
and runs with one of seven planted faults. `train` begins with a fitted head, `train new head` with
a random one; `guard` is `holdfast.Guard` in Trainer. The truth is measured on 400 rows that the run
never saw. A run meant to overfit counts only if it did: at least 95 % of the training rows are
correct, and the accuracy gap is above 10 points or loss and accuracy on the unseen rows have become
clearly worse. A run meant to be sound counts only if that gap is at most 10 points and the unseen
loss has not risen; "neither" is between the two (`verdict_parts/fresh_truth.py` has the rules).
Faults: learning rate ÷ 30 or × 100, too few steps, 35 % wrong labels, all or half of the validation
rows among the training rows, shuffled labels. The verdict on a sound run is correct unless it names
a fault that the run does not have (`underfit` counts as correct). The verdict on a faulty run is
correct if its label or its cause names the fault; "overfit" is accepted where wrong or shuffled
labels made the run overfit. No threshold was chosen on these seeds.""",
    lambda: all_cells(list(FRESH)),
    finding,
    [
        lambda lines: table(
            {"group": "Meant as", "way": "Variant"},
            {"Runs": runs, "Correct, %": correct, "Verdicts": labels},
        )(renamed(counted(lines), way=VARIANTS)),
        lambda lines: table({"entry": "Run through"}, {"Runs": runs, "Correct, %": correct})(
            counted(lines)
        ),
    ],
    wrong_ones,
    command="python benchmarks/fresh_verdicts.py --jobs 16",
    readme=rows_of_readme,
)


if __name__ == "__main__":
    main()
