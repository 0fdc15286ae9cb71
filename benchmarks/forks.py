"""Every action from three looks of 34 runs to the end, so that any policy is scored in seconds.

    python benchmarks/forks.py                               # explore what is missing, and score
    python benchmarks/forks.py --record --minutes 4          # a piece of it; resumable
    python benchmarks/forks.py --tables --policy adapt       # score policies on what is recorded
    python benchmarks/forks.py --tables --policy file.py:Name  # any, as a recipe names it

Good and bad recipes (forked/courses.py) go to a quarter, half and three quarters of their steps;
from each of these forks the run goes on, stops, or takes one of seven actions: a lower rate (÷ 3,
or the middle of the usual region from above it), a higher one, back to the kept state at the lower
one, dropout 0.3, generalized cross-entropy, half as many steps again, or from the kept state the
schedule to its end within four looks. Each course ends as a run does, with the state that it would
keep, which is scored on 2,000 test rows that choose nothing (of skewed rows by the mean recall of
the classes).

Regret is how many points a policy's action lies behind the best one of its fork. The best is found
on one half of the test rows and measured on the other, both ways round: the best of eight on the
rows that judge it is partly luck, and ``raw`` regret counts that luck too. A policy is asked at
each fork with the run as it went up to there; what it advised at an earlier look is not done. Its
advice counts as the entry of the menu that it comes nearest to; and once more undone wherever a
paired test on the validation rows does not find its end better. Tables from verdicts
to actions are chosen on one half of the runs and measured on the other.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import RESULTS, key, run_cells, stored
from forked.courses import course
from forked.explore import explore
from forked.menu import CONTINUE, MENU, STOP
from forked.policies import always, by_validation, from_table, gains, kept_if_better, table_of
from forked.replay import Advise, Forked, Recorded, asked, joined, read
from peers.process import commit
from peers.tables import NOT_RUN, foot, markdown, points, records, target
from recorded.store import folder

from holdfast.core.seeds import generator
from holdfast.stats.paired_tests import paired_bootstrap

NAME = "forks"
MOST = 720
REGRET = 0.3
DATA, UPPER_DATA = ("cr", "trec", "mr", "banking77"), ("trec", "cr")
COURSES = ("good", "hot", "cold", "long", "noise", "skew", "short")
UPPER = ("good", "hot", "cold")
# An action that joins the menu is named here: what is recorded stays, and it is explored beside.
LATER: tuple[str, ...] = ()
SEED = 20


FOLLOWS = """What follows: a rate that is too low is what an action mends, the sooner the better;
no other fault is worth much. Elsewhere each action gains a point at most on average and loses
somewhere: most of all a stop while a run still learns, or a robust loss without wrong labels. So a
policy that tries what the verdict names, and undoes what the paired test does not find better,
comes as near to the best action as trying everything does. Two things bound what this certifies.
The layers stand in for an encoder, and gain little over their probe. And the ladder of `adapt` was
written with tables of both halves in sight: only the table is measured on runs that it never saw.
"""


def cells() -> list[dict[str, Any]]:
    """28 runs of a layer over vectors, 6 of MiniLM's last block, set by set. Each recipe and each
    set stands in both halves, and so does each way to begin."""
    layers = []
    for (d, data), (c, name) in itertools.product(enumerate(DATA), enumerate(COURSES)):
        start = ("new", "probe")[(c // 2 + d // 2) % 2] if name != "cold" else "new"
        rows = 800 if data == "banking77" else 400
        layers.append(_cell("vectors", start, rows, data, name, (c + d) % 2))
    upper = [
        _cell("upper", "probe", (400, 100)[(c + d) % 2], data, name, (c + d) % 2)
        for (d, data), (c, name) in itertools.product(enumerate(UPPER_DATA), enumerate(UPPER))
    ]
    first = 2 * len(COURSES)
    return [*layers[:first], *upper, *layers[first:]]


def _cell(model: str, start: str, rows: int, data: str, name: str, half: int) -> dict[str, Any]:
    return {
        "model": model,
        "start": start,
        "rows": rows,
        "data": data,
        "course": name,
        "seed": SEED + half,
    }


def path_of(cell: Mapping[str, Any]) -> Path:
    name = "-".join(str(cell[name]) for name in ("model", "start", "data", "rows", "course"))
    later = f"-{cell['later']}".replace(" ", "_") if "later" in cell else ""
    return folder().parent / NAME / f"{name}-{cell['seed']}{later}.npz"


def with_later(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A run with the actions of the first menu, and once more with each of the later ones."""
    return [dict(cell), *({**cell, "later": name} for name in LATER)]


def whole(cell: Mapping[str, Any]) -> Recorded:
    """Everything that was explored of a run."""
    first, *later = (read(path_of(one)) for one in with_later(cell))
    for other in later:
        first = joined(first, other)
    return first


def run_one(cell: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    load, start = round(os.getloadavg()[0], 2), time.perf_counter()
    names = [cell["later"]] if "later" in cell else [name for name in MENU if name not in LATER]
    told = explore(cell, course(cell), path_of(cell), names)
    seconds = round(time.perf_counter() - start, 1)
    return {**told, "seconds": seconds, "load_before": load, "commit": commit()}


def halves(runs: Sequence[Recorded]) -> tuple[list[Forked], list[Forked]]:
    """The forks of the runs that tables are chosen on, and of the others."""
    first, other = (
        [fork for run in runs if run.cell["seed"] == SEED + half for fork in run.forks]
        for half in (0, 1)
    )
    return first, other


def report(runs: Sequence[Recorded], policies: Sequence[str], left: int) -> str:
    chosen, fresh = halves(runs)
    forks = [*chosen, *fresh]
    matters = [fork for fork in forks if fork.open]
    fresh = [fork for fork in fresh if fork.open]
    continuations = sum(len(fork.outcomes) - 2 for fork in forks)
    table = table_of(chosen)
    parts = [
        "## Forks: what each action is worth, and what a policy makes of it",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        f"{len(runs)} runs, {len(forks)} forks, {continuations} continuations (at most {MOST})"
        + (f"; {left} runs {NOT_RUN}" if left else "")
        + f". At {sum(not fork.open for fork in forks)} forks every course ends in the same "
        "answers, most of them of runs that begin as a linear probe and keep it; they are left out "
        "of the tables of regret.",
        "What each action gains over going on, in points of accuracy, by recipe:",
        by_course(forks),
        "The same by what the guard sees at the fork, verdict and cause; mean ± standard error:",
        by_verdict(forks),
        "The table chosen on the first half of the runs: "
        + ("; ".join(f"{what} → {name}" for what, name in table.items()) or "nothing is sure")
        + ".",
        "Regret in points on the other half, which nothing was chosen on:",
        scored(fresh, lines_of(policies, table)),
        "The same on all runs (the table's own half in it):",
        scored(matters, lines_of(policies, table)),
        targets(fresh, matters, policies),
        FOLLOWS,
    ]
    return "\n\n".join(parts)


def lines_of(policies: Sequence[str], table: Mapping[str, str]) -> dict[str, Advise]:
    """Every policy by its name, and each of those that act with its actions undone where the paired
    test does not find them better."""
    found: dict[str, Advise] = {"go on (`off`)": always(CONTINUE)}
    for name in policies:
        if name != "off":
            found[f"`{name}`"] = _of_recipe(name)
            if name != "stop":
                found[f"`{name}`, kept only if better"] = kept_if_better(_of_recipe(name))
    found |= {f"always {name}": always(name) for name in (STOP, *MENU)}
    found["the table"] = from_table(table)
    found["the table, kept only if better"] = kept_if_better(from_table(table))
    found["everything, the best by validation"] = by_validation
    return found


def _of_recipe(policy: str) -> Advise:
    known: dict[int, dict[int, str]] = {}

    def advise(fork: Forked) -> str:
        if id(fork.run) not in known:
            known[id(fork.run)] = asked(policy, fork.run)
        return known[id(fork.run)][fork.step]

    return advise


def scored(forks: Sequence[Forked], policies: Mapping[str, Advise]) -> str:
    lines = []
    for name, advise in policies.items():
        taken = [advise(fork) for fork in forks]
        regret = [fork.regret(one) for fork, one in zip(forks, taken, strict=True)]
        raw = [fork.raw_regret(one) for fork, one in zip(forks, taken, strict=True)]
        nats = [
            fork.outcomes[one].loss - fork.outcomes[CONTINUE].loss
            for fork, one in zip(forks, taken, strict=True)
        ]
        steps = [fork.steps(one) for fork, one in zip(forks, taken, strict=True)]
        acted = sum(one not in (CONTINUE, STOP) for one in taken)
        lines.append(
            [
                name,
                f"{np.median(regret):.2f}",
                f"{np.mean(regret):.2f}",
                f"{np.quantile(regret, 0.9):.2f}",
                f"{np.median(raw):.2f}",
                over_nothing(forks, taken),
                f"{min(f.gain(o) for f, o in zip(forks, taken, strict=True)):+.1f}",
                f"{np.mean(nats):+.4f}",
                f"{np.mean(steps):.2f}×",
                f"{acted} of {len(taken)}",
            ]
        )
    head = [
        "Policy",
        "Median regret",
        "Mean",
        "9 of 10 below",
        "Median, raw",
        "Over going on, points",
        "Worst fork",
        "Loss over going on",
        "Steps",
        "Acts",
    ]
    return markdown(head, lines)


def over_nothing(forks: Sequence[Forked], taken: Sequence[str]) -> str:
    """The mean gain over going on, with an interval over runs: forks of one run are no three."""
    by_run: dict[int, list[float]] = {}
    for fork, one in zip(forks, taken, strict=True):
        by_run.setdefault(id(fork.run), []).append(fork.gain(one) / 100)
    means = np.array([np.mean(found) for found in by_run.values()])
    if not means.any():
        return "0"
    seed = generator(0, "benchmark", NAME)
    return points(paired_bootstrap(means, np.zeros(len(means)), seed=seed))


def by_course(forks: Sequence[Forked]) -> str:
    lines = []
    for model, name in dict.fromkeys((f.run.cell["model"], f.run.cell["course"]) for f in forks):
        of = [f for f in forks if (f.run.cell["model"], f.run.cell["course"]) == (model, name)]
        lines.append([str(model), str(name), str(len(of)), *(_gain(of, one) for one in ACTIONS)])
    return markdown(["Model", "Recipe", "Forks", *ACTIONS], lines)


ACTIONS = (STOP, *MENU)


def _gain(forks: Sequence[Forked], action: str) -> str:
    found = [fork.gain(action) for fork in forks if action in fork.outcomes]
    return f"{np.mean(found):+.1f}" if found else "–"


def by_verdict(forks: Sequence[Forked]) -> str:
    lines = []
    for what, actions in sorted(gains(forks).items(), key=lambda one: -one[1][STOP][2]):
        count = actions[STOP][2]
        if count >= 3:
            shown = [
                f"{actions[name][0]:+.1f} ± {actions[name][1]:.1f}" if name in actions else "–"
                for name in ACTIONS
            ]
            lines.append([what, str(count), *shown])
    return markdown(["Seen", "Forks", *ACTIONS], lines)


def targets(fresh: Sequence[Forked], forks: Sequence[Forked], policies: Sequence[str]) -> str:
    lines = []
    for name in policies:
        if name == "off":
            continue
        advise = _of_recipe(name)
        found = [float(np.median([f.regret(advise(f)) for f in of])) for of in (fresh, forks)]
        lines.append(
            target(
                f"`{name}`: median regret ≤ {REGRET} points",
                found[0] <= REGRET,
                f"{found[0]:.2f} on the other half, {found[1]:.2f} on all",
            )
        )
    return "\n".join(lines)


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="explore what is missing, no tables")
    parser.add_argument("--tables", action="store_true", help="run nothing, make the tables")
    parser.add_argument("--policy", action="append", default=[], help="beside off and stop")
    parser.add_argument("--model", choices=("vectors", "upper"), help="record these alone")
    parser.add_argument("--minutes", type=float, help="start no new run after this time")
    chosen = parser.parse_args(words)
    todo, path = cells(), RESULTS / f"{NAME}.jsonl"
    if not chosen.tables:
        wanted = [
            one
            for cell in todo
            if chosen.model in (None, cell["model"])
            for one in with_later(cell)
        ]
        run_cells(NAME, wanted, run_one, path, minutes=chosen.minutes)
    if chosen.record:
        return
    told = stored(path)
    there = [
        cell
        for cell in todo
        if all(path_of(one).exists() and key(one) in told for one in with_later(cell))
    ]
    if not there:
        raise SystemExit(f"{NAME}: {NOT_RUN}")
    runs = [whole(cell) for cell in there]
    text = report(runs, ["stop", *chosen.policy], len(todo) - len(there))
    parts = [one for cell in there for one in with_later(cell)]
    done = records(parts, [told[key(one)] for one in parts])
    cells_in_all = len(todo) * (1 + len(LATER))
    text = f"{text}\n\n{foot('python benchmarks/forks.py', cells_in_all, done, 1)}"
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
