"""Which runs are recorded: the groups, their cells and how each is made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import grid
from make_base_models import cache_folder
from peers.rows import SETS, clean_set, draw, labelled_counts

from recorded.features import FAULTS as LAYER_FAULTS
from recorded.features import record_features
from recorded.generators import record_novels
from recorded.pictures import record_pictures
from recorded.plain import cells as plain_cells
from recorded.plain import record_plain
from recorded.runs import record_texts

POOL_ROWS = 600
# Passes over the training rows, and recipe keys, by fault.
FAULTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "none": (6, ()),
    "long": (50, ("train.schedule=constant",)),
    "noise 10": (20, ()),
    "noise 20": (20, ()),
    "noise 30": (20, ()),
    "copies 50": (10, ()),
    "copies 100": (10, ()),
    "rate x10": (8, ("train.learning_rate=1e-3",)),
    "rate /30": (8, ("train.learning_rate=3.3e-6",)),
}
STOPPING_EPOCHS = {100: 30, 400: 12, 1600: 6}


def common(epochs: float) -> list[str]:
    return [
        "control.policy=off",
        "methods.contrast=false",
        f"train.epochs={epochs:g}",
        "train.threads=1",
        f"model.name={half_encoder()}",
        "model.max_length=64",
        "train.evaluations=14",
    ]


@functools.cache
def half_encoder() -> Path:
    """The embedded encoder without its upper three blocks: half the time, and as easily spoilt."""
    from transformers import AutoModel, AutoTokenizer

    from holdfast.models.loading.source import embedded_folder

    folder = cache_folder() / "half-minilm"
    if not (folder / "model.safetensors").exists():
        model = AutoModel.from_pretrained(embedded_folder(), num_hidden_layers=3)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(embedded_folder()).save_pretrained(folder)
    return folder


def faulty() -> list[dict[str, Any]]:
    return [
        cell
        for seed in (0, 1)
        for fault in FAULTS
        for cell in grid(family=["text"], seed=[seed], data=SETS, fault=[fault])
    ]


def layers() -> list[dict[str, Any]]:
    """The same faults on a hidden layer over frozen features: seconds each."""
    return grid(
        family=["layers"],
        seed=[5, 6],
        data=SETS,
        train=[200],
        hidden=[64],
        valid=[200],
        fault=[name for name in LAYER_FAULTS if name != "short"],
    )


def layers_stopping() -> list[dict[str, Any]]:
    """Many passes of a hidden layer over frozen features, 82 and 18 % of the labelled rows."""
    return [
        cell
        for seed in range(10)
        for rows in (100, 400, 1600)
        for cell in grid(
            family=["layers-stopping"],
            seed=[seed],
            data=SETS,
            hidden=[64],
            fault=["none"],
            **{k: [v] for k, v in labelled_counts(rows).items()},
        )
    ]


def make_faulty(cell: dict[str, Any]) -> None:
    epochs, settings = FAULTS[cell["fault"]]
    parts = draw(
        clean_set(cell["data"]), seed=cell["seed"], train=200, valid=200, test=slice(0, POOL_ROWS)
    )
    record_texts(cell, parts, [*common(epochs), *settings])


def stopping() -> list[dict[str, Any]]:
    rows = [100, 400, 1600]
    return [
        cell
        for seed in range(5)
        for cell in grid(family=["stopping"], seed=[seed], rows=rows, data=SETS, fault=["none"])
    ]


def make_stopping(cell: dict[str, Any]) -> None:
    parts = draw(
        clean_set(cell["data"]),
        seed=cell["seed"],
        test=slice(0, POOL_ROWS),
        **labelled_counts(cell["rows"]),
    )
    record_texts(cell, parts, common(STOPPING_EPOCHS[cell["rows"]]))


def healthy() -> list[dict[str, Any]]:
    """Small layers on frozen features: sizes, depths and rates that do no harm by themselves. Many
    of the longer ones know their training rows by heart all the same, and the pool says so."""
    seeds = [10, 11, 12]
    cells = grid(
        family=["features"],
        seed=seeds,
        data=SETS,
        train=[200, 400, 800],
        hidden=[0, 32],
        valid=[150],
    )
    return cells + grid(
        family=["features"],
        seed=seeds,
        data=SETS,
        train=[400, 800],
        hidden=[0, 32],
        valid=[40, 150],
        fault=["short"],
    )


def pictures() -> list[dict[str, Any]]:
    return grid(
        family=["pictures"],
        seed=[0, 1],
        data=["cifar10"],
        fault=["long", "noise 20", "rate x10", "rate /30"],
    )


def novels() -> list[dict[str, Any]]:
    return grid(
        family=["novels"], seed=[0, 1], data=["wikitext2"], fault=["long", "rate x10", "rate /30"]
    )


Maker = Callable[[dict[str, Any]], None]
GROUPS: dict[str, tuple[Callable[[], list[dict[str, Any]]], Maker]] = {
    "plain": (plain_cells, record_plain),
    "faulty": (faulty, make_faulty),
    "healthy": (healthy, record_features),
    "layers": (layers, record_features),
    "layers_stopping": (layers_stopping, record_features),
    "stopping": (stopping, make_stopping),
    "pictures": (pictures, functools.partial(record_pictures, pool_rows=POOL_ROWS)),
    "novels": (novels, functools.partial(record_novels, pool_rows=300)),
}
