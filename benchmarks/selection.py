"""Which criterion picks the best state: refined loss, raw loss, accuracy, or the last state?

    python benchmarks/selection.py                  # 10 seeds of three sets at 100 labelled rows
    python benchmarks/selection.py --minutes 60     # start no new cell after an hour
    python benchmarks/selection.py --every          # test every state: shows the best possible pick
    python benchmarks/selection.py --quick          # a smoke test, nothing is kept

Holdfast's own loop with its default recipe, but never stopped early, so that no criterion decides
how long a run is. At each snapshot every criterion keeps its best state, as the loop does; after
the run each different state is scored on the same 1,000 test rows. So the criteria are compared
on the same course of the same run. The course itself (all validation figures, and with ``--every``
the test accuracy) stands in ``results/selection.rows.jsonl``.

Test rows choose nothing in a run here; but the default that follows from this table was chosen on
these sets, so ``small_data.py``, which uses the same pool, is not blind to it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cells import Cell, Result, grid, run_cells
from claims import Claim, Lines, Metric, average, comparison, melt, paired, runs, table
from peers.arms import write_recipe
from peers.kept import keep
from peers.process import commit, run_process
from peers.rows import SETS, Parts, clean_set, draw, labelled_counts
from peers.script import options, results_path

NAME = "selection"
SEEDS = 10
ROWS = 100
TEST_ROWS = 1000
# As ``train.metric`` names them, and two that it does not know.
CRITERIA = ("refined_loss", "loss", "accuracy")
TEMPERED, LAST = "refined_loss, moderate temperature", "last state"
DEFAULT = "newest unless worse"
RULES = (DEFAULT, *CRITERIA, TEMPERED, LAST)
BEST = "best possible"

Rule = Callable[[Any], float]


class Watcher:
    """Keeps the best state by each rule, and with ``measure`` tests every state on the way."""

    name = "watcher"

    def __init__(self, rules: Mapping[str, Rule], measure: Callable[[Any], float] | None) -> None:
        self._rules = rules
        self._measure = measure
        self.run: Any = None
        self.best: dict[str, tuple[float, int]] = {}
        self.states: dict[int, dict[str, Any]] = {}
        self.course: list[dict[str, Any]] = []

    def snapshot_taken(self, run: Any) -> None:
        self.run, snapshot = run, run.history[-1]
        for name, rule in self._rules.items():
            value = rule(snapshot)
            value = value if math.isfinite(value) else math.inf
            if name not in self.best or value < self.best[name][0]:
                self.best[name] = value, run.step
        self._hold(run)
        self.course.append(
            {
                "step": run.step,
                "phase": snapshot.phase,
                "loss": snapshot.valid_loss,
                "refined_loss": snapshot.refined_loss,
                "temperature": snapshot.temperature,
                "accuracy": snapshot.valid_metrics["accuracy"],
                "train_loss": float(snapshot.train_losses.mean()),
                "test_accuracy": self._measure(run) if self._measure else None,
            }
        )

    def _hold(self, run: Any) -> None:
        """Copies of the states that are the best by some rule now, and of no others."""
        wanted = {step for _, step in self.best.values()}
        self.states = {step: held for step, held in self.states.items() if step in wanted}
        if run.step in wanted:
            self.states[run.step] = run.copy_tensors()


def child(folder: Path, every: bool) -> None:
    """One run, in a process of its own: ``answer.json`` gets the picks and the course."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.fits.fit import make_job
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe
    from holdfast.training.loop import fit
    from holdfast.training.machine.machine import make_accelerator

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    recipe = override(read_recipe(folder / "recipe.yaml"), job["settings"])
    splits = load_and_divide(recipe).splits
    ready = make_training_plan(*prepare_divided(recipe, splits))
    counts = {"train": len(splits.train), "valid": len(splits.valid), "test": len(splits.test)}
    measure = tester(ready, splits.test.open())
    watcher = Watcher(rules(ready), measure if every else None)
    accelerator = make_accelerator(str(ready.recipe.train.precision))
    work, _ = make_job(ready, accelerator, listeners=[watcher])
    start = time.perf_counter()
    fitted = fit(work)
    answer = {
        "counts": counts,
        "picks": picks(watcher, measure),
        "course": watcher.course,
        "figures": {
            "default": ready.recipe.train.metric,
            "last_step": fitted.last_step,
            "loop_s": round(time.perf_counter() - start, 2),
        },
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def rules(ready: Any) -> dict[str, Rule]:
    """The loop's own criteria by ``train.metric``, and two that it does not offer."""
    from holdfast.fits.policies import criterion
    from holdfast.metrics import find_metric
    from holdfast.stats.temperature import best_temperature

    def own(name: str) -> Rule:
        metric = find_metric(name) if name == "accuracy" else None
        recipe = ready.recipe.with_changes(train={"metric": name})
        return criterion(replace(ready, recipe=recipe, metric=metric))

    def tempered(snapshot: Any) -> float:
        loss = best_temperature(snapshot.valid_logits, ready.valid.labels, smoothing=1)[1]
        return float(loss)

    named = {name: own(name) for name in CRITERIA}
    return {
        DEFAULT: newest_rule(),
        **named,
        TEMPERED: tempered,
        LAST: lambda snapshot: -snapshot.step,
    }


def newest_rule() -> Rule:
    """The loop's default, ``train.keep=newest_unless_worse``, as a number that falls whenever the
    newest state is kept."""
    from holdfast.control.choice import newest_unless_worse

    seen: list[Any] = []

    def rule(snapshot: Any) -> float:
        seen.append(snapshot)
        kept = newest_unless_worse(seen) == len(seen) - 1
        return -float(snapshot.step) if kept else math.inf

    return rule


def tester(ready: Any, table: Any) -> Callable[[Any], float]:
    """The accuracy of a run's present state on the test rows."""
    import numpy as np

    from holdfast.tasks.classes.encoding import encode

    rows = encode(table, ready.loaded.tokenizer, ready.loaded.max_length)

    def measure(run: Any) -> float:
        _, logits = run.observer.measure(run.network, rows, np.arange(len(rows)))
        return float((logits.argmax(axis=1) == rows.labels).mean())

    return measure


def picks(watcher: Watcher, measure: Callable[[Any], float]) -> dict[str, dict[str, float]]:
    """The step and the test accuracy of each rule's state; equal states are tested once."""
    accuracy: dict[int, float] = {}
    for step, tensors in watcher.states.items():
        watcher.run.load_tensors(tensors)
        accuracy[step] = measure(watcher.run)
    return {
        name: {"step": step, "accuracy": accuracy[step]} for name, (_, step) in watcher.best.items()
    }


def parts_of(cell: Cell, quick: bool) -> Parts:
    rows, counts = clean_set(cell["data"]), labelled_counts(cell["rows"])
    return draw(rows, seed=cell["seed"], **counts, test=slice(0, 40 if quick else TEST_ROWS))


def runner(path: Path, threads: int, quick: bool, every: bool) -> Callable[[Cell], Result]:
    def run_one(cell: Cell) -> Result:
        load = os.getloadavg()[0]
        parts = parts_of(cell, quick)
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
            answer, ended = _run_child(Path(name), parts, cell["seed"], threads, quick, every)
        keep(path, cell, {"course": answer["course"]})
        found = {name: pick["accuracy"] for name, pick in answer["picks"].items()}
        steps = {f"step of {name}": pick["step"] for name, pick in answer["picks"].items()}
        tested = [look["test_accuracy"] for look in answer["course"]]
        best = {BEST: max(tested) if every else None}
        print(
            f"  {ended.command_s:.0f} s: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()),
            flush=True,
        )
        surroundings = {"threads": threads, "load_before": round(load, 2), "commit": commit()}
        return {**found, **best, **steps, **answer["figures"], **asdict(ended), **surroundings}

    return run_one


def _run_child(
    folder: Path, parts: Parts, seed: int, threads: int, quick: bool, every: bool
) -> tuple[dict[str, Any], Any]:
    write_recipe(parts, folder, seed)
    settings = ["control.policy=off", *(["train.max_steps=6"] if quick else [])]
    (folder / "job.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).resolve()), "--child", str(folder)]
    ended = run_process(command + (["--every"] if every else []), folder, threads)
    answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    wanted = {name: len(rows) for name, rows in parts.named().items()}
    if answer["counts"] != wanted:
        raise ValueError(f"Holdfast used {answer['counts']} rows of {wanted}")
    return answer, ended


def main(words: Sequence[str]) -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rows", type=int, default=ROWS, help="labelled rows in all")
    parser.add_argument("--every", action="store_true", help="test the state of every snapshot")
    parser.add_argument("--child", type=Path, help="(the run of one cell, started by this script)")
    chosen = parser.parse_args(words)
    if chosen.child:
        child(chosen.child, chosen.every)
        return
    name = NAME if chosen.rows == ROWS else f"{NAME}-{chosen.rows}"
    path = results_path(name, chosen.threads, chosen.quick)
    seeds = range(1 if chosen.quick else SEEDS)
    todo = grid(rows=[chosen.rows], seed=seeds, data=SETS[:1] if chosen.quick else SETS)
    run_one = runner(path, chosen.threads, chosen.quick, chosen.every)
    run_cells(name, todo, run_one, path, minutes=chosen.minutes)


def by_rule(lines: Lines) -> Lines:
    return melt(lines, RULES, "test")


def finding(lines: Lines) -> str:
    gap = paired(by_rule(lines), "test", DEFAULT, "loss")
    if not gap:
        return ""
    return (
        "With 100 labelled rows, the test accuracy of the checkpoint that the default keeps (the "
        "newest unless it is worse) minus that of the checkpoint with the lowest validation loss "
        f"is {gap.words(100, 1, ' points')}: {gap.verdict()}."
    )


CLAIM = Claim(
    NAME,
    "Accuracy",
    "The criterion for the best checkpoint",
    """\
The default recipe on 100 labelled rows of CR, MR and TREC, never stopped early. At each
evaluation every criterion keeps its best checkpoint, and after the run each is scored on the same
1,000 test rows: the criteria are compared on the same run. `refined_loss` is the calibrated loss,
that is the validation loss after temperature scaling ("moderate temperature": with a smoothed
temperature), and "last state" the last checkpoint. "Newest unless worse" is the newest checkpoint
unless an earlier one is shown to be better. The default had no folds yet.""",
    lambda: grid(rows=[ROWS], seed=range(SEEDS), data=SETS),
    finding,
    [
        lambda lines: table(
            {"arm": "Criterion"},
            {"Runs": runs, "Test accuracy, %": average("test", 100, limits=False)},
        )(by_rule(lines)),
        lambda lines: comparison(
            [(DEFAULT, name) for name in RULES if name != DEFAULT],
            {"Test accuracy, points": Metric("test", 100)},
        )(by_rule(lines)),
    ],
    "Every interval contains 0: no difference is shown. The default was chosen on these sets.",
)


if __name__ == "__main__":
    main(sys.argv[1:])
