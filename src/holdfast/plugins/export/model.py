"""A finished run's model as it is exported: the plain function, what it answers with, and the facts
that stand in the file beside the weights. The function reads its inputs by place, in float32, with
no adapter beside it and no block that only carries another.
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
from holdfast.data.table import Table
from holdfast.models.encoders.families import FAMILIES, MEAN_POOLING_KEY, Family, strip_carrier
from holdfast.models.encoders.network import MeanPool
from holdfast.models.loading.tokenizer import accepted_inputs
from holdfast.runs.threshold import read_threshold
from holdfast.tasks import task_definition
from holdfast.tasks.classes.answers import FittedText
from holdfast.tasks.labels.losses import label_matrix
from holdfast.training.machine.machine import flushed_subnormals

PICTURE = "pixel_values"


class PositionalModel(nn.Module):
    """``model`` as a function of its ``inputs`` in their order, to logits alone."""

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

    The block costs its share of the time, and rounding to eight bits twice more; a graph can hold
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
        self.pool = MeanPool()

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids and mask [B, T] → logits [B, C]."""
        states = self.backbone(**inputs).last_hidden_state
        logits: Tensor = self.head(self.pool(states, inputs["attention_mask"]))
        return logits


@dataclass(frozen=True)
class Exportable:
    """``network`` is what is exported, a function of ``inputs`` by place; ``saved`` is the model as
    it was saved, under the same door, that it is held against; ``tokens`` is the most that a text
    may have (``None`` for a picture), ``vocabulary`` how many kinds of them there are, ``pad`` the
    one that stands for nothing; ``shape`` is that of a picture (channels, height, width)."""

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
    """What is exported of a saved text classifier or tagger. ``saved`` is its plain model (or
    PEFT's around one), ``copied`` a second copy, which is changed."""
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
    """What is exported of a saved image classifier, for pictures of ``shape``."""
    inputs = (PICTURE,)
    saved_network = PositionalModel(saved, inputs).eval()
    return Exportable(
        PositionalModel(merge_adapter(copied), inputs).eval(), saved_network, inputs, shape=shape
    )


def merge_adapter(model: Any) -> Any:
    """The plain model with PEFT's adapter, if any, merged into its weights. Raises ``ModelError``
    where it cannot be."""
    active = getattr(model, "active_peft_config", None)
    if active is None:
        return model
    name = str(getattr(active, "peft_type", "adapter")).rpartition(".")[2].lower()
    if active.is_prompt_learning:
        raise ModelError(
            "the adapter",
            "is a learnt prompt, which is no change of weights that could be merged",
            name,
            "Train with another adapter, e.g. --set model.adapter.kind=lora.",
        )
    if any(getattr(p, "quant_state", None) is not None for p in model.parameters()):
        raise ModelError(
            "the adapter",
            "stands on quantised weights, which are not merged here",
            name,
            "Train with --set model.adapter.merge=true: the saved model is then a plain one.",
        )
    return model.merge_and_unload(safe_merge=True)


METRICS = {
    "class": "accuracy",
    "several": "exact sets of labels",
    "number": "the error, in deviations of the labels",
    "tags": "words with the right tag",
}


@dataclass(frozen=True)
class ExportableModel:
    """A run's model that can be evaluated through any engine. ``label_type`` is the type of its
    labels (``tags`` for a tagger), ``saved`` the loaded model; ``use`` predicts and scores
    tables."""

    task: str
    label_type: str
    saved: Any
    use: Any

    @property
    def metric(self) -> str:
        """What its answers are compared by, in words."""
        return METRICS[self.label_type]

    def predictions(self, network: Callable[..., Any], table: Table) -> list[Any]:
        """An answer a row, as ``predict`` gives them, with ``network`` in the place of the saved
        one's; columns beside the text are not read."""
        saved = self.saved
        one: Any
        if self.task in IMAGE_TASKS:
            # A service that asks a graph of texts need not load what reads pictures.
            from holdfast.tasks.images.task import FittedVision

            one = FittedVision(network, saved.processor, saved.classes, saved.channels)
        else:
            one = FittedText(network, saved.tokenizer, saved.classes, saved.max_length)
        with flushed_subnormals():
            return list(replace(self.use, models=[one]).predict(table).predictions)

    def scores(self, predictions: Sequence[Any], table: Table) -> Floats:
        """How right each answer is, [n] in [0, 1]."""
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
    """The saved model of a run, loaded by plain libraries."""
    task = str(result["task"])
    with flushed_subnormals():
        use: Any = task_definition(task).use_runs([run])
    label_type = getattr(use, "labels", "tags" if task in TAGGING_TASKS else "class")
    one = use.models[0]
    # Of a model that reads columns beside the text, the text's part.
    return ExportableModel(task, label_type, getattr(one, "text", one), use)


def to_exportable(model: ExportableModel, shape: tuple[int, ...] | None) -> Exportable:
    """What is written of it; ``shape`` is that of a picture."""
    saved = model.saved
    plain = saved.network.model.eval()
    copied = copy.deepcopy(plain)
    if model.task in IMAGE_TASKS:
        assert shape is not None
        return exportable_image_model(plain, copied, shape)
    tags = model.task in TAGGING_TASKS
    return exportable_text_model(plain, copied, saved.tokenizer, saved.max_length, each_token=tags)


def file_facts(run: Path, result: dict[str, Any], model: ExportableModel) -> dict[str, str]:
    """What stands in the exported file: all that is needed to use it, as text. The temperature is
    in the weights already, and said for the record."""
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
