"""What a careless random split would have reported, on the same rows with the same cheap model.

The linear probe is fitted and scored on five random divisions of single rows, and on five
divisions that keep copies and groups together: the difference is what the leak is worth.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.files import write_json
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.data.table import Table
from holdfast.models.probe import fit_probe
from holdfast.pipeline.compose import make_accelerator, make_ready
from holdfast.pipeline.folder import RECIPE, RESULT
from holdfast.pipeline.ready import Ready
from holdfast.pipeline.rows import load_and_divide
from holdfast.recipe import read_recipe
from holdfast.report.page import write_report
from holdfast.split.divide import divide
from holdfast.training.observe import Observer

SEEDS = 5
PENALTY = 0.1


def add_careless(run: Path) -> dict[str, Any]:
    """Add the block ``careless`` to ``result.json`` of a finished run, and draw its report again.

    ``random_split`` and ``honest`` are mean accuracies over five seeds with the t interval of the
    mean; ``because`` says what a random split lets through.
    """
    recipe = read_recipe(run / RECIPE)
    divided = load_and_divide(recipe)
    ready = make_ready(recipe, divided.splits)
    table = divided.table
    features = _features(ready, table)
    labels = np.asarray(table.column("label"))
    careless = [_accuracy(features, labels, *_random(labels, seed)) for seed in range(SEEDS)]
    honest = [_accuracy(features, labels, *_kept(table, seed)) for seed in range(SEEDS)]
    block = {
        "what": "linear probe", "random_split": _mean(careless).to_json(),
        "honest": _mean(honest).to_json(), "because": _sentence(careless, honest),
    }  # fmt: skip
    result: dict[str, Any] = json.loads((run / RESULT).read_text("utf-8"))
    result["careless"] = block
    write_json(run / RESULT, result)
    write_report(run)
    return result


def _features(ready: Ready, table: Table) -> Floats:
    accelerator = make_accelerator(str(ready.recipe.train.precision))
    observer = Observer(accelerator, ready.task)
    examples = ready.kind.encode(table, ready.loaded, ready.recipe)
    network = ready.loaded.network.to(accelerator.device)
    return observer.features(network, examples, np.arange(len(examples)))


def _random(labels: Ints, seed: int) -> tuple[Ints, Ints]:
    """Training and test positions of a stratified division of single rows, 85/15."""
    from sklearn.model_selection import train_test_split

    state = int(generator(seed, "careless").integers(2**31))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.15, stratify=labels, random_state=state
    )
    return train, test


def _kept(table: Table, seed: int) -> tuple[Ints, Ints]:
    """The same shares, with copies and groups on one side."""
    splits = divide(table, seed=seed)
    place = {int(row): position for position, row in enumerate(table.column("row"))}
    sides = {"train": [], "valid": [], "test": []}  # type: dict[str, list[int]]
    for row, side in zip(splits.records["row"].to_pylist(), splits.records["split"].to_pylist(),
                         strict=True):  # fmt: skip
        if side in sides:
            sides[side].append(place[row])
    return np.asarray(sides["train"] + sides["valid"]), np.asarray(sides["test"])


def _accuracy(features: Floats, labels: Ints, train: Ints, test: Ints) -> float:
    classes = int(labels.max()) + 1
    probe = fit_probe(features[train], labels[train], classes=classes, seed=0, c=PENALTY)
    return float((probe.logits(features[test]).argmax(axis=1) == labels[test]).mean())


def _mean(values: list[float]) -> Estimate:
    from scipy.stats import t

    mean, error = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(t.ppf(0.975, len(values) - 1)) * error
    return Estimate(mean, max(0.0, mean - reach), min(1.0, mean + reach),
                    note=f"mean of {len(values)} divisions, t interval")  # fmt: skip


def _sentence(careless: list[float], honest: list[float]) -> str:
    gap = 100 * (float(np.mean(careless)) - float(np.mean(honest)))
    if gap <= 0:
        return "On these rows a random split reports no more than this division does."
    return (
        f"A random split would have reported {gap:.1f} points more, because near-copies and "
        "packages of one source stand on both sides of it. Nothing of that holds on new data."
    )
