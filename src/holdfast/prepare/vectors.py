"""What the untouched model makes of rows, before any fit."""

from __future__ import annotations

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.records import Floats, Ints
from holdfast.models.compute.onednn import use_onednn
from holdfast.models.fresh import fresh
from holdfast.training.machine.machine import make_accelerator, use_threads
from holdfast.training.observe import Observer
from holdfast.training.task import Examples


def has_classes(prepared: PreparedData) -> bool:
    """Whether each row is one text with one class."""
    kind = prepared.rows.columns.one_class
    return prepared.recipe.task == "text-classification" and kind and not prepared.rows.has_pairs


def vectors_of(prepared: PreparedData, examples: Examples, positions: Ints | None = None) -> Floats:
    """What the untouched model's last layer would read [n, width], of encoded rows."""
    use_threads(prepared.machine.threads)
    network = fresh(prepared.loaded.network)
    if prepared.recipe.train.matmul == "onednn":
        use_onednn(network)
    accelerator = make_accelerator(prepared.machine.precision)
    network.to(accelerator.device)
    task = prepared.kind.make_task(prepared.loaded, prepared.rows, prepared.recipe, None)
    everything = np.arange(len(examples)) if positions is None else positions
    return Observer(accelerator, task, alone=True).features(network, examples, everything)
