"""Runs of a small ResNet with random weights on few photographs, each with one fault."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from peers.task_rows import pictures
from vs_trainer_tasks import small_resnet

from recorded.runs import planted, record

RATE = 1e-3
# Passes and recipe keys by fault; the rate that suits is the one of vs_trainer_tasks.py.
FAULTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "long": (50, ("train.schedule=constant",)),
    "noise 20": (30, ()),
    "rate x10": (8, (f"train.learning_rate={10 * RATE:g}",)),
    "rate /30": (8, (f"train.learning_rate={RATE / 30:g}",)),
}


def record_pictures(cell: dict[str, Any], pool_rows: int) -> None:
    model = small_resnet()
    rows = pictures(model, (300, 200, pool_rows), cell["seed"]).raw
    epochs, settings = FAULTS[cell["fault"]]
    own = [
        "control.policy=off",
        f"train.epochs={epochs:g}",
        "train.threads=1",
        f"train.learning_rate={RATE:g}",
    ]
    record_rows(cell, model, rows, [*own, *settings])


def record_rows(cell: dict[str, Any], model: Path, rows: Any, settings: list[str]) -> None:
    """A run on these rows of each side, with the cell's fault planted after the division."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe

    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        sides = {side: _table(Path(name) / f"{side}.csv", rows[side]) for side in rows}
        plain = {
            "task": "image-classification",
            "seed": cell["seed"],
            "model": {"name": str(model)},
            "data": {
                "path": sides["train"],
                "valid": sides["valid"],
                "test": sides["test"],
                "text": "path",
                "label": "label",
            },
        }
        path = Path(name) / "recipe.yaml"
        path.write_text(yaml.safe_dump(plain), encoding="utf-8")
        recipe = override(read_recipe(path), settings)
        splits = load_and_divide(recipe).splits
        ready = make_training_plan(*prepare_divided(recipe, splits))
        pool = ready.definition.encode(splits.test.open(), ready.loaded, ready.recipe)
        train, valid = planted(ready.train, ready.valid, cell)
        sides = replace(ready.splits, train=train, valid=valid)
        record(cell, replace(ready, splits=sides), pool, classifies=True)


def _table(path: Path, rows: Any) -> str:
    """A table of copies beside it: a table may not name files of another folder."""
    lines = []
    for number, row in enumerate(rows):
        own = path.with_name(f"{path.stem}-{number}.jpg")
        own.write_bytes(Path(row["path"]).read_bytes())
        lines.append(f"{own.name},{row['label']}\n")
    path.write_text("path,label\n" + "".join(lines), encoding="utf-8")
    return str(path)
