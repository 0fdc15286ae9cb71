"""A finished run's model as it is exported: the function, what it answers with, and the facts that
stand in the file beside the weights.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from holdfast._version import __version__
from holdfast.core.records import Floats, to_json
from holdfast.core.tasks import OF_PICTURES, TAGGERS
from holdfast.data.table import Table
from holdfast.plugins.export.network import Exportable, of_pictures, of_texts
from holdfast.runs.threshold import read_threshold
from holdfast.tasks import kind_of
from holdfast.tasks.classes.answers import FittedText
from holdfast.tasks.images.task import FittedVision
from holdfast.tasks.labels.losses import label_matrix
from holdfast.training.machine.machine import flushed_subnormals

METRICS = {
    "class": "accuracy",
    "several": "exact sets of labels",
    "number": "the error, in deviations of the labels",
    "tags": "words with the right tag",
}


@dataclass(frozen=True)
class ExportableModel:
    """A run's model as something to be asked through any engine. ``kind`` is that of its labels
    (``tags`` for a tagger), ``saved`` what was loaded; ``use`` answers and judges tables."""

    task: str
    kind: str
    saved: Any
    use: Any

    @property
    def metric(self) -> str:
        """What its answers are compared by, in words."""
        return METRICS[self.kind]

    def predictions(self, network: Callable[..., Any], table: Table) -> list[Any]:
        """An answer a row, as ``predict`` gives them, with ``network`` in the place of the saved
        one's; columns beside the text are not read."""
        saved = self.saved
        one: Any
        if self.task in OF_PICTURES:
            one = FittedVision(network, saved.processor, saved.classes, saved.channels)
        else:
            one = FittedText(network, saved.tokenizer, saved.classes, saved.max_length)
        with flushed_subnormals():
            return list(replace(self.use, models=[one]).answer(table).predictions)

    def scores(self, predictions: Sequence[Any], table: Table) -> Floats:
        """How right each answer is, [n] in [0, 1]."""
        if self.kind == "class":
            names = np.asarray(table.classes, dtype=object)[np.asarray(table.column("label"))]
            return np.array([a == b for a, b in zip(predictions, names, strict=True)], np.float64)
        if self.kind == "several":
            held = [{table.names[i] for i in np.flatnonzero(row)} for row in label_matrix(table)]
            return np.array([set(a) == b for a, b in zip(predictions, held, strict=True)], float)
        if self.kind == "number":
            values = np.asarray(table.column("value"), dtype=np.float64)
            apart = np.abs(np.asarray(predictions, dtype=np.float64) - values)
            return np.asarray(1 - np.minimum(1.0, apart / (float(values.std()) or 1.0)))
        told = table.rows.with_format("arrow")[:]["tags"].to_pylist()
        true = [[table.names[tag] for tag in tags] for tags in told]
        return np.array([_share(a, b) for a, b in zip(predictions, true, strict=True)])


def _share(said: Sequence[str], true: Sequence[str]) -> float:
    return float(np.mean([a == b for a, b in zip(said, true, strict=True)])) if true else 1.0


def answered(run: Path, result: dict[str, Any]) -> ExportableModel:
    """The saved model of a run, loaded by plain libraries."""
    task = str(result["task"])
    with flushed_subnormals():
        use: Any = kind_of(task).use_runs([run])
    kind = getattr(use, "labels", "tags" if task in TAGGERS else "class")
    one = use.models[0]
    # Of a model that reads columns beside the text, the text's part.
    return ExportableModel(task, kind, getattr(one, "text", one), use)


def exportable(model: ExportableModel, shape: tuple[int, ...] | None) -> Exportable:
    """What is written of it; ``shape`` is that of a picture."""
    saved = model.saved
    plain = saved.network.model.eval()
    again = copy.deepcopy(plain)
    if model.task in OF_PICTURES:
        assert shape is not None
        return of_pictures(plain, again, shape)
    tags = model.task in TAGGERS
    return of_texts(plain, again, saved.tokenizer, saved.max_length, each_token=tags)


def facts_of(run: Path, result: dict[str, Any], model: ExportableModel) -> dict[str, str]:
    """What stands in the exported file: all that is needed to use it, as text. The temperature is
    in the weights already, and said for the record."""
    saved = model.saved
    facts = {
        "task": model.task,
        "label_kind": model.kind,
        "labels": json.dumps(list(saved.classes), ensure_ascii=False),
        "temperature": str(result.get("model_facts", {}).get("temperature", 1.0)),
        "temperature_is": "folded into the weights: softmax of the logits is the confidence",
        "model": str(result.get("model", "")).rpartition("/")[2],
        "made_with": f"holdfast {__version__}",
    }
    if model.task in OF_PICTURES:
        facts["channels"] = str(saved.channels)
    else:
        tokenizer = saved.tokenizer
        facts |= {
            "max_length": str(saved.max_length),
            "pad_id": str(tokenizer.pad_token_id),
            "pad_token": str(tokenizer.pad_token),
            "pad_side": "right",
        }
    if model.kind == "tags":
        facts["unread"] = saved.classes[model.use.unread]
    if (rule := read_threshold(run)) is not None:
        found = to_json(rule.to_json())
        facts["threshold"] = json.dumps(found["threshold"])
        if found["matrix"]:
            facts["costs"] = json.dumps(found["matrix"], ensure_ascii=False)
    return facts
