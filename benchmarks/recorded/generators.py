"""Runs of the small Llama of make_base_models.py on a few paragraphs, each with one fault."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import make_base_models
import numpy as np
import yaml
from peers.rows import data_folder

from holdfast.core.seeds import generator
from recorded.runs import record

RATE = 3e-4
FAULTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "long": (40, ("train.schedule=constant",)),
    "rate x10": (6, (f"train.learning_rate={30 * RATE:g}",)),
    "rate /30": (6, (f"train.learning_rate={RATE / 30:g}",)),
}


def record_novels(cell: dict[str, Any], pool_rows: int) -> None:
    model = make_base_models.cache_folder() / "llama"
    if not (model / "made.json").exists():
        raise SystemExit(f"not run: {model} is not there; python benchmarks/make_base_models.py")
    epochs, settings = FAULTS[cell["fault"]]
    own = [
        "control.policy=off",
        f"train.epochs={epochs:g}",
        "train.threads=1",
        f"train.learning_rate={RATE:g}",
        "model.max_length=128",
    ]
    record_lines(
        cell, model, paragraphs(100 + 150 + pool_rows, cell["seed"], pool_rows), [*own, *settings]
    )


def record_lines(
    cell: dict[str, Any], model: Path, texts: dict[str, list[str]], settings: list[str]
) -> None:
    """A run on the texts of each side, by the names that a recipe has for them."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.prepare.model import prepare_divided
    from holdfast.prepare.rows import load_and_divide
    from holdfast.recipe import override, read_recipe

    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        sides = {side: _lines(Path(name) / f"{side}.jsonl", rows) for side, rows in texts.items()}
        plain = {
            "task": "causal-lm",
            "seed": cell["seed"],
            "data": {**sides, "text": "text"},
            "model": {"name": str(model)},
        }
        path = Path(name) / "recipe.yaml"
        path.write_text(yaml.safe_dump(plain), encoding="utf-8")
        recipe = override(read_recipe(path), settings)
        splits = load_and_divide(recipe).splits
        ready = make_training_plan(*prepare_divided(recipe, splits))
        pool = ready.definition.encode(splits.test.open(), ready.loaded, ready.recipe)
        record(cell, ready, pool, classifies=False)


def paragraphs(count: int, seed: int, pool_rows: int) -> dict[str, list[str]]:
    """Paragraphs of an encyclopedia, of 200 to 450 letters: other words than the novels that the
    model has read. The pool is the same for every seed."""
    with gzip.open(data_folder() / "corpus" / "wikitext2_valid.txt.gz", "rt", "utf-8") as file:
        lines = [line.strip() for line in file]
    long = [line[:450] for line in lines if len(line) >= 200 and not line.startswith("=")]
    order = generator(0, "benchmark", "paragraphs").permutation(len(long))
    rest = order[pool_rows:][
        generator(seed, "benchmark", "rows").permutation(len(order) - pool_rows)
    ]
    places = {"path": rest[:100], "valid": rest[100:250], "test": order[:pool_rows]}
    if len(np.concatenate(list(places.values()))) < count:
        raise ValueError(f"{count} paragraphs are wanted, and there are {len(long)}")
    return {side: [long[i] for i in rows] for side, rows in places.items()}


def _lines(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)
