"""The tables of kept_state.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peers.tables import gap, markdown, points

from holdfast.stats.paired_tests import Difference
from recorded import kept_rules
from recorded.kept_rules import FIXED, LEFT_OUT, LOWEST, NEWEST, Recorded, Rule
from recorded.kept_runs import RECIPES, TRAINERS, path_of

# Validation rows that somebody may set aside who trains on few.
ASIDE = 100
HEAD = (
    "Rule",
    "Test accuracy, %",
    "Test loss as saved",
    "Test loss, its own best temperature",
    f"Points over the {LOWEST}",
    "Nats as saved over it",
)


def report(cells: Sequence[Mapping[str, Any]], folder: Path, words: str) -> str:
    """The tables of what is recorded."""
    paths = [path for cell in cells if (path := path_of(folder, cell)).exists()]
    read = [kept_rules.read(path) for path in paths]
    runs, told = [run for run, _ in read], [one for _, one in read]
    parts = ["## The checkpoint that is kept", words]
    for recipe in RECIPES:
        of = [run for run in runs if run.recipe == recipe]
        if of:
            parts += [f"Recipe `{recipe}`, {len(of)} runs:", table(of), by(of, "rows")]
            parts += [by(of, "data"), left_out_words(of)]
    for count in (None, ASIDE):
        parts += redrawn(paths, count)
    seconds = sum(float(one["seconds"]) for one in told)
    machines = Counter(
        ", ".join(f"{name} {value}" for name, value in one["machine"].items()) for one in told
    )
    shown = "; ".join(f"{name} ({count} runs)" for name, count in machines.most_common())
    commits = ", ".join(dict.fromkeys(str(one["commit"]) for one in told))
    parts.append(
        f"`python benchmarks/kept_state.py`: {len(runs)} of {len(cells)} recordings, "
        f"{seconds / 60:.0f} minutes of one core. Machine: {shown}. Commits: {commits}."
    )
    return "\n\n".join(parts)


def table(runs: Sequence[Recorded]) -> str:
    """Every rule: the means over runs, and the paired differences with 95 % intervals over runs."""
    return markdown(HEAD, [line(name, runs, [rule] * len(runs)) for name, rule in FIXED.items()])


def line(name: str, runs: Sequence[Recorded], rules: Sequence[Rule]) -> list[str]:
    found = {
        what: [kept_rules.figure(run, rule, what) for run, rule in zip(runs, rules, strict=True)]
        for what in ("accuracy", "saved", "refined")
    }
    base = {
        what: [kept_rules.figure(run, FIXED[LOWEST], what) for run in runs]
        for what in ("accuracy", "saved")
    }
    nats = gap(found["saved"], base["saved"], name)
    return [
        name,
        f"{100 * np.mean(found['accuracy']):.2f}",
        f"{np.mean(found['saved']):.4f}",
        f"{np.mean(found['refined']):.4f}",
        points(gap(found["accuracy"], base["accuracy"], name)),
        shown_nats(nats),
    ]


def shown_nats(found: Difference) -> str:
    """A difference of losses with its interval, where there is more than one run."""
    limits = f" ({found.low:+.4f} to {found.high:+.4f})" if np.isfinite(found.low) else ""
    return f"{found.value:+.4f}{limits}"


def by(runs: Sequence[Recorded], axis: str) -> str:
    """Test accuracy and loss as saved of every rule, by labelled rows or by set."""
    values = list(dict.fromkeys(run.cell[axis] for run in runs))
    values = sorted(values) if axis == "rows" else values
    of = {value: [run for run in runs if run.cell[axis] == value] for value in values}
    lines = []
    for name, rule in FIXED.items():
        shown = []
        for group in of.values():
            right = np.mean([kept_rules.figure(run, rule, "accuracy") for run in group])
            nats = np.mean([kept_rules.figure(run, rule, "saved") for run in group])
            shown.append(f"{100 * right:.1f} ({nats:.3f})")
        lines.append([name, *shown])
    words = "rows" if axis == "rows" else ""
    heads = [
        f"{value} {words}, {len(group)} runs".replace(" ,", ",") for value, group in of.items()
    ]
    return markdown(["Rule", *heads], lines)


def left_out_words(runs: Sequence[Recorded]) -> str:
    """Which of the two rules the other sets choose for each set, and what that is worth on it."""
    parts = []
    for what, words in (("saved", "test loss as saved"), ("accuracy", "test error")):
        # ``left_out`` takes the least; of accuracies the most is wanted.
        chosen, rules = kept_rules.left_out(
            runs if what == "saved" else [_errors(run) for run in runs], LEFT_OUT, what
        )
        found = Counter(chosen.values())
        won = ", ".join(f"{name} for {count} sets" for name, count in found.items())
        gained = line("left out", runs, rules)
        parts.append(f"by {words}: {won}; {gained[4]} points, {gained[5]} nats")
    newest = line(NEWEST, runs, [FIXED[NEWEST]] * len(runs))
    return (
        f"Each set left out in turn, `{LOWEST}` or `{NEWEST}` chosen on the others, against "
        f"`{LOWEST}`: {'; '.join(parts)}. Always `{NEWEST}`: {newest[4]} points, {newest[5]} nats."
    )


def _errors(run: Recorded) -> Recorded:
    return replace(run, accuracy=1 - run.accuracy)


def redrawn(paths: Sequence[Path], count: int | None) -> list[str]:
    """Every rule on recordings whose validation rows are drawn again from their test rows."""
    parts = []
    for recipe in RECIPES if count is None else TRAINERS:
        of = [path for path in paths if path.name.startswith(f"{recipe}-")]
        of = [path for path in of if f"{recipe}-hot-" not in path.name]
        if not of:
            continue
        draws = [list(kept_rules.redrawn(path, count)) for path in of]
        means = {name: [_mean(some, rule) for some in draws] for name, rule in FIXED.items()}
        rows = "as many" if count is None else str(count)
        parts += [
            f"Recipe `{recipe}`, each of {len(of)} runs {kept_rules.DRAWS} times with {rows} other "
            "validation rows, drawn from its test rows, and scored by the rest of them:",
            markdown(HEAD, [_redrawn_line(name, means) for name in FIXED]),
            _redrawn_left_out(draws, means),
        ]
    return parts


def _mean(draws: Sequence[Recorded], rule: Rule) -> list[float]:
    """Accuracy and both losses on the rows that a draw leaves, over the draws of a run."""
    places = [(run, rule(run)) for run in draws]
    whats = ("accuracy", "saved", "refined")
    return [float(np.mean([getattr(run, what)[at] for run, at in places])) for what in whats]


def _redrawn_left_out(
    draws: Sequence[Sequence[Recorded]], means: Mapping[str, list[list[float]]]
) -> str:
    """Which of the two rules the other sets choose for each set by the loss of all their draws."""
    chosen, _ = kept_rules.left_out([run for some in draws for run in some], LEFT_OUT, "saved")
    taken = [means[chosen[some[0].data]][place] for place, some in enumerate(draws)]
    found = _redrawn_line("left out", {**means, "left out": taken})
    won = ", ".join(f"`{name}` for {count}" for name, count in Counter(chosen.values()).items())
    return (
        f"Each set left out in turn, the rule chosen by the test loss on the others: {won} of "
        f"{len(chosen)} sets; against `{LOWEST}` {found[4]} points, {found[5]} nats."
    )


def _redrawn_line(name: str, means: Mapping[str, list[list[float]]]) -> list[str]:
    found, base = np.array(means[name]), np.array(means[LOWEST])
    right, nats = (gap(found[:, at].tolist(), base[:, at].tolist(), name) for at in (0, 1))
    return [
        name,
        f"{100 * found[:, 0].mean():.2f}",
        f"{found[:, 1].mean():.4f}",
        f"{found[:, 2].mean():.4f}",
        points(right),
        shown_nats(nats),
    ]
