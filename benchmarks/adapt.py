"""Does acting on the verdict ever make a run worse, and does it mend bad recipes?

    python benchmarks/adapt.py --policy adapt              # run what is missing of all arms
    python benchmarks/adapt.py --policy file.py:Name       # any policy, as a recipe names it
    python benchmarks/adapt.py --record --minutes 4        # a piece of it; resumable
    python benchmarks/adapt.py --policy adapt --tables     # the tables of what is there

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
from cells import NOT_RUN, RESULTS, publish, run_cells
from forked.courses import BAD, REMEDIES, course
from peers.process import commit
from peers.tables import foot, gap, markdown, points, records, target

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
# Points of the gap below which there is nothing to recover.
LEAST_GAP = 1.0
POOLED, CELL, SHARE, STEPS = -0.5, -2.0, 0.5, 1.3

FOLLOWS = """
What follows, of `adapt` from three fresh seeds of layers alone: a rate 30 times too low is wholly
mended, and so is much of three epochs on 16 rows a class where there are many classes, at up to 1.3
times the rows; with two classes (CR) the higher rate is undone and its updates are gone, 2 to 5
points behind going on. Wrong labels and skewed classes are not mended: balancing from the start
gives back half of what skew costs and `adapt` next to nothing of it, and of wrong labels the robust
loss gives back nothing either, on frozen vectors. A rate ten times too high, 50 epochs and no decay
leave no gap once the best state is kept. What `adapt` lost in these runs it lost by the stop that
it took over from `stop`, of runs with a new head while their rate is high: up to 7 points on 82
rows of MR, 1 to 4 at a rate ten times too high. Since then it goes on up to three fifths of the
plan where training has brought something, and a higher rate must show something while the plan can
still be finished. Two fresh seeds (8 and 9), before and after on the same rows: the good recipe, 28
runs, -0.11 and -0.02 points against `off`, worst run -3.80 (100 MR, a new head) and -0.40, at 0.92
and 0.97 times its steps; bad recipes, 6 runs each: too hot 75.2 and 75.3 % (`off` 75.7), too cold
75.1 and 75.1 (34.2), too short 63.8 and 63.9 (50.2, the good one 67.7).
"""


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


def report(
    todo: Sequence[Mapping[str, Any]], results: Sequence[Any], policies: Sequence[str]
) -> str:
    done = records(todo, results)
    parts = ["## Acting on the verdict", (__doc__ or "").split("\n\n", 2)[2].strip()]
    for name, seeds in (("chosen on", CHOSEN_ON), ("fresh", None)):
        of = [r for r in done if (r["seed"] in CHOSEN_ON) == (seeds is not None)]
        if of:
            parts.append(
                f"### Seeds {name}: {', '.join(map(str, sorted({r['seed'] for r in of})))}"
            )
            parts += [harmless(of, policies), mended(of, policies)]
    parts.append(FOLLOWS.strip())
    parts.append(foot("python benchmarks/adapt.py", len(todo), done, 1))
    return "\n\n".join(parts)


def _key(record: Mapping[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(record[name] for name in names)


ROW = ("model", "start", "rows", "data", "seed")


def harmless(done: Sequence[Mapping[str, Any]], policies: Sequence[str]) -> str:
    """Each policy against ``off`` on the good recipe."""
    good = [r for r in done if r["course"] == "good"]
    off = {_key(r, *ROW): r for r in good if r["arm"] == "off"}
    lines = []
    for policy in policies:
        if policy == "off":
            continue
        for model in dict.fromkeys(r["model"] for r in good):
            pairs = [
                (r, off[_key(r, *ROW)])
                for r in good
                if r["arm"] == policy and r["model"] == model and _key(r, *ROW) in off
            ]
            if not pairs:
                lines.append([policy, model, *[NOT_RUN] * 6])
                continue
            lines.append(_harm(policy, model, pairs))
    head = ["Policy", "Model", "Runs", "Minus off, points", "Worst cell", "Steps", "Acted", "Holds"]
    return (
        "The good recipe, policy minus `off`; a cell is a set, size and start over its seeds.\n\n"
        + (markdown(head, lines))
    )


def _harm(policy: str, model: str, pairs: Sequence[tuple[Any, Any]]) -> list[str]:
    pooled = gap([score(a) for a, _ in pairs], [score(b) for _, b in pairs], f"{policy} {model}")
    by_cell: dict[tuple[Any, ...], list[float]] = {}
    for a, b in pairs:
        by_cell.setdefault(_key(a, "start", "rows", "data"), []).append(score(a) - score(b))
    worst = min(by_cell, key=lambda one: float(np.mean(by_cell[one])))
    low = 100 * float(np.mean(by_cell[worst]))
    steps = sum(a["passed"] for a, _ in pairs) / sum(b["passed"] for _, b in pairs)
    acted = sum(bool(set(a["actions"].split()) - {"Stop", "Continue"}) for a, _ in pairs)
    holds = 100 * pooled.low > POOLED and low >= CELL
    return [
        policy,
        model,
        str(len(pairs)),
        points(pooled),
        f"{low:+.2f} ({' '.join(map(str, worst))})",
        f"{steps:.2f}×",
        f"{acted} runs",
        "yes" if holds else "**no**",
    ]


def mended(done: Sequence[Mapping[str, Any]], policies: Sequence[str]) -> str:
    """How much of the gap of each bad recipe each policy recovers."""
    of = {(r["course"], r["arm"], *_key(r, *ROW)): r for r in done}
    lines, found = [], {policy: [] for policy in policies}
    groups = dict.fromkeys(_key(r, "course", "model", "start") for r in done)
    for name, model, start in groups:
        if name == "good":
            continue
        runs = dict.fromkeys(
            _key(r, *ROW)
            for r in done
            if _key(r, "course", "model", "start") == (name, model, start)
        )
        lines.append(_mended(name, [str(model), str(start)], list(runs), of, policies, found))
    head = ["Bad recipe", "Model", "Begins as", "Runs", "Good, %", "Bad, %", "Gap, points"]
    for policy in policies:
        if policy != "off":
            head += [f"{policy}: recovered", "steps"]
    head.append("remedy: recovered")
    sums = [_sum(policy, found[policy]) for policy in policies if policy != "off"]
    return "\n\n".join(
        [
            "Bad recipes: the gap is good minus bad under `off`; recovered is the share of it.",
            markdown(head, lines),
            "\n".join(sums),
        ]
    )


def _mended(
    name: str,
    begins: list[str],
    runs: Sequence[tuple[Any, ...]],
    of: Mapping[Any, Any],
    policies: Sequence[str],
    found: dict[str, list[tuple[float, float, float]]],
) -> list[str]:
    own = name in OWN_ROWS
    good = {one: of.get((name, "good", *one) if own else ("good", "off", *one)) for one in runs}
    bad = {one: of.get((name, "off", *one)) for one in runs}
    both = [one for one in runs if good[one] and bad[one]]
    if not both:
        return [name, *begins, "0", *[NOT_RUN] * (2 * len(policies) + 2)]
    high = [_as(good[one], name) for one in both]
    low = [_as(bad[one], name) for one in both]
    wide = gap(high, low, f"{name} {begins}")
    line = [
        name,
        *begins,
        str(len(both)),
        f"{100 * np.mean(high):.1f}",
        f"{100 * np.mean(low):.1f}",
    ]
    line.append(points(wide))
    nothing = 100 * wide.value < LEAST_GAP or wide.low <= 0
    for arm in [*(p for p in policies if p != "off"), "remedy"]:
        got = [one for one in both if of.get((name, arm, *one))]
        if not got:
            line += [NOT_RUN] * (1 if arm == "remedy" else 2)
            continue
        mine = [of[name, arm, *one] for one in got]
        pairs = zip(mine, got, strict=True)
        gain = float(np.mean([_as(m, name) - _as(bad[one], name) for m, one in pairs]))
        gaps = float(np.mean([_as(good[one], name) - _as(bad[one], name) for one in got]))
        steps = sum(m["passed"] for m in mine) / sum(bad[one]["passed"] for one in got)
        shown = (
            f"{100 * gain:+.2f}, no gap" if nothing else f"{gain / gaps:.0%} ({100 * gain:+.2f})"
        )
        line += [shown] if arm == "remedy" else [shown, f"{steps:.2f}×"]
        if arm != "remedy" and not nothing:
            found[arm].append((gain, gaps, steps))
    return line


def _as(record: Mapping[str, Any], name: str) -> float:
    return float(record["recall" if name == "skew" else "accuracy"])


def _sum(policy: str, found: Sequence[tuple[float, float, float]]) -> str:
    """Over the bad recipes that have a gap, each counting the same."""
    if not found:
        return target(f"{policy} recovers half of the gap", None, "")
    share = float(np.mean([gain / gaps for gain, gaps, _ in found]))
    most = max(steps for *_, steps in found)
    kept = sum(gain / gaps >= SHARE for gain, gaps, _ in found)
    told = (
        f"{share:.0%} on average, half or more of {kept} of {len(found)} recipes with a gap, at "
        f"most {most:.2f}× the steps"
    )
    return target(
        f"{policy} recovers half of the gap at ≤ {STEPS}× the steps",
        share >= SHARE and most <= STEPS,
        told,
    )


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", action="append", default=[], help="beside off and stop")
    parser.add_argument("--model", action="append", choices=sorted(GOOD_CELLS))
    parser.add_argument("--course", action="append", choices=BAD)
    parser.add_argument("--seed", type=int, action="append", help="these alone, of 0 to 9")
    parser.add_argument("--minutes", type=float, help="start no new cell after this time")
    parser.add_argument("--record", action="store_true", help="run what is missing, no tables")
    parser.add_argument("--tables", action="store_true", help="run nothing, make the tables")
    chosen = parser.parse_args(words)
    policies = [*POLICIES, *chosen.policy]
    seeds = chosen.seed or range(SEEDS)
    todo = [
        cell
        for model in chosen.model or GOOD_CELLS
        for cell in cells(model, seeds, policies, chosen.course or BAD)
    ]
    minutes = 0.0 if chosen.tables else chosen.minutes
    results = run_cells(NAME, todo, run_one, RESULTS / f"{NAME}.jsonl", minutes=minutes)
    if chosen.record:
        return
    text = report(todo, results, policies)
    print(text)
    publish(NAME, text)


if __name__ == "__main__":
    main(sys.argv[1:])
