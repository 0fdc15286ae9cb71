"""Which state of a run to keep, beside its own linear probe and an early-stopped plain fine-tune.

    python benchmarks/kept_state.py --record --minutes 20   # record more runs; resumable
    python benchmarks/kept_state.py                         # compare the rules on what is recorded

A recording is one run that begins as a fitted linear probe (step 0) and is never stopped, on one
of seven sets of different kinds, with 60 to 400 labelled rows (82 % training, 18 % validation). At
each look it holds the logits of the validation rows and of 300 to 600 test rows that the run never
sees; the same for averages of the weights (of the looks within two of each; half way from the probe
to the last), and for ``transformers.Trainer`` with early stopping on the same rows (20 epochs,
batches of 16, patience 3, the lowest validation loss restored). Recipes: the default; ``long``, 30
epochs at 3e-4 without contrast; ``layer`` and ``layer-hot``, a residual layer over frozen features,
20 epochs at 1e-3 and 60 at 3e-3; ``plain``, what recordings.py overfits on purpose.

Test rows choose nothing in a run. The rules are compared on one course of one run; the constant of
a rule is chosen on all sets but one (least mean test loss, each set counting the same) and measured
on the one left out. The test loss is that after the best temperature of the test rows; with 95 %
intervals over runs.

What was taken from it: worse than the lowest is p < 0.2 for every run; averages of looks add
nothing to that; and a plan that learns more than the default recipe must prove a later state better
than its probe at p < 0.1, by losses or by answers, the one rule whose runs are above their probes
beyond chance. The default recipe need not: there validation rows too few to tell would have kept
probes that are points worse on the test rows. So there the probe is kept only where each later
state is worse than it at p < 0.02: with other validation rows, drawn from the test rows, that gains
where luck would have kept the probe, and loses nothing that can be told from nothing where (ten
intents) the probe is as good as the run. 0.05 does the same but for one set; never keeping it is no
better, and would keep a run that went wrong.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import NOT_RUN, RESULTS, grid, key, machine, publish, run_cells, stored
from peers.arms import write_recipe
from peers.process import commit, run_process
from peers.rows import Parts, labelled_counts
from peers.sets import PLAIN, TEST_ROWS, parts_of
from peers.sets import SEVEN as SETS
from peers.tables import gap, markdown, points, spread
from recorded import kept_rules
from recorded.from_probe import COURSES, job_of
from recorded.store import folder as recordings

NAME = "kept_state"
SIZES = (100, 60, 200, 400)
RECIPES: dict[str, list[str]] = {
    "default": [],
    # The default as it is since train.head=both: fewer test rows, and no averages.
    "default-both": [],
    # Fine-tuning from the probe alone, long enough to overfit, as a user might set it.
    "long": ["methods.contrast=false", "train.epochs=30", "train.learning_rate=3e-4"],
}
# A long run has 30 looks: fewer test rows each, and no averages around a look.
LONG_TESTED = 300
FEWER = ("long", "default-both")
# The other sets and sizes stand in small_data.py.
TRAINER_SIZES = (100, 400)
STOPPING = {"epochs": 20, "batch_size": 16, "patience": 3}


def cells(seeds: int, recipes: Sequence[str]) -> list[dict[str, Any]]:
    """By seed, then size, so that what is there is always balanced over the sets."""
    return grid(recipe=recipes, seed=range(seeds), rows=SIZES, data=SETS)


def path_of(cell: Mapping[str, Any]) -> Path:
    name = "-".join(str(cell[key]) for key in ("recipe", "data", "rows", "seed"))
    return recordings().parent / NAME / f"{name}.npz"


def run_one(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Record one cell in a process of its own."""
    tested = LONG_TESTED if cell["recipe"] in FEWER else TEST_ROWS
    parts = parts_of(cell["data"], labelled_counts(cell["rows"]), cell["seed"], tested)
    if cell["recipe"] in COURSES:
        return {**record_layer(cell, parts), "commit": commit()}
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        place = Path(name)
        write_recipe(parts, place, cell["seed"])
        rows = {
            side: {"texts": part.texts, "labels": part.labels}
            for side, part in parts.named().items()
        }
        settings = ["control.policy=off", *RECIPES[cell["recipe"]]]
        trains = cell["recipe"] == "default" and cell["rows"] in TRAINER_SIZES
        trains = trains and cell["data"] not in PLAIN
        job = {
            "settings": settings,
            "seed": cell["seed"],
            "classes": parts.classes,
            "rows": rows,
            "trainer": trains,
            "averages": cell["recipe"] == "default",
            "to": str(path_of(cell)),
        }
        (place / "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, str(Path(__file__).resolve()), "--child", str(place)]
        ended = run_process(command, place, 1)
        told = json.loads((place / "answer.json").read_text(encoding="utf-8"))
    print(f"  {ended.command_s:.0f} s {told}", flush=True)
    return {**told, "command_s": ended.command_s, "commit": commit()}


def child(place: Path) -> None:
    """One recording: ``job["to"]`` gets the arrays, ``answer.json`` the times."""
    job = json.loads((place / "job.json").read_text(encoding="utf-8"))
    found, told = record(job, place)
    if job["trainer"]:
        start = time.perf_counter()
        found |= fine_tuned(job, place)
        told["trainer_s"] = round(time.perf_counter() - start, 1)
    write(Path(job["to"]), found)
    (place / "answer.json").write_text(json.dumps(told), encoding="utf-8")


def write(target: Path, found: Mapping[str, Any]) -> None:
    """Keep a recording, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(".tmp.npz")
    np.savez_compressed(scratch, **found)
    scratch.rename(target)


class Held:
    """A listener: test logits, and a copy of the weights, at each look."""

    name = "held"

    def __init__(self, tested: Any, averages: bool = True) -> None:
        self.tested = tested
        self.averages = averages
        self.run: Any = None
        self.states: list[dict[str, Any]] = []
        self.logits: list[Any] = []

    def snapshot_taken(self, run: Any) -> None:
        self.run = run
        if not self.averages:
            # The first and the last are enough for half way between them.
            self.states = self.states[:1]
        self.states.append(run.learning_tensors())
        self.logits.append(self.test(run))

    def test(self, run: Any) -> Any:
        rows = np.arange(len(self.tested))
        return run.observer.measure(run.network, self.tested, rows)[1].astype(np.float32)

    def measured(self, tensors: Mapping[str, Any]) -> tuple[Any, Any]:
        """Validation and test logits of a state."""
        run, valid = self.run, self.run.job.valid
        run.load_tensors(tensors)
        seen = run.observer.measure(run.network, valid, np.arange(len(valid)))[1]
        return seen.astype(np.float32), self.test(run)


def record(job: Mapping[str, Any], place: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run of MiniLM."""
    from holdfast.pipeline.compose import make_accelerator, make_job, make_ready
    from holdfast.pipeline.prepared import prepare_divided
    from holdfast.pipeline.rows import load_and_divide
    from holdfast.recipe import override, read_recipe

    recipe = override(read_recipe(place / "recipe.yaml"), job["settings"])
    splits = load_and_divide(recipe).splits
    ready = make_ready(*prepare_divided(recipe, splits))
    tested = ready.kind.encode(splits.test.open(), ready.loaded, ready.recipe)
    held = Held(tested, averages=job["averages"])
    work, _ = make_job(ready, make_accelerator(ready.recipe.train.precision), listeners=[held])
    return recorded(work, held)


def record_layer(cell: Mapping[str, Any], parts: Parts) -> dict[str, Any]:
    """The same of a small layer over frozen features, which takes a second."""
    import torch

    torch.set_num_threads(1)
    held = Held(None)
    found, told = recorded(job_of(cell, parts, held), held)
    write(path_of(cell), found)
    return told


def recorded(work: Any, held: Held) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a run and of the averages of its states, and its times."""
    from holdfast.training.loop import fit

    start = time.perf_counter()
    fitted = fit(work)
    fit_s = time.perf_counter() - start
    history, count = fitted.history, len(held.states) if held.averages else 0
    found = {
        "steps": np.array([s.step for s in history]),
        "contrast": np.array([s.phase == "contrast" for s in history]),
        "train_losses": np.stack([s.train_losses for s in history]).astype(np.float32),
        "temperatures": np.array([s.temperature for s in history]),
        "valid_logits": np.stack([np.asarray(s.valid_logits) for s in history]),
        "test_logits": np.stack(held.logits),
        "train_labels": work.train.labels,
        "valid_labels": work.valid.labels,
        "test_labels": held.tested.labels,
    }
    for name, states in {
        "around": [mean(held.states[max(1, k - 2) : k + 3]) for k in range(1, count)],
        "half": [mean([held.states[0], held.states[-1]])],
    }.items():
        if not states:
            continue
        pairs = [held.measured(state) for state in states]
        found[f"{name}_valid"] = np.stack([valid for valid, _ in pairs])
        found[f"{name}_test"] = np.stack([test for _, test in pairs])
    told = {
        "looks": len(history),
        "last_step": int(history[-1].step),
        "fit_s": round(fit_s, 1),
        "train_s": round(fitted.train_s, 1),
        "all_s": round(time.perf_counter() - start, 1),
    }
    return found, told


def mean(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The average of some states, tensor by tensor."""
    return {name: sum(s[name] for s in states) / len(states) for name in states[0]}


def fine_tuned(job: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """Trainer with early stopping: logits of its validation and test rows."""
    from peers import trainer_arm

    from holdfast.models.embedded import embedded_folder
    from holdfast.models.onednn import use_onednn

    told = {
        "model": str(embedded_folder()),
        "seed": job["seed"],
        "classes": job["classes"],
        "rows": job["rows"],
        "settings": STOPPING,
    }
    (place / "job.json").write_text(json.dumps(told), encoding="utf-8")
    trainer, test = trainer_arm.build(told, place)
    use_onednn(trainer.model)  # The same numbers in less time.
    trainer.train()
    seen = trainer.predict(trainer.eval_dataset)
    answers = trainer.predict(test)
    return {
        "trainer_valid": seen.predictions,
        "trainer_test": answers.predictions,
        "trainer_valid_labels": seen.label_ids,
        "trainer_test_labels": answers.label_ids,
        "trainer_epochs": np.array(trainer.state.epoch),
    }


def report(recipes: Sequence[str], path: Path) -> str:
    """The tables of what is recorded."""
    told = stored(path)
    done = [cell for cell in cells(9, recipes) if path_of(cell).exists() and key(cell) in told]
    runs = [kept_rules.read(path_of(cell), cell) for cell in done]
    runs += kept_rules.read_plain()
    recipes = [*recipes, "plain"]
    parts = ["## The state that is kept", (__doc__ or "").partition("\n\n")[2].strip()]
    for recipe in recipes:
        of = [run for run in runs if run.cell["recipe"] == recipe]
        if of:
            parts += [f"Recipe `{recipe}`, {len(of)} runs ({counted(of)}):", table(of), by_set(of)]
    others = [name for name in recipes if name != "default"]
    for names in (["default"], others, list(COURSES)):
        of = [run for run in runs if run.cell["recipe"] in names]
        if of:
            several = [f"Recipes {', '.join(names)} together:", table(of)] if len(names) > 1 else []
            told_of = f"Each set left out in turn, recipes {', '.join(names)}:"
            parts += [*several, told_of, chosen_table(of)]
    parts += [REDRAWN, redrawn_table([c for c in done if c["recipe"] in ("default", FEWER[1])])]
    found = [told[key(cell)] for cell in done]
    seconds = sum(float(record.get("command_s", record["all_s"])) for record in found)
    commits = ", ".join(dict.fromkeys(str(record["commit"]) for record in found))
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    parts.append(
        f"`python benchmarks/kept_state.py`: {len(done)} recordings, {seconds / 60:.0f} "
        f"minutes of one core. Machine: {facts}. Commits: {commits}."
    )
    return "\n\n".join(parts)


def counted(runs: Sequence[Any]) -> str:
    sizes = Counter(run.cell["rows"] for run in runs)
    return ", ".join(f"{count} of {size} labelled rows" for size, count in sorted(sizes.items()))


def table(runs: Sequence[Any]) -> str:
    """Every rule whose constant was fixed beforehand."""
    lines = [
        line(name, runs, [rule] * len(runs))
        for name, rule in kept_rules.FIXED.items()
        if kept_rules.has_states(runs, name)
    ]
    return markdown(HEAD, lines)


REDRAWN = (
    f"The default recipe, each run {kept_rules.DRAWS} times with other validation rows, as many, "
    "drawn from its test rows: against `newest unless worse, p < 0.2`, points and nats over all "
    "sets, each counting the same, by the level at which the probe is still kept. Chosen without a "
    "set means the least test loss over the others, the larger level where it ties."
)


def redrawn_table(done: Sequence[Mapping[str, Any]]) -> str:
    """What the level at which a probe is kept is worth, by set and with each set left out."""
    rules = {f"{q:g}": kept_rules.newest(0.2, lost=q) for q in kept_rules.LOST}
    before, sets = kept_rules.newest(0.2), dict.fromkeys(cell["data"] for cell in done)
    gains: dict[str, dict[str, list[list[float]]]] = {
        name: {data: [] for data in sets} for name in rules
    }
    for cell in done:
        runs = kept_rules.redrawn(path_of(cell), cell)
        for name, rule in rules.items():
            gains[name][cell["data"]].append(
                [
                    float(
                        np.mean(
                            [
                                kept_rules.figure(run, rule, what)
                                - kept_rules.figure(run, before, what)
                                for run in runs
                            ]
                        )
                    )
                    for what in ("accuracy", "refined")
                ]
            )
    means = {
        name: {data: np.mean(of, axis=0) for data, of in by.items()} for name, by in gains.items()
    }
    lines = []
    for name in rules:
        over = np.mean([means[name][data] for data in sets], axis=0)
        cells = [f"{100 * a:+.2f} ({b:+.4f})" for a, b in (means[name][data] for data in sets)]
        lines.append([name, f"{100 * over[0]:+.3f} ({over[1]:+.5f})", *cells])
    chosen = []
    for out in sets:
        rest = [data for data in sets if data != out]
        loss = {name: round(sum(means[name][d][1] for d in rest), 9) for name in rules}
        chosen.append(min(rules, key=lambda name: loss[name]))
    lines.append(["chosen without the set", "", *chosen])
    runs = [f"{data}, {sum(cell['data'] == data for cell in done)} runs" for data in sets]
    return markdown(["Level", "All sets", *runs], lines)


HEAD = [
    "Rule",
    "Test accuracy, %",
    "Test loss",
    "Points over the probe",
    "Points over Trainer",
    "Points over the rule until now",
    "Nats over it",
]


def line(name: str, runs: Sequence[Any], rules: Sequence[Any]) -> list[str]:
    """The means of a rule (one a run), and its paired differences."""

    def all_of(what: str, other: Any = None) -> list[float]:
        pairs = zip(runs, rules, strict=True)
        return [kept_rules.figure(run, other or rule, what) for run, rule in pairs]

    today = kept_rules.FIXED[kept_rules.TODAY]
    right, nats = all_of("accuracy"), all_of("refined")
    pairs = zip(right, runs, strict=True)
    beside = [(one, run.trainer) for one, run in pairs if run.trainer is not None]
    loss = gap(nats, all_of("refined", today), name)
    over = points(gap(right, all_of("accuracy", kept_rules.probe), name))
    trainer = NOT_RUN
    if beside:
        found = gap([one for one, _ in beside], [other for _, other in beside], name)
        trainer = f"{points(found)}, {len(beside)} runs"
    return [
        name,
        f"{100 * np.mean(right):.2f}",
        f"{np.mean(nats):.4f}",
        over,
        trainer,
        points(gap(right, all_of("accuracy", today), name)),
        f"{loss.value:+.4f} ({loss.low:+.4f} to {loss.high:+.4f})",
    ]


def by_set(runs: Sequence[Any]) -> str:
    names = [*list(kept_rules.FIXED)[:3], kept_rules.TODAY, kept_rules.NEW, kept_rules.PROVEN]
    names = [name for name in names if kept_rules.has_states(runs, name)]
    lines = []
    for data in dict.fromkeys(run.cell["data"] for run in runs):
        of = [run for run in runs if run.cell["data"] == data]
        shown = []
        for name in names:
            rule = kept_rules.FIXED[name]
            shown.append(spread([100 * kept_rules.figure(run, rule, "accuracy") for run in of]))
        peers = [100 * run.trainer for run in of if run.trainer is not None]
        lines.append([data, str(len(of)), *shown, spread(peers) if peers else NOT_RUN])
    return markdown(["Set", "Runs", *names, "Trainer"], lines)


def chosen_table(runs: Sequence[Any]) -> str:
    """Each class of rules, its constant chosen on the other sets."""
    lines = []
    for name, rules in kept_rules.CLASSES.items():
        if not kept_rules.has_states(runs, name):
            continue
        chosen, own = kept_rules.left_out(runs, rules)
        found = ", ".join(f"{data} {value}" for data, value in chosen.items())
        lines.append([*line(name, runs, own), found])
    return markdown([*HEAD, "Chosen without the set"], lines)


def main(words: Sequence[str]) -> None:
    import argparse

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="record runs that are not there")
    parser.add_argument("--recipe", action="append", choices=[*RECIPES, *COURSES])
    parser.add_argument("--set", action="append", choices=SETS, help="these sets alone")
    parser.add_argument("--rows", action="append", type=int, choices=SIZES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="start no new run after this time")
    parser.add_argument("--child", type=Path, help="(one run, started by this script)")
    chosen = parser.parse_args(words)
    if chosen.child:
        child(chosen.child)
        return
    todo = cells(chosen.seeds, chosen.recipe or ["default"])
    todo = [cell for cell in todo if cell["data"] in (chosen.set or SETS)]
    todo = [cell for cell in todo if cell["rows"] in (chosen.rows or SIZES)]
    path = RESULTS / f"{NAME}.jsonl"
    if chosen.record:
        run_cells(NAME, todo, run_one, path, minutes=chosen.minutes)
        return
    text = report(chosen.recipe or [*RECIPES, *COURSES], path)
    print(text)
    publish(NAME, text)


if __name__ == "__main__":
    main(sys.argv[1:])
