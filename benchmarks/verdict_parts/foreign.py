"""``diagnose`` on fresh logs of small runs, against a large pool of rows as the truth.

The truth is what a person calls overfit who sees the *pool's* curves and the training rows' and the
pool's accuracies, written down before any verdict was made:

- the pool's loss rose: more than 5 % (0.02 at least) above its lowest. Then overfit where the log
  has no metric; else where the pool's accuracy fell by more than a point since, or the training
  rows' accuracy is more than 10 points better, or more than half of what the loss had learned is
  given back. Otherwise its certainty alone suffered, which is not overfit.
- it did not: overfit where the accuracy is more than 10 points better on training rows of which
  95 % are right; in a log without losses, more than 10 points better is enough.
- with restarts of the rate: the state at the end of the cycle, which the log does not show.

A history is *clear* where the answer is the same with all these lines at 0.6 and at 1.6 times
their place (95 % right: 90 and 98 %), and with the training accuracy as the program logged it (with
dropout, while the model moved). Seeds from 1000 on were made after every threshold was fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from claims import Claim, Line, Lines, pick, share
from peers.tables import markdown

from holdfast.core.curves import Curves, Series
from holdfast.monitor.curves.verdict import judge_curves
from holdfast.plugins.logs.choose import choose_curves
from holdfast.plugins.logs.table import from_rows
from verdict_parts.histories import macro_f1
from verdict_parts.small_runs import FAMILIES

NAME = "verdicts_foreign"
FIRST_FRESH, SEEDS = 1000, 36
OVERFIT = ("overfit", "memorizing")
COLUMNS = {
    "train_loss": "loss",
    "valid_loss": "val_loss",
    "train_accuracy": "accuracy",
    "valid_accuracy": "val_accuracy",
}
SHOWN = {
    "both": tuple(COLUMNS),
    "none": ("train_loss", "valid_loss"),
    "valid": ("train_loss", "valid_loss", "valid_accuracy"),
    "only": ("train_accuracy", "valid_accuracy"),
}
CELLS = [
    {"family": family, "seed": FIRST_FRESH + seed} for seed in range(SEEDS) for family in FAMILIES
]


def overfits(
    run: Mapping[str, Any], times: float = 1.0, right: float = 0.95, trained: float | None = None
) -> bool:
    """The truth on one run, every line ``times`` as far away; ``trained`` replaces the training
    rows' accuracy in evaluation mode."""
    pool, accuracy = np.array(run["pool_loss"]), np.array(run["pool_accuracy"])
    lowest = int(np.argmin(pool))
    end, known, probe = pool[-1], accuracy[-1], run["probe_accuracy"][-1]
    if "final_pool_loss" in run:
        end, known = run["final_pool_loss"][0], run["final_pool_accuracy"][0]
        probe = run["final_probe_accuracy"][0]
    trained = probe if trained is None else trained
    rose = end - pool[lowest] > times * max(0.05 * pool[lowest], 0.02)
    gap, metrics = trained - known > times * 0.10, run["draw"]["metrics"]
    if metrics == "none":
        return bool(rose)
    if metrics == "only":
        return bool(gap)
    if not rose:
        return bool(gap and trained >= right)
    back = (end - pool[lowest]) / max(1e-9, pool[0] - pool[lowest])
    return bool(accuracy[lowest] - known > times * 0.01 or gap or back > min(0.9, times * 0.5))


def is_clear(run: Mapping[str, Any]) -> bool:
    """Whether the answer does not hang on where the lines are drawn."""
    logged = overfits(run, trained=run["train_accuracy"][-1])
    return overfits(run, 0.6, 0.90) == overfits(run, 1.6, 0.98) == overfits(run) == logged


def log_of(run: Mapping[str, Any]) -> Curves:
    """The log as the stranger's program wrote it, read as ``diagnose`` reads it."""
    names = SHOWN[run["draw"]["metrics"]]
    rows = [
        {"epoch": i + 1} | {COLUMNS[name]: run[name][i] for name in names}
        for i in range(len(run["valid_loss"]))
    ]
    return choose_curves(from_rows(rows, "csv", "a small run"), {}, "a small run")


def judged(runs: list[tuple[str, Mapping[str, Any]]]) -> tuple[np.ndarray, np.ndarray]:
    """The verdicts, and what the simple rule says."""
    from holdfast.monitor.curves.shape import costs, running_median, window_for

    said, simple = [], []
    for _, run in runs:
        log = log_of(run)
        label = judge_curves(log).label
        said.append(label in OVERFIT)
        assert log.valid is not None
        cost = costs(Series("v", log.valid.positions, log.valid.values, log.valid.higher_is_better))
        smooth = running_median(cost, window_for(len(cost)))
        simple.append(bool(smooth[-1] > 1.05 * smooth.min()))
    return np.array(said), np.array(simple)


def judgements(lines: Lines) -> list[Line]:
    """The lines with the truth, the verdict and the answer of the simple rule."""
    said, simple = judged([(line["family"], line) for line in lines])
    return [
        {**line, "truth": overfits(line), "clear": is_clear(line), "said": s, "simple": r}
        for line, s, r in zip(lines, said.tolist(), simple.tolist(), strict=True)
    ]


def found(lines: Lines, rule: str, truth: bool) -> tuple[int, int]:
    """How many of the overfit (or of the others) the rule calls overfit."""
    some = pick(lines, truth=truth)
    return sum(bool(line[rule]) for line in some), len(some)


def finding(lines: Lines) -> str:
    lines = judgements(lines)
    return (
        f"Of training logs of small networks that truly overfit, `diagnose` calls "
        f"{share(*found(lines, 'said', True), long=True)} overfit, and of the others falsely "
        f"{share(*found(lines, 'said', False), long=True)}."
    )


def by_family(lines: Lines) -> str:
    lines, rows = judgements(lines), []
    groups = {"all": lines, "all, clear cases": pick(lines, clear=True)}
    groups |= {name: pick(lines, family=name) for name in FAMILIES}
    for name, some in groups.items():
        truth = np.array([line["truth"] for line in some])
        for rule, label in (("said", "diagnose"), ("simple", "simple rule")):
            if label == "diagnose" or name.startswith("all"):
                f1 = macro_f1(truth, np.array([line[rule] for line in some]))
                shares = [share(*found(some, rule, value)) for value in (True, False)]
                rows.append([name, label, str(len(some)), *shares, f"{f1:.3f}"])
    head = ["Logs", "Rule", "Runs", "Overfit found, %", "Others called overfit, %", "Macro-F1"]
    return markdown(head, rows)


CLAIM = Claim(
    NAME,
    "Verdicts",
    "Training logs of small networks",
    """\
Small networks trained on real texts, or on labels of random networks. Kinds of logs: "plain"; the
lowest loss comes early; noisy (few validation rows); learning rate restarts; resumed runs; metrics
only, without losses. Thresholds were chosen on other seeds. The truth is measured on thousands of
rows that no run saw (`verdict_parts/foreign.py` states the rules). A case is clear where the truth
stays the same if the limits of these rules are moved. The simple rule calls a log overfit if the
running median of the validation loss ends more than 5 % above its lowest value.""",
    lambda: CELLS,
    finding,
    [by_family],
    "In logs with metrics only, about half of the overfit runs are missed.",
    command="python benchmarks/verdicts.py foreign",
)
