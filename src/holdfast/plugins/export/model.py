"""The exported function of a finished run's model, its predictions, and the facts that the file
holds in addition to the weights.

The function takes its inputs by position, in float32, with the adapter merged and without blocks
that only carry another.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast._version import __version__
from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, to_json
from holdfast.core.tasks import IMAGE_TASKS, TAGGING_TASKS
from holdfast.data.labels.bins import label_matrix
from holdfast.data.table import Table
from holdfast.models.encoders.families import FAMILIES, MEAN_POOLING_KEY, Family, strip_carrier
from holdfast.models.encoders.network import mean_pool
from holdfast.models.loading.tokenizer import accepted_inputs
from holdfast.runs.threshold import read_threshold
from holdfast.tasks import task_definition
from holdfast.tasks.classes.answers import FittedText
from holdfast.training.machine.machine import flushed_subnormals

PICTURE = "pixel_values"


class PositionalModel(nn.Module):
    """``model`` as a function of its ``inputs`` in their order, to logits only."""

    def __init__(self, model: nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, *tensors: Tensor) -> Tensor:
        """[B, …] each → [B, C], of a tagger [B, T, C]."""
        output = self.model(**dict(zip(self.inputs, tensors, strict=True)))
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits


class WithoutCarrier(nn.Module):
    """A plain model whose last block only carries mean pooling, without that block.

    The block costs its share of the time, and two more roundings to eight bits; a graph can compute
    the mean itself. With W₁, b₁ the dense layer that the carrier made linear and W₂, b₂ the last,
    the head is W₂W₁ x + W₂b₁ + b₂, in float64.
    """

    def __init__(self, plain: nn.Module, family: Family) -> None:
        super().__init__()
        dense: Any = plain.get_submodule(family.dense)
        last: Any = plain.get_submodule(family.last)
        count, width = int(last.out_features), int(dense.in_features)
        self.head = nn.Linear(width, count)
        first, second = dense.weight.double(), last.weight.double()
        first_bias, second_bias = dense.bias.double(), last.bias.double()
        if family.carry == "odd":
            # The rows of W and of −W, of which the last layer takes g(z) − g(−z) = z.
            first, first_bias = first[:count], first_bias[:count]
            second = second[:, :count]
        with torch.no_grad():
            self.head.weight.copy_(second @ first)
            self.head.bias.copy_(second @ first_bias + second_bias)
        strip_carrier(plain, family)
        backbone: Any = plain.get_submodule(family.base)
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None
        self.backbone = backbone
        self.pool = mean_pool(family, backbone)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids and mask [B, T] → logits [B, C]."""
        states = self.backbone(**inputs).last_hidden_state
        logits: Tensor = self.head(self.pool(states, inputs["attention_mask"]))
        return logits


@dataclass(frozen=True)
class Exportable:
    """``network`` is what is exported, a function of ``inputs`` by position; ``saved`` is the saved
    model with the same interface, to compare with.

    ``tokens`` is the maximum of a text (``None`` for an image), ``vocabulary`` the number of token
    ids, ``pad`` the padding id; ``shape`` is that of an image (channels, height, width).
    """

    network: PositionalModel
    saved: PositionalModel
    inputs: tuple[str, ...]
    tokens: int | None = None
    vocabulary: int = 0
    pad: int = 0
    shape: tuple[int, ...] | None = None
    each_token: bool = False
    lean: bool = False


def exportable_text_model(
    saved: Any, copied: Any, tokenizer: Any, max_length: int, *, each_token: bool = False
) -> Exportable:
    """The exported form of a saved text classifier or tagger. ``saved`` is its plain model (or
    PEFT's around one), ``copied`` a second copy, which is changed.
    """
    config: Any = saved.config
    inputs = accepted_inputs(config)
    plain = merge_adapter(copied)
    family = FAMILIES.get(str(config.model_type))
    lean = bool(getattr(config, MEAN_POOLING_KEY, False)) and family is not None and not each_token
    network = WithoutCarrier(plain, family) if lean and family is not None else plain
    return Exportable(
        PositionalModel(network, inputs).eval(),
        PositionalModel(saved, inputs).eval(),
        inputs,
        tokens=max_length,
        vocabulary=len(tokenizer),
        pad=int(tokenizer.pad_token_id),
        each_token=each_token,
        lean=lean,
    )


def exportable_image_model(saved: Any, copied: Any, shape: tuple[int, ...]) -> Exportable:
    """The exported form of a saved image classifier, for images of ``shape``."""
    inputs = (PICTURE,)
    saved_network = PositionalModel(saved, inputs).eval()
    return Exportable(
        PositionalModel(merge_adapter(copied), inputs).eval(), saved_network, inputs, shape=shape
    )


def merge_adapter(model: Any) -> Any:
    """The plain model with PEFT's adapter, if any, merged into its weights. Raises ``ModelError``
    where it cannot be merged.
    """
    active = getattr(model, "active_peft_config", None)
    if active is None:
        return model
    name = str(getattr(active, "peft_type", "adapter")).rpartition(".")[2].lower()
    if active.is_prompt_learning:
        rule = "is a learned prompt, which changes no weights and cannot be merged"
        remedy = "Train with another adapter, e.g. --set model.adapter.kind=lora."
        raise ModelError("the adapter", rule, name, remedy)
    if any(getattr(p, "quant_state", None) is not None for p in model.parameters()):
        rule = "is on quantised weights, which this export does not merge"
        remedy = "Train with --set model.adapter.merge=true: the saved model is then a plain one."
        raise ModelError("the adapter", rule, name, remedy)
    return model.merge_and_unload(safe_merge=True)


METRICS = {
    "class": "accuracy",
    "several": "exact match of label sets",
    "number": "error, in standard deviations of the labels",
    "tags": "words with the correct tag",
}


@dataclass(frozen=True)
class ExportableModel:
    """A run's model that can be evaluated through any engine.

    ``label_type`` is the type of its labels (``tags`` for a tagger), ``saved`` the loaded model;
    ``use`` predicts and scores tables.
    """

    task: str
    label_type: str
    saved: Any
    use: Any

    @property
    def metric(self) -> str:
        """The metric that compares its predictions, in words."""
        return METRICS[self.label_type]

    def predictions(self, network: Callable[..., Any], table: Table) -> list[Any]:
        """A prediction per row, as ``predict`` returns them, with ``network`` in place of the saved
        one; feature columns are not read.
        """
        saved = self.saved
        one: Any
        if self.task in IMAGE_TASKS:
            # A service that runs a graph on texts need not import the image libraries.
            from holdfast.tasks.images.task import FittedVision

            one = FittedVision(network, saved.processor, saved.classes, saved.channels)
        else:
            one = FittedText(network, saved.tokenizer, saved.classes, saved.max_length)
        with flushed_subnormals():
            return list(replace(self.use, models=[one]).predict(table).predictions)

    def scores(self, predictions: Sequence[Any], table: Table) -> Floats:
        """The score of each prediction, [n] in [0, 1]."""
        if self.label_type == "class":
            names = np.asarray(table.classes, dtype=object)[np.asarray(table.column("label"))]
            return np.array([a == b for a, b in zip(predictions, names, strict=True)], np.float64)
        if self.label_type == "several":
            label_sets = [
                {table.names[i] for i in np.flatnonzero(row)} for row in label_matrix(table)
            ]
            return np.array(
                [set(a) == b for a, b in zip(predictions, label_sets, strict=True)], float
            )
        if self.label_type == "number":
            values = np.asarray(table.column("value"), dtype=np.float64)
            errors = np.abs(np.asarray(predictions, dtype=np.float64) - values)
            return np.asarray(1 - np.minimum(1.0, errors / (float(values.std()) or 1.0)))
        label_ids = table.rows.with_format("arrow")[:]["tags"].to_pylist()
        label_tags = [[table.names[tag] for tag in tags] for tags in label_ids]
        return np.array(
            [_share_correct(a, b) for a, b in zip(predictions, label_tags, strict=True)]
        )


def _share_correct(predicted: Sequence[str], labels: Sequence[str]) -> float:
    return (
        float(np.mean([a == b for a, b in zip(predicted, labels, strict=True)])) if labels else 1.0
    )


def load_exportable_model(run: Path, result: dict[str, Any]) -> ExportableModel:
    """Load the saved model of a run with plain libraries."""
    task = str(result["task"])
    with flushed_subnormals():
        use: Any = task_definition(task).use_runs([run])
    label_type = getattr(use, "labels", "tags" if task in TAGGING_TASKS else "class")
    one = use.models[0]
    # Of a model with feature columns, only the text part.
    return ExportableModel(task, label_type, getattr(one, "text", one), use)


def to_exportable(model: ExportableModel, shape: tuple[int, ...] | None) -> Exportable:
    """The form to export; ``shape`` is that of an image."""
    saved = model.saved
    plain = saved.network.model.eval()
    copied = copy.deepcopy(plain)
    if model.task in IMAGE_TASKS:
        assert shape is not None
        return exportable_image_model(plain, copied, shape)
    tags = model.task in TAGGING_TASKS
    return exportable_text_model(plain, copied, saved.tokenizer, saved.max_length, each_token=tags)


def file_facts(run: Path, result: dict[str, Any], model: ExportableModel) -> dict[str, str]:
    """The metadata of the exported file: all that is needed to use it, as text. The temperature is
    already in the weights and recorded for information.
    """
    saved = model.saved
    facts = {
        "task": model.task,
        "label_kind": model.label_type,
        "labels": json.dumps(list(saved.classes), ensure_ascii=False),
        "temperature": str(result.get("model_facts", {}).get("temperature", 1.0)),
        "temperature_is": "folded into the weights: softmax of the logits is the confidence",
        "model": str(result.get("model", "")).rpartition("/")[2],
        "made_with": f"holdfast {__version__}",
    }
    if model.task in IMAGE_TASKS:
        facts["channels"] = str(saved.channels)
    else:
        tokenizer = saved.tokenizer
        facts |= {
            "max_length": str(saved.max_length),
            "pad_id": str(tokenizer.pad_token_id),
            "pad_token": str(tokenizer.pad_token),
            "pad_side": "right",
        }
    if model.label_type == "tags":
        facts["unread"] = saved.classes[model.use.unread]
    if (rule := read_threshold(run)) is not None:
        threshold_json = to_json(rule.to_json())
        facts["threshold"] = json.dumps(threshold_json["threshold"])
        if threshold_json["matrix"]:
            facts["costs"] = json.dumps(threshold_json["matrix"], ensure_ascii=False)
    return facts
