"""The network that a service computes with: the saved one in float32, or the form that ``export``
measured and kept.

A ``Graph`` maps a tokenizer's (or a processor's) batch to logits. While ``capturing_features`` is
open, it also collects the inputs of its last layer for the rows of each pass, [B, D].
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.contract.inference import TaskPredictor
from holdfast.core.decisions import DecisionListener, decisions_to
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import InputError, RecipeError, RunError
from holdfast.core.records import Decision, softmax
from holdfast.core.run_files import read_result
from holdfast.data.scratch import scratch_file
from holdfast.models.compute.processor import FASTER_BY, measure_gain, use_onednn
from holdfast.models.encoders.checkpoint import recording_features
from holdfast.models.encoders.network import masked_mean
from holdfast.plugins.export.export import EXPORT_FOLDER, export
from holdfast.plugins.export.folder import FACTS
from holdfast.plugins.export.formats import format_of
from holdfast.plugins.export.graphs import OnnxEngine, OpenVinoEngine
from holdfast.plugins.export.measurements import BFLOAT16, FLOAT32
from holdfast.plugins.export.model import PositionalModel, WithoutCarrier, exportable_text_model
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes.answers import FittedText, TextPredictor, TextWithExtraFeatures
from holdfast.tasks.images.task import FittedVision, ImagePredictor
from holdfast.tasks.tags.answers import TagPredictor

AUTO = "auto"
PRECISIONS = (FLOAT32, AUTO)
# A format and its package, in the order of preference where nothing was exported yet.
FORMATS = {"openvino": "openvino", "onnx": "onnxruntime"}
INSTALL_HINT = "Install one: pip install 'holdfast[export]'."
# The batch size of an export's table that is used, as a service predicts texts in batches.
BATCH_SIZE = "16"
# Allowed difference of a probability from the saved model's (of a number: relative to the largest).
TOLERANCE = 1e-5
TEXT = "it was not what I had hoped for but the people were kind and 7 of 10 came back"


class Graph(Protocol):
    """Maps a batch to logits [B, C], for a tagger [B, T, C]. Where ``multiple`` is above 1, it
    caches data for each shape, and lengths should be multiples of it."""

    multiple: int

    def __call__(self, **batch: Tensor) -> Tensor: ...

    def capturing_features(self) -> AbstractContextManager[list[Tensor]]: ...


class SavedNetwork:
    """The network of a run's folder as ``predict`` uses it."""

    multiple = 1

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self._network(**batch)
        return logits

    def capturing_features(self) -> AbstractContextManager[list[Tensor]]:
        return recording_features(self._network.model)


class LeanNetwork:
    """The same function in less time: without the block that only carries mean pooling, with
    adapters merged, and with products by oneDNN where that is faster. It shares large weights with
    the saved network."""

    multiple = 1

    def __init__(self, model: nn.Module, tokenizer: Any, max_length: int, *, tags: bool) -> None:
        shared: dict[int, Any] = {}
        if not getattr(model, "active_peft_config", None):
            # Only the weights of norms are copied: leaving out the carrying block scales them.
            layers = [one for one in model.modules() if isinstance(one, nn.Linear | nn.Embedding)]
            shared = {id(p): p for layer in layers for p in layer.parameters()}
        copied = copy.deepcopy(model, shared)
        exported = exportable_text_model(model, copied, tokenizer, max_length, each_token=tags)
        self.network: PositionalModel = exported.network
        self.is_lean = exported.lean

    def __call__(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self.network(*(batch[name] for name in self.network.inputs))
        return logits

    def capturing_features(self) -> AbstractContextManager[list[Tensor]]:
        inner = self.network.model
        return recording_features(inner, inner.head if isinstance(inner, WithoutCarrier) else None)


def fastest_network(
    saved: Any, tokenizer: Any, max_length: int, *, tags: bool
) -> tuple[Graph, Decision | None]:
    """The lean network of a text model where its outputs equal the saved one's, else the saved one;
    with the decision, where there was a choice."""
    lean_network = LeanNetwork(saved.model, tokenizer, max_length, tags=tags)
    changes = ["the pooling-only block is left out"] if lean_network.is_lean else []
    gain = measure_gain()
    if gain >= FASTER_BY:
        use_onednn(lean_network.network)
        changes.append(f"matrix products by oneDNN are {gain:.1f} times as fast here")
    if not changes:
        return SavedNetwork(saved), None
    gap = largest_gap(saved, lean_network, tokenizer, max_length)
    because = f"{' and '.join(changes)}; probabilities within {gap:.0e} of the saved model's"
    if not gap <= TOLERANCE:
        because = f"the faster form differs by {gap:.1e}; at most {TOLERANCE:g} is allowed"
        return SavedNetwork(saved), Decision("network", "as saved", because)
    return lean_network, Decision("network", "equivalent faster form", because)


def largest_gap(first: Any, second: Any, tokenizer: Any, max_length: int) -> float:
    """The largest difference of the outputs of two networks on texts of several lengths, padded and
    single: of a probability, or of a number as a share of the largest."""
    largest, words = 0.0, TEXT.split()
    for counts in ((1,), (3, 9, 27), (2 * max_length,)):
        batch = tokenizer(
            [" ".join(words[i % len(words)] for i in range(count)) for count in counts],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            outputs = [np.asarray(net(**batch).double()) for net in (first, second)]
        if outputs[0].shape[-1] > 1:
            outputs = [softmax(one) for one in outputs]
        attended = np.asarray(batch["attention_mask"], dtype=bool)
        if outputs[0].ndim == 3:
            outputs = [one[attended] for one in outputs]
        scale = max(1.0, float(np.abs(outputs[0]).max()))
        largest = max(largest, float(np.abs(outputs[0] - outputs[1]).max()) / scale)
    return largest


class EngineFile:
    """A network in a file that another inference engine runs, with the features as a second
    output."""

    def __init__(self, engine: OnnxEngine | OpenVinoEngine, multiple: int = 1) -> None:
        self._engine, self.multiple = engine, multiple
        self._features: list[Tensor] | None = None

    def __call__(self, **batch: Tensor) -> Tensor:
        logits, *more = self._engine.run_all(batch)
        if self._features is not None and more:
            states = torch.from_numpy(np.array(more[0], dtype=np.float32))
            if states.dim() == 3:
                states = masked_mean(states, batch.get("attention_mask"))
            self._features.append(states.flatten(1))
        return torch.from_numpy(np.array(logits, dtype=np.float32))

    @contextmanager
    def capturing_features(self) -> Iterator[list[Tensor]]:
        self._features = []
        try:
            yield self._features
        finally:
            self._features = None


@dataclass(frozen=True)
class PrecisionChoice:
    """The chosen model: ``use`` predicts tables through ``network`` (``None``: its own network), in
    ``precision``, with the reason."""

    use: TaskPredictor
    network: Graph | None
    precision: str
    because: str


def choose_precision(
    run: Path | None, predictor: Predictor, precision: str, notify: DecisionListener
) -> PrecisionChoice:
    """The network of a run in ``precision``: ``float32`` or ``auto``.

    Raises ``RecipeError`` for another value; ``MachineError`` where an export cannot be written.
    """
    if precision not in PRECISIONS:
        raise RecipeError(
            "--precision", "is unknown", precision, suggest_name(precision, PRECISIONS)
        )
    model_use, because = predictor.model, "the same predictions as `holdfast predict`"
    if precision == AUTO and run is not None:
        exported = _exported_form(run, model_use, notify)
        if isinstance(exported, PrecisionChoice):
            return exported
        because = exported
    network: Graph | None = None
    if isinstance(model_use, TextPredictor | TagPredictor) and len(model_use.models) == 1:
        first_model: Any = model_use.models[0]
        model = first_model.text if isinstance(first_model, TextWithExtraFeatures) else first_model
        tags = isinstance(model_use, TagPredictor)
        network, decision = fastest_network(
            model.network, model.tokenizer, model.max_length, tags=tags
        )
        if decision is not None:
            notify(decision)
        model_use = _with_network(model_use, network)
    elif isinstance(model_use, ImagePredictor) and len(model_use.models) == 1:
        network = SavedNetwork(model_use.models[0].network)
    return PrecisionChoice(model_use, network, FLOAT32, because)


def _with_network(use: Any, network: Graph) -> TaskPredictor:
    """The same model with another network."""
    model: Any = use.models[0]
    replacement: Any
    if isinstance(use, ImagePredictor):
        replacement = FittedVision(network, model.processor, model.classes, model.channels)
    elif isinstance(model, TextWithExtraFeatures):
        text = model.text
        replacement = FittedText(network, text.tokenizer, text.classes, text.max_length)
        replacement = TextWithExtraFeatures(replacement, model.layer)
    else:
        replacement = FittedText(network, model.tokenizer, model.classes, model.max_length)
    result: TaskPredictor = replace(use, models=[replacement])
    return result


def _exported_form(
    run: Path, use: TaskPredictor, notify: DecisionListener
) -> PrecisionChoice | str:
    """The form that an export of the run kept, exported now where there is none; or the reason why
    no form is faster than the model itself."""
    if not isinstance(use, TextPredictor | TagPredictor | ImagePredictor):
        return "export measures only classifiers and taggers; this model is generative"
    folders = [place for name in FORMATS if (place := run / EXPORT_FOLDER / name / FACTS).is_file()]
    if not folders:
        exported = _new_export(run, notify)
        if isinstance(exported, str):
            return exported
        folders = [exported / FACTS]
    fastest, reasons = None, []
    for place in folders:
        facts = json.loads(place.read_text("utf-8"))
        if list(facts.get("labels") or ()) != list(use.models[0].classes):
            raise RunError(str(place), "is not an export of this run", None, "Remove it.")
        exported_ms = _ms_per_row(facts, str(facts["format"]), str(facts["precision"]))
        torch_ms = _ms_per_row(facts, "torch", FLOAT32)
        if not exported_ms < torch_ms:
            description = f"{exported_ms:g} ms per row, the model itself {torch_ms:g} ms"
            reasons.append(f"{place.parent} is not faster: {description}")
        elif fastest is None or exported_ms < fastest[0]:
            fastest = exported_ms, torch_ms, place, facts
    if fastest is None:
        return "; ".join(reasons)
    exported_ms, torch_ms, place, facts = fastest
    path = place.parent / str(facts["file"])
    if facts["format"] == "onnx":
        network = EngineFile(OnnxEngine(path, features=True))
    else:
        form = "bf16" if facts["precision"] == BFLOAT16 else "f32"
        network = EngineFile(OpenVinoEngine(path, form, features=True), multiple=8)
    because = (
        f"kept in {place.parent} ({facts['kept_because']}); {exported_ms:g} ms per row "
        f"at batch size {BATCH_SIZE} when exported, the model itself {torch_ms:g} ms"
    )
    description = f"{facts['precision']} ({facts['format']})"
    return PrecisionChoice(_with_network(use, network), network, description, because)


def _ms_per_row(facts: Mapping[str, Any], engine: str, precision: str) -> float:
    """Milliseconds per row, as the export measured them."""
    for row in facts["speed"]["rows"]:
        if row["engine"] == engine and row["precision"] == precision:
            return float(row["ms"][BATCH_SIZE])
    return float("inf")


def _new_export(run: Path, notify: DecisionListener) -> Path | str:
    """A new export in the run's folder; or the reason why there is none."""
    form = next(
        (name for name, package in FORMATS.items() if importlib.util.find_spec(package)), None
    )
    if form is None:
        return (
            "neither OpenVINO nor onnxruntime is installed, so nothing was measured. "
            f"{INSTALL_HINT}"
        )
    home = run / EXPORT_FOLDER / form
    because = f"--precision auto uses the form that export measures; it is stored in {home}"
    notify(Decision("exporting", form, because, prominent=True))
    format_of(form, str(read_result(run)["task"]))
    try:
        with decisions_to(None):
            return export(run, form, int8=True).folder
    except RunError:
        # Another server of the same run was faster.
        if (home / FACTS).is_file():
            return home
        raise
    except InputError as error:
        # The folder is read-only.
        if os.access(run, os.W_OK):
            return f"it cannot be exported: {error.what}: {error.rule}"
        scratch = scratch_file("export", "")
        scratch.unlink(missing_ok=True)
        with decisions_to(None):
            return export(run, form, int8=True, out=scratch).folder
