"""What other forms of pictures are worth to a small network with random weights.

    python benchmarks/enrich_pictures.py               # CIFAR-10 and MNIST, two seeds
    python benchmarks/enrich_pictures.py --minutes 3   # start no new cell after three minutes
    python benchmarks/enrich_pictures.py --tables      # the table of what is there

1,200 training, 300 validation and 1,500 test pictures; a ResNet of 0.7 million parameters with a
rate of 1e-3, the rest by default. Two plans: ``early stopping``, up to 25 passes, and ``whole``, 20
passes in batches of 32 that nothing ends before. Arms of a seed begin with the same rows and
weights.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import HERE, Cell, grid, publish, run_cells
from enrich_texts import paired
from peers.rows import data_folder
from peers.script import options, results_path
from vs_trainer_tasks import small_resnet

NAME = "enrich_pictures"
BOOK = HERE / "methods.md"
SETS, SEEDS = ("cifar10", "mnist"), 2
SIZES = (1200, 300, 1500)
OFF, USUAL = "none", "crop, flip"
ARMS: dict[str, dict[str, Any]] = {
    OFF: {"enrich": {"crop": False}},
    USUAL: {"enrich": {"crop": True, "flip": True}},
    "crop": {"enrich.crop": True},
    "trivial_augment": {"enrich.trivial_augment": True},
    "crop, flip, erase": {"enrich": {"crop": True, "flip": True, "erase": True}},
    "crop, flip, cutmix": {"enrich": {"crop": True, "flip": True, "cutmix": True}},
}
PLANS: dict[str, dict[str, Any]] = {
    "early stopping": {"train.epochs": 25},
    "whole": {"train.epochs": 20, "train.batch_size": 32, "control.policy": "off"},
}
SHORT = {"cifar10": (OFF, USUAL), "mnist": (OFF, "crop")}
OF = {"cifar10": tuple(ARMS), "mnist": (OFF, "crop")}


@functools.lru_cache(maxsize=1)
def _prepared(data: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Pictures and model, and which are training, validation and test."""
    from holdfast.core.seeds import generator
    from holdfast.prepare.model import prepare
    from holdfast.recipe import Recipe, override
    from holdfast.tasks import task_definition

    folder = Path(tempfile.gettempdir()) / f"holdfast-enrich-{data}"
    if not folder.exists():
        with zipfile.ZipFile(data_folder() / data / f"{data}.zip") as packed:
            for name in packed.namelist():
                if name.endswith((".jpg", ".png")):
                    place = folder / Path(name).parent.name / name.replace("/", "-")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(packed.read(name))
    task = "task=image-classification"
    model = f"model.name={small_resnet()}"
    recipe = override(Recipe(), [task, f"data.path={folder}", f"seed={seed}", model])
    table = task_definition("image-classification").read(str(folder), recipe.data, None)
    order = generator(0, "benchmark", "pictures").permutation(len(table))
    train, valid, test = SIZES
    held, rest = order[:test], order[test:]
    rest = rest[generator(seed, "benchmark", "pictures").permutation(len(rest))]
    used = np.concatenate([rest[: train + valid], held])
    prepared = prepare(recipe, table.take(used))
    return prepared, *np.split(np.arange(len(used)), [train, train + valid])


def run_one(cell: Cell) -> dict[str, Any]:
    """Accuracy on the test pictures, and how long the training took."""
    from holdfast.fits.fit import fit

    prepared, train, valid, test = _prepared(cell["data"], cell["seed"])
    start = time.perf_counter()
    fitted = fit(
        prepared,
        train,
        valid,
        {"train.learning_rate": 1e-3, **PLANS[cell["plan"]], **ARMS[cell["arm"]]},
    )
    seconds = time.perf_counter() - start
    losses, logits = fitted.measure(prepared.examples, test)
    right = logits.argmax(axis=1) == np.asarray(prepared.examples.labels)[test]
    last = fitted.trained.last_step
    told = {"accuracy": float(right.mean()), "loss": float(losses.mean()), "seconds": seconds}
    shown = [one.chosen for one in fitted.training_plan.decisions if one.what == "enrich"]
    print(f"  {told} {last} {shown}", flush=True)
    return {**told, "steps": last}


def text_table(cells: Sequence[Cell], results: Sequence[Mapping[str, Any] | None]) -> str:
    """A line a plan, a set and an arm."""
    found = {
        (c["plan"], c["data"], c["arm"], c["seed"]): r
        for c, r in zip(cells, results, strict=True)
        if r
    }
    lines = [
        "| Plan | Pictures | Enrichment | accuracy | difference | steps | time a step |",
        "|---|---|---|---|---|---|---|",
    ]
    for plan, data, arm in dict.fromkeys((c["plan"], c["data"], c["arm"]) for c in cells):
        pairs = [
            (found[plan, data, arm, s], found[plan, data, OFF, s])
            for s in range(SEEDS)
            if (plan, data, arm, s) in found and (plan, data, OFF, s) in found
        ]
        begin = f"| {plan} | {data} | {arm} |"
        if not pairs:
            lines.append(f"{begin} not run | | | |")
            continue
        value = f"{100 * statistics.fmean(a['accuracy'] for a, _ in pairs):.1f} %"
        mean, half = paired(*([pair[k]["accuracy"] for pair in pairs] for k in (0, 1)))
        spread = f" ± {half:.1f}" if len(pairs) > 1 else ""
        gap = "" if arm == OFF else f"{mean:+.1f}{spread} (n = {len(pairs)})"
        steps = statistics.fmean(a["steps"] for a, _ in pairs)
        times = [(a["seconds"] / a["steps"]) / (b["seconds"] / b["steps"]) for a, b in pairs]
        lines.append(f"{begin} {value} | {gap} | {steps:.0f} | × {statistics.median(times):.2f} |")
    return "\n".join(lines)


def main() -> None:
    asked = options(__doc__ or "").parse_args()
    cells = [
        cell
        for plan, arms in (("early stopping", SHORT), ("whole", OF))
        for seed in range(SEEDS)
        for data in SETS
        for cell in grid(plan=[plan], seed=[seed], data=[data], arm=arms[data])
    ]
    # What decides about the default comes first.
    cells.sort(key=lambda cell: cell["arm"] not in (OFF, USUAL, "crop"))
    path = results_path(NAME, 1, False)
    minutes = 0.0 if asked.tables else asked.minutes
    results = run_cells(NAME, cells, run_one, path, minutes=minutes)
    publish(NAME, HEAD + text_table(cells, results), BOOK)


HEAD = f"""## Enrichment of pictures

A ResNet of 0.7 million parameters with random weights, {SIZES[0]:,} training and {SIZES[2]:,} test
pictures; differences in accuracy in points, paired by seed, with 95 % intervals of Student's t
(`benchmarks/enrich_pictures.py`).

"""


if __name__ == "__main__":
    main()
