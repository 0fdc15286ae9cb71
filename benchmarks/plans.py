"""What a plan for few rows should be (epochs, rate, contrast), and which checkpoint to keep.

    python benchmarks/plans.py [--encoder minilm|strong] [--minutes M] [--jobs J]

100 or 400 labelled rows of sets of ``peers/sets.py``, one thread, no run is stopped. **minilm**
learns from all of them, and its last state is scored on 400 test rows. **strong**
(all-mpnet-base-v2) learns from 82 %; each evaluation is scored on 200 test rows beside the
validation rows, so that rules which keep a checkpoint can be compared on the same runs afterwards:
no rule sees a test row.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from cells import Cell, grid, run_cells
from claims import (
    CHOSEN,
    Claim,
    Line,
    Lines,
    Metric,
    average,
    chosen_elsewhere,
    comparison,
    paired,
    pick,
    runs,
    table,
)
from peers.arms import write_recipe
from peers.process import commit
from peers.rows import labelled_counts
from peers.sets import SETS, parts_of
from peers.strong import strong_folder

from holdfast.core.events import Place

if TYPE_CHECKING:
    from holdfast.training.run import Run

NAME = "plans"
FEW, MORE = 100, 400
MINILM, STRONG = "minilm", "strong"
ENCODERS = {MINILM: "MiniLM", STRONG: "all-mpnet-base-v2"}
TESTED = {MINILM: 400, STRONG: 200}
SEEDS = {MINILM: 2, STRONG: 1}
CONTRAST = "contrast, {} steps at {:g}"
LOWEST = "the lowest calibrated loss"


def _contrast(steps: int, rate: float) -> dict[str, dict[str, Any]]:
    settings = {"methods.contrast.steps": steps, "methods.contrast.learning_rate": rate}
    return {CONTRAST.format(steps, rate): settings}


def _epochs(epochs: int, rate: float) -> dict[str, dict[str, Any]]:
    settings = {"methods.contrast": False, "train.epochs": epochs, "train.learning_rate": rate}
    return {f"{epochs} epochs at {rate:g}": settings}


def _both(steps: int, epochs: float, rows: int, rate: float) -> dict[str, dict[str, Any]]:
    """Contrast, then fine-tuning; ``train.epochs`` counts the rows of both."""
    ((name, settings),) = _contrast(steps, rate).items()
    settings |= {"train.epochs": steps * 32 / rows + epochs, "train.learning_rate": rate}
    return {f"{name}, then {epochs:g} epochs": settings}


# The first of each encoder and number of rows is what the others are compared with.
PLANS: dict[tuple[str, int], dict[str, dict[str, Any]]] = {
    (MINILM, FEW): {
        **_contrast(75, 5e-5),
        **_contrast(40, 5e-5),
        **_contrast(40, 1e-4),
        **_contrast(25, 1e-4),
        **_contrast(25, 2e-4),
    },
    (MINILM, MORE): {
        **_epochs(6, 1e-4),
        **_contrast(75, 1e-4),
        **_contrast(120, 1e-4),
        **_both(40, 3, MORE, 1e-4),
        **_epochs(10, 1e-4),
    },
    (STRONG, FEW): {
        **_epochs(12, 3e-5),
        **_epochs(6, 6e-5),
        **_epochs(12, 6e-5),
        **_contrast(40, 3e-5),
        **_contrast(40, 6e-5),
    },
    (STRONG, MORE): {**_epochs(4, 5e-5), **_epochs(6, 5e-5), **_both(50, 0, MORE, 6e-5)},
}


class Course:
    """Scores the states of a run on the test rows: all, or the last one."""

    name = "course"
    place: Place = "tell"

    def __init__(self, test: Any, labels: Any, every: bool) -> None:
        self._test, self._labels, self._every = test, labels, every
        self.states: list[dict[str, Any]] = []

    def snapshot_taken(self, run: Run) -> None:
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
    settings = {"control.policy": "off", **PLANS[encoder, cell["rows"]][cell["plan"]]}
    settings |= {"model.name": str(strong_folder())} if strong else {}
    parts = parts_of(cell["data"], labelled_counts(cell["rows"]), cell["seed"], TESTED[encoder])
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
    parser.add_argument("--rows", type=int, choices=[FEW, MORE], default=FEW)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--minutes", type=float)
    given = parser.parse_args()
    run_cells(
        NAME, cells(given.encoder, given.rows), run_one, minutes=given.minutes, jobs=given.jobs
    )


def cells(encoder: str, rows: int) -> list[dict[str, Any]]:
    return grid(
        encoder=[encoder],
        seed=range(SEEDS[encoder] if rows == FEW else 1),
        rows=(rows,),
        data=SETS,
        plan=list(PLANS[encoder, rows]),
    )


def with_choice(lines: Lines) -> list[Line]:
    """The lines with their start, and those of the plan that is best on the other sets: of plans
    that have three quarters of the cells of the first."""
    found: list[Line] = []
    for (encoder, rows), of in PLANS.items():
        some = pick(lines, encoder=encoder, rows=rows)
        count = {plan: len(pick(some, plan=plan)) for plan in of}
        plans = [plan for plan in of if 4 * count[plan] >= 3 * count[next(iter(of))] > 0]
        chosen = chosen_elsewhere(some, plans, arm="plan") if len(plans) > 1 else []
        found += [{**line, "start": f"{encoder}, {rows} rows"} for line in (*some, *chosen)]
    return found


def kept_lines(lines: Lines) -> list[Line]:
    """A line for each course and rule: the rule as its ``arm``, with the test accuracy of the
    checkpoint that it keeps."""
    found: list[Line] = []
    for line in lines:
        states = line.get("course")
        if not states:
            continue
        history = [snapshot_of(state) for state in states]
        for name, rule in checkpoint_rules().items():
            kept = {**line, "arm": name, "accuracy": states[rule(history)]["accuracy"]}
            found.append({**kept, "seed": f"{line['seed']}, {line['plan']}"})
    return found


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
        valid_loss=float(losses.mean()),
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
        LOWEST: lowest_calibrated,
        "newest unless worse": newest_unless_worse,
        "newest unless worse, assuming a gain over the linear probe": partial(
            newest_unless_worse, gains=True
        ),
        **{f"the lowest, patience {n}": patience(n) for n in (1, 2, 4, 8)},
        "the last": last,
    }


def finding(lines: Lines) -> str:
    parts = []
    for (encoder, rows), plans in PLANS.items():
        first, *others = plans
        of = pick(lines, encoder=encoder, rows=rows)
        gaps = {plan: paired(of, "accuracy", plan, first, arm="plan") for plan in others}
        found = {plan: one for plan, one in gaps.items() if one is not None}
        if found:
            best = max(found, key=lambda plan: found[plan].value)
            words = found[best].words(100, 1, " points")
            parts.append(
                f"with {rows} labelled rows and {ENCODERS[encoder]}, the best of "
                f"{len(found) + 1} training plans on these sets is `{best}`: its test accuracy "
                f"minus that of `{first}` is {words}"
            )
    told = "; ".join(parts)
    return f"{told[0].upper()}{told[1:]}." if parts else ""


RULES = "Rules for the best checkpoint, on the same runs of the strong encoder"
CLAIM = Claim(
    NAME,
    "Accuracy",
    "The training plan for few rows, and the checkpoint to keep",
    """\
MiniLM is trained on all labelled rows, and its last checkpoint is scored. all-mpnet-base-v2
("strong") is trained on 82 % of them, and the model is scored at every evaluation, so that rules
for the best checkpoint, which use the other 18 %, are compared on the same runs. "Contrast" is
supervised contrastive learning; the figure after "at" is the learning rate. "The best on the other
sets" is the plan with the highest mean over all sets but the one that is scored. The calibrated
loss is the validation loss after temperature scaling. No run is stopped early; each uses one
thread.""",
    lambda: [cell for encoder, rows in PLANS for cell in cells(encoder, rows)],
    finding,
    [
        table(
            {"encoder": "Encoder", "rows": "Rows", "plan": "Plan"},
            {
                "Cells": runs,
                "Accuracy, %": average("accuracy", 100, limits=False),
                "Processor s": average("seconds", 1, 0, limits=False),
            },
        ),
        lambda lines: comparison(
            [(plan, next(iter(of))) for of in PLANS.values() for plan in (*list(of)[1:], CHOSEN)],
            {"Accuracy, points": Metric("accuracy", 100)},
            "start",
            arm="plan",
        )(with_choice(lines)),
        lambda lines: comparison(
            [(name, LOWEST) for name in checkpoint_rules() if name != LOWEST],
            {"Accuracy, points": Metric("accuracy", 100)},
            "encoder",
            heading=RULES,
        )(kept_lines(lines)),
    ],
    """\
The headline names the best plan of each group on the sets that it was chosen on, so its gain is
optimistic; "the best on the other sets" is not. There are one or two seeds a set: differences of
about a point cannot be shown. The accuracies of the first table are means over different cells;
only the paired differences compare plans.""",
)


if __name__ == "__main__":
    main()
