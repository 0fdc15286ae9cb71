"""Does acting on the verdict ever make a run worse, and does it mend bad recipes?

    python benchmarks/adapt.py --policy adapt              # run what is missing of all arms
    python benchmarks/adapt.py --policy file.py:Name       # any policy, as a recipe names it
    python benchmarks/adapt.py --record --minutes 4        # a piece of it; resumable

Arms on the same rows: the good recipe under ``off`` (nothing stops it, and the best state is kept),
a bad one under ``off``, ``stop`` and each policy that is asked for, the good one under those too,
and where the rows have a fault the treatment that is known (see forked/courses.py). Accuracy on
2,000 test rows, of skewed rows the mean recall of the classes; steps are counted in rows that
passed, those of abandoned branches among them. A bad recipe without a gap has nothing to recover
and is printed so. Seeds 0 to 4 are those that thresholds may be chosen on, the others are fresh.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cells import RESULTS, run_cells
from claims import Claim, Line, Lines, Metric, comparison, number, paired, pick
from forked.courses import BAD, REMEDIES, course
from peers.process import commit

NAME = "adapt"
# Begins as, labelled rows, set. A layer over vectors gains next to nothing over its probe, so that
# from there no recipe can spoil anything: its bad recipes begin with a new head.
GOOD_CELLS: dict[str, list[tuple[str, int, str]]] = {
    "vectors": [
        *itertools.product(("probe", "new"), (100, 400), ("cr", "mr", "trec")),
        ("probe", 800, "banking77"),
        ("new", 800, "banking77"),
    ],
    "upper": [*itertools.product(("probe",), (100, 400), ("trec", "cr"))],
    "minilm": [("probe", 100, "trec"), ("probe", 100, "cr")],
}
BAD_CELLS: dict[str, list[tuple[str, int, str]]] = {
    "vectors": [("new", 400, "cr"), ("new", 400, "trec"), ("new", 800, "banking77")],
    "upper": [("probe", 100, "trec"), ("probe", 100, "cr"), ("probe", 400, "trec")],
    "minilm": [("probe", 100, "trec")],
}
# Bad recipes whose good one learns from other rows.
OWN_ROWS = ("noise", "skew", "short")
SEEDS, CHOSEN_ON = 10, range(5)
POLICIES = ("off", "stop")


def cells(
    model: str, seeds: Sequence[int], policies: Sequence[str], courses: Sequence[str]
) -> list[dict[str, Any]]:
    """By seed, so that what is there is balanced; policies side by side."""
    todo = []
    for seed in seeds:
        for start, rows, data in GOOD_CELLS[model]:
            one = {"model": model, "start": start, "rows": rows, "data": data, "seed": seed}
            todo += [{**one, "course": "good", "arm": name} for name in policies]
        for (start, rows, data), name in itertools.product(BAD_CELLS[model], courses):
            one = {"model": model, "start": start, "rows": rows, "data": data, "seed": seed}
            treated = ["remedy"] if name in REMEDIES else []
            todo += [{**one, "course": name, "arm": arm} for arm in ("good", *policies, *treated)]
    return [cell for cell in todo if not _twice(cell)]


def _twice(cell: Mapping[str, Any]) -> bool:
    """The good run beside a recipe whose rows are the good one's is there already; so many rows a
    class are the same rows whatever the size."""
    if cell["arm"] == "good" and cell["course"] not in OWN_ROWS:
        return True
    if cell["course"] != "short":
        return False
    first = next(rows for _, rows, data in BAD_CELLS[cell["model"]] if data == cell["data"])
    return bool(cell["rows"] != first)


def run_one(cell: Mapping[str, Any]) -> dict[str, Any]:
    """One fit."""
    import torch

    from holdfast.fits.fit import fit

    torch.set_num_threads(1)
    load = round(os.getloadavg()[0], 2)
    arm = cell["arm"]
    made = course(cell, faulty=arm != "good", remedy=arm == "remedy")
    policy = "off" if arm in ("good", "remedy") else arm
    start = time.perf_counter()
    fitted = fit(made.case.prepared, made.train, made.valid, {"control.policy": policy})
    seconds = time.perf_counter() - start
    _, logits = fitted.measure(made.case.test)
    right = np.asarray(logits).argmax(axis=1) == made.case.test.labels
    trained, labels = fitted.trained, made.case.test.labels
    kinds = [type(action).__name__ for _, action in trained.actions]
    return {
        "accuracy": float(right.mean()),
        "recall": float(np.mean([right[labels == k].mean() for k in np.unique(labels)])),
        "passed": trained.examples_seen,
        "planned": fitted.training_plan.plan.steps,
        "kept": trained.best_step,
        "looks": len(trained.history),
        "verdict": trained.verdict.label,
        "cause": trained.verdict.cause or "",
        "actions": " ".join(kinds),
        "seconds": round(seconds, 2),
        "load_before": load,
        "commit": commit(),
    }


def score(record: Mapping[str, Any]) -> float:
    return float(record["recall" if record["course"] == "skew" else "accuracy"])


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", action="append", default=[], help="beside off and stop")
    parser.add_argument("--model", action="append", choices=sorted(GOOD_CELLS))
    parser.add_argument("--course", action="append", choices=BAD)
    parser.add_argument("--seed", type=int, action="append", help="these alone, of 0 to 9")
    parser.add_argument("--minutes", type=float, help="start no new cell after this time")
    chosen = parser.parse_args(words)
    policies = [*POLICIES, *chosen.policy]
    seeds = chosen.seed or range(SEEDS)
    todo = [
        cell
        for model in chosen.model or GOOD_CELLS
        for cell in cells(model, seeds, policies, chosen.course or BAD)
    ]
    run_cells(NAME, todo, run_one, RESULTS / f"{NAME}.jsonl", minutes=chosen.minutes)


FRESH = tuple(seed for seed in range(SEEDS) if seed not in CHOSEN_ON)
RUN = ("model", "start", "rows", "data", "seed", "course")


def scored(lines: Lines) -> list[Line]:
    """Lines of fresh seeds with their score; for each bad recipe whose rows are those of the good
    one, the good run as its arm ``good``."""
    fresh = [{**line, "score": score(line)} for line in pick(lines, seed=FRESH)]
    good = [line for line in fresh if line["course"] == "good" and line["arm"] == "off"]
    courses = {line["course"] for line in fresh} - {"good", *OWN_ROWS}
    return [
        *fresh,
        *({**line, "course": name, "arm": "good"} for name in sorted(courses) for line in good),
    ]


def finding(lines: Lines) -> str:
    lines = scored(lines)
    harm = paired(pick(lines, course="good"), "score", "adapt", "off", RUN)
    parts = []
    for bad in BAD:
        some = pick(lines, course=bad)
        gap, gain = (paired(some, "score", arm, "off", RUN) for arm in ("good", "adapt"))
        if gap and gain and gap.low > 0:
            lost = number(100 * gap.value)
            parts.append(f"{NAMES[bad]} {gain.words(100, 1)} of {lost} points")
    if not harm or not parts:
        return ""
    return (
        "On small networks over frozen features, the policy `adapt` changes the accuracy of a good "
        f"recipe by {harm.words(100, 2, ' points')}, compared with a run that nothing stops. Of "
        f"the accuracy that a bad recipe is shown to cost, it recovers: {'; '.join(parts)}. The "
        "table has the other bad recipes: skewed classes are not repaired, and with a learning "
        "rate that is too high nothing is left to repair."
    )


NAMES = {
    "hot": "learning rate too high",
    "cold": "learning rate too low",
    "long": "too many epochs",
    "no_decay": "no decay",
    "noise": "wrong labels",
    "short": "too few epochs",
    "skew": "skewed classes",
}
CLAIM = Claim(
    NAME,
    "Verdicts",
    "Acting on the verdict",
    """\
Small networks over frozen features on CR, MR, TREC and BANKING77, under three policies: `off`
(nothing stops the run, the best checkpoint is kept), `stop` (early stopping) and `adapt` (also
changes the run, for example its learning rate). In the rows of a bad recipe, "good" is the run
without the fault under `off`, and "remedy" a known method against it: generalized cross-entropy for
wrong labels, balanced sampling for skewed classes. Accuracy on 2,000 test rows; for skewed classes
the mean recall over classes. No setting was chosen on these seeds.""",
    lambda: [
        c for model in GOOD_CELLS for c in cells(model, range(SEEDS), ("off", "stop", "adapt"), BAD)
    ],
    finding,
    [
        lambda lines: comparison(
            [("good", "off"), ("stop", "off"), ("adapt", "off"), ("remedy", "off")],
            {
                "Accuracy, points": Metric("score", 100),
                "Rows trained on, ratio": Metric("passed", 1, 2, times=True),
            },
            "recipe",
            by=RUN,
        )([{**line, "recipe": NAMES.get(line["course"], line["course"])} for line in scored(lines)])
    ],
    """\
`adapt` repairs a learning rate that is too low and much of too few epochs, but neither wrong
labels nor skewed classes. A good recipe is not shown to lose accuracy. With a learning rate that
is too high nothing is left to repair once the best checkpoint is kept, and `stop` and `adapt` cost
accuracy. These runs used an earlier version of `adapt`, with a robust loss against wrong labels and
without `methods.label_weights`. Fine-tuned encoders are [on another page](repairs.md).""",
)


if __name__ == "__main__":
    main(sys.argv[1:])
