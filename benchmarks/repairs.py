"""Whole runs with a faulty recipe, with and without the policy `adapt`: how much of what the fault
costs is recovered.

    python benchmarks/repairs.py --jobs 2

The sets and rows are those of ``quality.py``, the start is the embedded encoder. A fault is a
setting of the recipe (``FAULTS``), or one of the rows: a fifth of wrong labels as in
``label_weights.py``, or every second class with a twentieth of its rows. The run without the fault
is the default recipe under the policy `stop`; for skewed classes it has as many rows, drawn from
all.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from cells import Cell, grid, run_command
from claims import Claim, Line, Lines, average, number, paired, pick
from enrich_pictures import prepared_images
from label_weights import with_faultless, with_wrong_labels
from peers.arms import Arm, run_arm, steps_and_trials
from peers.rows import Parts
from peers.sets import FRESH_SETS
from peers.tables import markdown, matched

from holdfast.core.seeds import generator
from holdfast.fits.fit import fit
from holdfast.stats.paired_tests import Difference, paired_t
from quality import rows_of

NAME = "repairs"
# MiniLM's default learning rate is 1e-4.
FAULTS: dict[str, dict[str, Any]] = {
    "learning rate ÷ 30": {"train.learning_rate": 1e-4 / 30},
    "learning rate × 10": {"train.learning_rate": 1e-3},
    "50 epochs without decay": {"train.epochs": 50, "train.schedule": "constant"},
    "8 updates": {"train.max_steps": 8},
}
WRONG = "a fifth of wrong labels"
SKEWED = "skewed classes, 1 : 20"
NONE = "none"
POLICIES = ("stop", "adapt")
# Runs of 100 rows are cross-fitted; those of 800 set validation rows aside, and the policy acts at
# evaluations. Three of the sets have fewer than 800 rows.
FEW, MANY, SKEWED_ROWS = 100, 800, 400
REPAIRED_SETS = {
    FEW: ("trec", "packages", "queries", "instructions", "cr"),
    MANY: ("trec", "cr", "instructions", "mr", "novels"),
}
# Other sets with rows enough, for runs without a fault: three on which neither a default nor the
# policy was chosen (two more have too few rows), and two on which the policy was not.
FRESH = tuple(name for name in FRESH_SETS if name not in ("databases", "kinds"))
OTHERS = (*FRESH, "ai_text", "intents")
# These begin with a new head, not as a linear probe.
NEW_HEAD = {f"{name}, new head": name for name in ("trec", "cr", "instructions", "mr")}
SEEDS = 3
# A small network with random weights and a new head; 300 more images are validation images.
IMAGES, IMAGE_ROWS = ("cifar10", "mnist"), 1200
# Without a fault also a set, and seeds, on which nothing was chosen.
FRESH_IMAGES, FRESH_SEEDS = (*IMAGES, "omniglot"), 10
IMAGE_PLAN = {"train.learning_rate": 1e-3, "train.epochs": 25, "methods.probe_first": False}
IMAGE_FAULTS: dict[str, dict[str, Any]] = {
    "learning rate ÷ 30": {"train.learning_rate": 1e-3 / 30},
    "learning rate × 10": {"train.learning_rate": 1e-2},
    "50 epochs without decay": {"train.epochs": 50, "train.schedule": "constant"},
    "2 epochs": {"train.epochs": 2},
}
GOOD = "without the fault"
# For classes that are equally frequent in use, as in these test rows they nearly are.
EVEN = "methods.balance.target=even"
ARMS: dict[str, dict[str, Any]] = {
    GOOD: {"control.policy": "stop"},
    **{policy: {"control.policy": policy} for policy in POLICIES},
    EVEN: {"methods.balance.target": "even", "control.policy": "stop"},
}
# Fewer of a class are refused.
LEAST_OF_CLASS = 4
RUN = ("rows", "data", "seed", "fault")


def cells() -> list[dict[str, Any]]:
    """Seed by seed, the run without a fault first; then the other kinds of runs. With few rows
    the policy does nothing without a fault (``label_weights.py`` has doubtful labels)."""
    others = [
        cell
        for seed in range(SEEDS)
        for rows, sets in REPAIRED_SETS.items()
        for fault in (NONE, *FAULTS, WRONG)
        for cell in grid(
            seed=[seed],
            rows=[rows],
            data=sets,
            fault=[fault],
            arm=POLICIES[:1] if (rows, fault) == (FEW, NONE) else POLICIES,
        )
    ]
    skewed = grid(
        seed=range(SEEDS),
        rows=[SKEWED_ROWS],
        data=REPAIRED_SETS[FEW],
        fault=[SKEWED],
        arm=[GOOD, *POLICIES, EVEN],
    )
    new_head = grid(
        seed=range(SEEDS), rows=[MANY], data=NEW_HEAD, fault=[NONE, *FAULTS], arm=POLICIES
    )
    images = [
        *grid(seed=range(SEEDS), rows=[IMAGE_ROWS], data=IMAGES, fault=IMAGE_FAULTS, arm=POLICIES),
        *grid(
            seed=range(FRESH_SEEDS),
            rows=[IMAGE_ROWS],
            data=FRESH_IMAGES,
            fault=[NONE],
            arm=POLICIES,
        ),
    ]
    fresh = grid(seed=range(SEEDS), rows=[MANY], data=OTHERS, fault=[NONE], arm=POLICIES)
    return [*others, *skewed, *images, *new_head, *fresh]


def run_one(cell: Cell) -> dict[str, Any]:
    if cell["data"] in FRESH_IMAGES:
        return run_images(cell)
    head = {"methods.probe_first": False} if cell["data"] in NEW_HEAD else {}
    parts = rows_of(NEW_HEAD.get(cell["data"], cell["data"]), cell["rows"], cell["seed"])
    if cell["fault"] == WRONG:
        parts = with_wrong_labels(parts, {**cell, "wrong": "random 0.2"})
    if cell["fault"] == SKEWED:
        parts = with_skewed_classes(parts, cell)
    fault = FAULTS.get(cell["fault"], {})
    settings = {"model.name": "embedded", **head, **ARMS[cell["arm"]], **fault}
    arm = Arm("holdfast", settings, whole=True)
    answer = run_arm(arm, parts, seed=cell["seed"], threads=1)
    return {**answer.result, "right": np.packbits(answer.right).tobytes().hex()}


def run_images(cell: Cell) -> dict[str, Any]:
    prepared, train, valid, test = prepared_images(cell["data"], cell["seed"])
    settings = {**IMAGE_PLAN, **IMAGE_FAULTS.get(cell["fault"], {})}
    before = time.process_time()
    fitted = fit(prepared, train, valid, {**settings, "control.policy": cell["arm"]})
    cpu_s = time.process_time() - before
    _, logits = fitted.measure(prepared.examples, test)
    right = logits.argmax(axis=1) == np.asarray(prepared.examples.labels)[test]
    return {
        "accuracy": float(right.mean()),
        "cpu_s": round(cpu_s, 1),
        **steps_and_trials(cell["arm"], fitted.trained, fitted.job.advisor, cell["seed"]),
        "best_step": fitted.trained.best_step,
        "verdict": fitted.trained.verdict.label,
        "right": np.packbits(right).tobytes().hex(),
    }


def with_skewed_classes(parts: Parts, cell: Cell) -> Parts:
    """The labelled rows with a twentieth of every second class; for the run without the fault as
    many rows, drawn from all."""
    labelled = parts.whole().train
    order = generator(cell["seed"], "benchmark", "skewed classes", cell["data"]).permutation(
        len(labelled)
    )
    names = sorted(set(labelled.labels))
    of_class = [[place for place in order if labelled.labels[place] == one] for one in names]
    sizes = np.array([len(places) for places in of_class])
    left = np.where(np.arange(len(names)) % 2, np.maximum(LEAST_OF_CLASS, sizes // 20), sizes)
    if cell["arm"] == GOOD:
        left = np.maximum(LEAST_OF_CLASS, sizes * left.sum() // sizes.sum())
    chosen = labelled.take(
        sorted(
            place for places, n in zip(of_class, left, strict=True) for place in places[: int(n)]
        )
    )
    return replace(parts, train=chosen, valid=chosen.take([]))


def _cases(lines: Lines) -> list[Line]:
    """The lines, with the runs without a fault for those that have none of their own; and the fault
    and the number of texts in one word."""
    skewed = pick(lines, fault=SKEWED)
    others = [line for line in lines if line["fault"] != SKEWED]
    found = [*with_faultless(others, "fault", POLICIES[0], GOOD), *skewed]
    kinds = dict.fromkeys(FRESH_IMAGES, "images") | dict.fromkeys(NEW_HEAD, "texts, new head")
    return [
        {
            **one,
            "case": f"{one['fault']}, {one['rows']} {kinds.get(one['data'], 'texts')}",
            "data": NEW_HEAD.get(one["data"], one["data"]),
        }
        for one in found
    ]


def _faulty(lines: Lines) -> dict[str, list[Line]]:
    """The lines of each fault and size."""
    lines = [line for line in _cases(lines) if line["fault"] != NONE]
    ran = dict.fromkeys(one["case"] for one in lines if one["arm"] != GOOD)
    return {case: pick(lines, case=case) for case in ran}


def finding(lines: Lines) -> str:
    shares, changes = _shares(lines), _changes(lines)
    if not shares or not changes:
        return ""
    told = ", ".join(f"{fault} {number(share, 0)} %" for fault, share in shares.items())
    mean = number(statistics.fmean(min(100, share) for share in shares.values()), 0)
    changed = [number(one, sign=True) for one in sorted(changes) if one]
    others = (
        f"; in the others it changes by {changed[0]} to {changed[-1]} points" if changed else ""
    )
    return (
        f"On texts, `adapt` recovers on average {mean} % of the accuracy that a fault costs under "
        f"`stop` ({told}; each counted as at most 100 %). Without a fault the accuracy is the same "
        f"in {len(changes) - len(changed)} of {len(changes)} runs{others}."
    )


def _without_fault(lines: Lines) -> list[Line]:
    """The runs without a fault, with the name of the set in ``data``."""
    return [
        {**one, "new": one["data"] in NEW_HEAD, "data": NEW_HEAD.get(one["data"], one["data"])}
        for one in pick(lines, fault=NONE)
    ]


def _changes(lines: Lines) -> list[float]:
    """The change of the accuracy, in points, of each run without a fault."""
    groups = matched(_without_fault(lines), (*RUN, "new"), POLICIES)
    return [
        round(100 * (one["adapt"]["accuracy"] - one["stop"]["accuracy"]), 4) + 0.0 for one in groups
    ]


def _shares(lines: Lines) -> dict[str, float]:
    """Of each fault that costs accuracy of texts with the default start, the mean gain as a share
    of the mean cost in %, over all sizes and sets."""
    of_fault: dict[str, list[list[float]]] = {}
    texts = (some for case, some in _faulty(lines).items() if case.endswith("texts"))
    for some in texts:
        for group in matched(some, RUN, ("stop", "adapt", GOOD)):
            stop, adapt, good = (group[arm]["accuracy"] for arm in ("stop", "adapt", GOOD))
            of_fault.setdefault(some[0]["fault"], []).append([adapt - stop, good - stop])
    means = {fault: np.mean(pairs, axis=0) for fault, pairs in of_fault.items()}
    return {fault: float(100 * gain / cost) for fault, (gain, cost) in means.items() if cost > 0}


def gains(lines: Lines) -> str:
    """A row for each fault and size: what the fault costs, and what the policy regains."""
    rows = []
    for case, some in _faulty(lines).items():
        cost, gain = (paired(some, "accuracy", arm, "stop", RUN) for arm in (GOOD, "adapt"))
        if not (cost and gain):
            continue
        time = paired(some, "cpu_s", "adapt", "stop", RUN, times=True)
        over = cost.short(100) + (f", {cost.over}" if cost.over != gain.over else "")
        ratio = time.short(1, 2, sign=False) if time else ""
        rows.append([case, gain.over, over, gain.short(100), _updates(some), ratio])
    heads = ["Case", "Runs", "Cost of the fault, points (95 % CI)", "Gain of `adapt`", "Updates"]
    table = markdown([*heads, "Processor time, `adapt` ÷ `stop`"], rows)
    even = paired(pick(_cases(lines), fault=SKEWED), "accuracy", EVEN, "stop", RUN)
    also = f"\n\n`{EVEN}` with skewed classes: {even.words(100, 1, ' points')}." if even else ""
    return table + also if rows else ""


def _updates(some: Lines) -> str:
    """Mean updates of a run, with those of its trials: under `stop`, then under `adapt`."""
    groups = matched(some, RUN, POLICIES)
    return " / ".join(
        number(statistics.fmean(group[policy]["steps"] for group in groups), 0)
        for policy in POLICIES
    )


def by_set(lines: Lines) -> str:
    """A row for each fault and size, a column for each set."""
    of_texts = (name for names in REPAIRED_SETS.values() for name in names)
    sets = list(dict.fromkeys([*of_texts, *IMAGES]))
    arms, rows, mean = ("stop", "adapt", GOOD), [], average("accuracy", 100, limits=False)
    for case, some in _faulty(lines).items():
        groups = [matched(pick(some, data=data), RUN, arms) for data in sets]
        shown = [
            " / ".join(mean([group[arm] for group in found]) for arm in arms) if found else ""
            for found in groups
        ]
        rows += [[case, *shown]] if any(shown) else []
    heading = "Accuracy in %, means over seeds: `stop` / `adapt` / without the fault."
    return f"{heading}\n\n{markdown(['Case', *sets], rows)}" if rows else ""


def tried(lines: Lines) -> str:
    """What the policy tried, where runs have recorded it."""
    rows = []
    for case, some in {"no fault": pick(lines, fault=NONE), **_faulty(lines)}.items():
        ran = [one for one in pick(some, arm="adapt") if one.get("trials") is not None]
        trials = Counter(trial for one in ran for trial in one["trials"].split("; ") if trial)
        counted = ", ".join(f"{trial} ({n})" for trial, n in trials.most_common())
        if counted:
            rows.append([case, str(len(ran)), counted])
    heading = (
        "What `adapt` tried during runs, with the number of trials (recorded runs only; a plan "
        "changed before the run, and row weights, are no trials):"
    )
    return f"{heading}\n\n{markdown(['Case', 'Runs', 'Trials'], rows)}" if rows else ""


def by_run(lines: Lines) -> str:
    """A row for each fault and size, a column for each set: the change in each run."""
    rows, cases = [], _all_cases(lines)
    sets = list(dict.fromkeys(one["data"] for some in cases.values() for one in some))
    for case, some in cases.items():
        shown = [
            ", ".join(
                _change_in_points(one) for one in matched(pick(some, data=data), RUN, POLICIES)
            )
            for data in sets
        ]
        rows += [[case, *shown]] if any(shown) else []
    return markdown(["Case", *sets], rows) if rows else ""


def _all_cases(lines: Lines) -> dict[str, list[Line]]:
    """The lines of each case, those without a fault first."""
    good = pick(_cases(lines), fault=NONE, arm=POLICIES)
    names = dict.fromkeys(one["case"] for one in good)
    return {
        **{case.replace(NONE, "no fault", 1): pick(good, case=case) for case in names},
        **_faulty(lines),
    }


def _change_in_points(group: Mapping[str, Line]) -> str:
    """The change of the accuracy and, where the predictions are stored, half its 95 %
    interval."""
    change = 100 * (group["adapt"]["accuracy"] - group["stop"]["accuracy"])
    gap = _gap(group)
    half = f" ± {number(50 * (gap.high - gap.low))}" if gap and change else ""
    return number(change, sign=True) + half


def significant(lines: Lines) -> str:
    """How many faulty runs the policy makes better or worse than early stopping."""
    gaps = [
        gap
        for some in _faulty(lines).values()
        for group in matched(some, RUN, POLICIES)
        if (gap := _gap(group))
    ]
    if not gaps:
        return ""
    better, worse = sum(gap.low > 0 for gap in gaps), sum(gap.high < 0 for gap in gaps)
    return (
        f"In {better} of {len(gaps)} runs with a fault (those with stored predictions) `adapt` is "
        f"significantly better than early stopping, in {worse} significantly worse (95 % interval "
        "of a paired t-test on the test rows)."
    )


def in_words(lines: Lines) -> str:
    """The recipe without a fault, the regret, and the optimism of selection."""
    parts, lines = [], [line for line in lines if line.get("accuracy") is not None]
    good, by = _without_fault(lines), (*RUN, "new")
    change = paired(good, "accuracy", "adapt", "stop", by)
    if change:
        gaps = [gap for one in matched(good, by, POLICIES) if (gap := _gap(one))]
        worse = sum(gap.high < 0 for gap in gaps)
        parts.append(
            f"Without a fault `adapt` changes the accuracy by {change.words(100, 1, ' points')}; "
            f"significantly for the worse in {worse or 'none'} of {len(gaps)} runs (paired t-test "
            "on the test rows)."
        )
        images = [one for one in good if one["data"] in FRESH_IMAGES]
        texts = [one for one in good if one["data"] not in FRESH_IMAGES]
        for name, some in {"texts": texts, "images": images}.items():
            of_kind = paired(some, "accuracy", "adapt", "stop", by)
            ratio = paired(some, "cpu_s", "adapt", "stop", by, times=True)
            if of_kind and ratio:
                parts.append(
                    f"Of {name}: {of_kind.words(100, 1, ' points')}, processor time "
                    f"{ratio.short(1, 2, sign=False)} times."
                )
    regrets = []
    for some in _faulty(lines).values():
        # The default plan is an action for a faulty plan; right labels are none.
        arms = ("stop", "adapt", *((GOOD,) if some[0]["fault"] in FAULTS else ()))
        for group in matched(some, RUN, arms):
            best = max(group[arm]["accuracy"] for arm in arms)
            regrets.append(100 * (best - group["adapt"]["accuracy"]))
    if regrets:
        middle, mean = statistics.median(regrets), statistics.fmean(regrets)
        parts.append(
            f"In {len(regrets)} faulty runs the accuracy of `adapt` is {middle:.1f} points "
            f"(median; mean {mean:.1f}) below the best of `stop`, `adapt` and the run without the "
            'fault (of wrong labels, skewed classes and "2 epochs": of `stop` and `adapt`). The '
            "best is chosen on the test rows, so this is an upper limit."
        )
    both = [
        (100 * one["optimism"], 100 * one["optimism_seen"])
        for one in lines
        if one.get("optimism_metric") == "accuracy"
        and one.get("optimism_seen") is not None
        # Folds' networks learn from half of the rows; the test rows of novels are other novels.
        and (one["rows"], one["arm"]) == (MANY, "adapt")
        and one["data"] not in ("novels", *OTHERS)
    ]
    if both:
        expected, seen = (statistics.fmean(values) for values in zip(*both, strict=True))
        parts.append(
            f"With {MANY} texts the expected optimism of the validation accuracy is "
            f"{number(expected)} points; the observed difference from the test accuracy is "
            f"{number(seen)} points (means of {len(both)} runs of `adapt`, without `novels`)."
        )
    return " ".join(parts)


def _gap(group: Mapping[str, Line]) -> Difference | None:
    """The paired difference of two runs over test rows, where they are stored."""
    kept = [right for arm in ("adapt", "stop") if (right := group[arm].get("right"))]
    if len(kept) < 2:
        return None
    first, second = (np.unpackbits(np.frombuffer(bytes.fromhex(one), np.uint8)) for one in kept)
    return paired_t(first.astype(float), second.astype(float))


CLAIM = Claim(
    NAME,
    "Verdicts",
    "What the policy `adapt` repairs",
    """\
Fine-tuning of MiniLM on texts of seven of the [ten sets](quality.md), one fault per run, under the
policies `stop` (early stopping) and `adapt` (the default for texts and images with one class each).
"Without the fault" is the default recipe under `stop` on the same rows. Runs of 100 or 400 texts
are cross-fitted, except "8 updates" (`train.max_steps=8`, a limit that no policy exceeds) and,
under `stop`, "50 epochs". With 100 texts these two faults thus turn cross-fitting off, which is
part of their cost; for "50 epochs" `adapt` turns it on again. All other runs have a validation set.
On images (CIFAR-10, MNIST; without a fault also alphabets of Omniglot, on which nothing was
chosen), a small network is trained from random weights, without a fault for at most 25 epochs at a
learning rate of 1e-3. "New head": texts with a random last layer in place of a
linear probe (`methods.probe_first=false`). "Skewed classes": every second class has a twentieth of
its rows. "Updates": those of one fit with its trials, `stop` / `adapt`; of a cross-fitted run one
fold's (the first fold is fitted twice where it tries the default plan). Runs of 400 and 800 texts
shared an H100 GPU; the others and two of 800 ran on a CPU. [Each run](repairs_runs.md).""",
    cells,
    finding,
    [gains, by_set, in_words],
    """\
The defaults were chosen on these sets. For "8 updates", the plan for 100 texts was chosen on seed
1 (seeds 0 and 2: 1.1 of 2.9 points recovered), that for 800 texts on seed 0 of four sets (seeds 1
and 2: 4.3 of 7.1; new head: the same runs). Gains on images include those that `adapt` makes
without a fault ([row weights without one](label_weights.md)). For skewed classes `adapt` does
nothing: training rows do not show whether classes are equally frequent in use.""",
)

OF_RUNS = Claim(
    "repairs_runs",
    "Verdicts",
    "What the policy `adapt` changes, run by run",
    """\
The runs of [What the policy `adapt` repairs](repairs.md): for each case and set the accuracy under
`adapt` minus that under `stop` in points, one seed after another, with half the width of its 95 %
interval.""",
    cells,
    significant,
    [by_run, tried],
    files=(NAME,),
    command=CLAIM.run(),
)
CLAIMS = [CLAIM, OF_RUNS]


if __name__ == "__main__":
    run_command(NAME, __doc__, cells, run_one)
