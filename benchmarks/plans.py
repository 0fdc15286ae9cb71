"""What a plan for few rows should be (epochs, rate, contrast), and which checkpoint to keep.

    python benchmarks/plans.py [--encoder minilm|strong] [--minutes M] [--jobs J]
    python benchmarks/plans.py --tables

100 labelled rows of sets of ``peers/sets.py``, one thread, no run is stopped. **minilm** learns
from all of them, and its last state is scored on 400 test rows. **strong** (all-mpnet-base-v2)
learns from 82 %; each evaluation is scored on 200 test rows beside the validation rows, so that
rules which keep a checkpoint can be compared on the same runs afterwards: no rule sees a test row.
Each table gives the mean of the plan that is best on the other sets, too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cells import RESULTS, Cell, grid, publish, run_cells, stored
from peers.arms import write_recipe
from peers.process import commit
from peers.rows import labelled_counts
from peers.sets import SETS, parts_of
from peers.strong import strong_folder
from peers.tables import gap, markdown, points

NAME = "plans"
ROWS = 100
MINILM, STRONG = "minilm", "strong"
TESTED = {MINILM: 400, STRONG: 200}
SEEDS = {MINILM: 2, STRONG: 1}
CONTRAST = "contrast, {} steps at {:g}"


def _contrast(steps: int, rate: float) -> dict[str, dict[str, Any]]:
    settings = {"methods.contrast.steps": steps, "methods.contrast.learning_rate": rate}
    return {CONTRAST.format(steps, rate): settings}


def _epochs(epochs: int, rate: float) -> dict[str, dict[str, Any]]:
    settings = {"methods.contrast": False, "train.epochs": epochs, "train.learning_rate": rate}
    return {f"{epochs} epochs at {rate:g}": settings}


# The first of each encoder is what the others are compared with.
PLANS: dict[str, dict[str, dict[str, Any]]] = {
    MINILM: {
        **_contrast(75, 5e-5),
        **_contrast(40, 5e-5),
        **_contrast(40, 1e-4),
        **_contrast(25, 1e-4),
        **_contrast(25, 2e-4),
    },
    STRONG: {
        **_epochs(12, 3e-5),
        **_epochs(6, 6e-5),
        **_epochs(12, 6e-5),
        **_contrast(40, 3e-5),
        **_contrast(40, 6e-5),
    },
}


class Course:
    """Scores the states of a run on the test rows: all, or the last one."""

    name, place = "course", "tell"

    def __init__(self, test: Any, labels: Any, every: bool) -> None:
        self._test, self._labels, self._every = test, labels, every
        self.states: list[dict[str, Any]] = []

    def snapshot_taken(self, run: Any) -> None:
        taken = run.last_snapshot
        if not self._every and taken.step < run.plan.evaluate_at[-1]:
            return
        _, logits = run.observer.measure(run.network, self._test, np.arange(len(self._test)))
        state = {"step": taken.step, "accuracy": _share(logits, self._test.labels)}
        if self._every:
            rounded = np.round(np.asarray(taken.valid_logits, dtype=float), 5).tolist()
            state |= {"logits": rounded, "labels": np.asarray(self._labels).tolist()}
        self.states.append(state)


def _share(logits: Any, labels: Any) -> float:
    return round(float((logits.argmax(axis=1) == labels).mean()), 6)


def run_one(cell: Cell) -> dict[str, Any]:
    from holdfast.fits.compose import make_training_plan
    from holdfast.fits.fit import make_job
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe
    from holdfast.tasks.classes.encoding import encode
    from holdfast.training.loop import fit
    from holdfast.training.machine.machine import make_accelerator
    from holdfast.training.task import labels_of

    encoder, strong = cell["encoder"], cell["encoder"] == STRONG
    settings = {"control.policy": "off", **PLANS[encoder][cell["plan"]]}
    settings |= {"model.name": str(strong_folder())} if strong else {}
    rows = labelled_counts(ROWS)
    parts = parts_of(cell["data"], rows, cell["seed"], TESTED[encoder])
    with tempfile.TemporaryDirectory() as place:
        recipe = read_recipe(write_recipe(parts, Path(place), cell["seed"]))
        recipe = override(recipe, [f"{key}={value}" for key, value in settings.items()])
        splits = load_and_divide(recipe).splits
        prepared, train, valid = prepare_divided(recipe, splits)
        everything = np.union1d(train, valid)
        plan = (
            make_training_plan(prepared, train, valid)
            if strong
            else make_training_plan(prepared, everything, everything, cross_fitted=True)
        )
        loaded = prepared.loaded
        assert loaded.max_length is not None
        test = encode(splits.test.open(), loaded.tokenizer, loaded.max_length)
        course: Any = Course(test, labels_of(plan.valid), every=strong)
        accelerator = make_accelerator(str(plan.recipe.train.precision))
        job, _ = make_job(plan, accelerator, listeners=[course])
        start = time.process_time()
        fit(job)
        seconds = time.process_time() - start
    last = {"accuracy": course.states[-1]["accuracy"], "seconds": round(seconds, 1)}
    return {**last, **({"course": course.states} if strong else {}), "commit": commit()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--encoder", choices=[MINILM, STRONG], default=MINILM)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if not given.tables:
        one = given.encoder
        todo = grid(
            encoder=[one], seed=range(SEEDS[one]), rows=(ROWS,), data=SETS, plan=list(PLANS[one])
        )
        run_cells(NAME, todo, run_one, minutes=given.minutes, jobs=given.jobs)
    publish(NAME, report())


def report() -> str:
    done = stored(RESULTS / f"{NAME}.jsonl")
    records = [{**json.loads(key), **result} for key, result in done.items()]
    shown = ["## Plans for few rows"]
    for encoder in PLANS:
        of = [one for one in records if one["encoder"] == encoder]
        if of:
            shown.append(f"{encoder}, {ROWS} labelled rows:\n\n{plans_table(of, encoder)}")
    kept = rules_table([one for one in records if "course" in one])
    return "\n\n".join([*shown, kept] if kept else shown)


def plans_table(records: Sequence[Mapping[str, Any]], encoder: str) -> str:
    """Each plan against the first, on the cells that both have; and left out by set, the plan that
    is best on the other sets."""
    scores = _by_name(records, "plan", lambda one: float(one["accuracy"]))
    first = next(iter(PLANS[encoder]))
    seconds = _by_name(records, "plan", lambda one: float(one["seconds"]))
    lines = [
        [name, *_against(scores[name], scores[first]), f"{_mean(seconds[name]):.0f}"]
        for name in PLANS[encoder]
        if name in scores
    ]
    head = ["Plan", "Cells", "Accuracy, %", "minus the first, on the same cells", "Processor s"]
    return markdown(head, lines)


def rules_table(records: Sequence[Mapping[str, Any]]) -> str | None:
    """The test accuracy of the checkpoint that each rule keeps of the same courses."""
    if not records:
        return None
    rules = checkpoint_rules()
    kept: dict[str, dict[Any, float]] = {name: {} for name in rules}
    for one in records:
        history = [snapshot_of(state) for state in one["course"]]
        for name, rule in rules.items():
            place = rule(history)
            kept[name][one["data"], one["seed"], one["plan"]] = one["course"][place]["accuracy"]
    first = next(iter(rules))
    lines = [[name, *_against(of, kept[first])] for name, of in kept.items()]
    head = ["Checkpoint kept", "Runs", "Accuracy, %", "minus the first"]
    return f"Which checkpoint, on the strong encoder's runs:\n\n{markdown(head, lines)}"


def snapshot_of(state: Mapping[str, Any]) -> Any:
    """What the rules read of a snapshot."""
    from holdfast.stats.temperature import best_temperature

    logits, labels = np.array(state["logits"]), np.array(state["labels"])
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    temperature, refined = best_temperature(logits, labels)[:2]
    return SimpleNamespace(
        step=state["step"],
        valid_logits=logits,
        valid_losses=losses,
        valid_correct=logits.argmax(axis=1) == labels,
        temperature=temperature,
        refined_loss=float(refined),
    )


def checkpoint_rules() -> dict[str, Callable[[Any], int]]:
    from functools import partial

    from holdfast.control.choice import last, lowest_calibrated, newest_unless_worse

    def patience(evaluations: int) -> Callable[[Any], int]:
        def rule(history: Any) -> int:
            lowest = 0
            for place in range(len(history)):
                if history[place].refined_loss < history[lowest].refined_loss:
                    lowest = place
                if place - lowest >= evaluations:
                    break
            return lowest

        return rule

    return {
        "the lowest calibrated loss": lowest_calibrated,
        "newest unless worse": newest_unless_worse,
        "the same, expecting a gain over the probe": partial(newest_unless_worse, gains=True),
        **{f"the lowest, patience {n}": patience(n) for n in (1, 2, 4, 8)},
        "the last": last,
    }


def _by_name(
    records: Sequence[Mapping[str, Any]], axis: str, value: Callable[[Mapping[str, Any]], float]
) -> dict[str, dict[Any, float]]:
    found: dict[str, dict[Any, float]] = {}
    for one in records:
        found.setdefault(one[axis], {})[one["data"], one["seed"]] = value(one)
    return found


def _against(of: Mapping[Any, float], base: Mapping[Any, float]) -> list[str]:
    """Cells, mean, and the difference to ``base`` on the cells that both have."""
    both = sorted(set(of) & set(base))
    difference = gap([of[k] for k in both], [base[k] for k in both], "plans")
    return [str(len(of)), f"{100 * _mean(of):.1f}", "" if of is base else points(difference)]


def _mean(of: Mapping[Any, float]) -> float:
    return float(np.mean(list(of.values())))


if __name__ == "__main__":
    main()
