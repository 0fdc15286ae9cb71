"""What a service computes in: a network in float32, or the form that ``export`` measured and kept.

A ``Graph`` maps a tokenizer's (or a processor's) batch to logits, and while ``hearing`` is open
adds what its last layer read of the rows of each pass, [B, D].
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
from holdfast.tasks.classes.answers import TextWithExtraFeatures, FittedText, TextPredictor
from holdfast.tasks.images.task import FittedVision, ImagePredictor
from holdfast.tasks.tags.answers import TagPredictor

AUTO = "auto"
PRECISIONS = (FLOAT32, AUTO)
# A format and its package, in the order in which they are tried where nothing was exported yet.
FORMATS = {"openvino": "openvino", "onnx": "onnxruntime"}
MISSING = "Install one: pip install 'holdfast[export]'."
# Of an export's table: texts together, as a service asks them.
BATCH = "16"
# How far a probability may lie from that of the saved model (a number: of the largest).
TOLERANCE = 1e-5
TEXT = "it was not what I had hoped for but the people were kind and 7 of 10 came back"


class Graph(Protocol):
    """A batch → logits [B, C], of a tagger [B, T, C]. It keeps something of each shape that it
    meets where ``multiple`` is above 1: lengths are then to be multiples of it."""

    multiple: int

    def __call__(self, **batch: Tensor) -> Tensor: ...

    def hearing(self) -> AbstractContextManager[list[Tensor]]: ...


class Saved:
    """The network of a run's folder as ``predict`` asks it."""

    multiple = 1

    def __init__(self, network: Any) -> None:
        self._network = network

    def __call__(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self._network(**batch)
        return logits

    def hearing(self) -> AbstractContextManager[list[Tensor]]:
        return recording_features(self._network.model)


class Lean:
    """The same function in less time: without the block that only carries mean pooling, adapters
    merged, and its products by oneDNN where that is quicker. Large weights are shared with the
    saved network."""

    multiple = 1

    def __init__(self, plain: nn.Module, tokenizer: Any, max_length: int, *, tags: bool) -> None:
        kept: dict[int, Any] = {}
        if not getattr(plain, "active_peft_config", None):
            # A copy of its own is needed of none but a norm's weights, which leaving out the
            # carrying block scales.
            layers = [one for one in plain.modules() if isinstance(one, nn.Linear | nn.Embedding)]
            kept = {id(p): p for layer in layers for p in layer.parameters()}
        again = copy.deepcopy(plain, kept)
        whole = exportable_text_model(plain, again, tokenizer, max_length, each_token=tags)
        self.network: PositionalModel = whole.network
        self.lean = whole.lean

    def __call__(self, **batch: Tensor) -> Tensor:
        logits: Tensor = self.network(*(batch[name] for name in self.network.inputs))
        return logits

    def hearing(self) -> AbstractContextManager[list[Tensor]]:
        inner = self.network.model
        return recording_features(inner, inner.head if isinstance(inner, WithoutCarrier) else None)


def quicker(
    saved: Any, tokenizer: Any, max_length: int, *, tags: bool
) -> tuple[Graph, Decision | None]:
    """The lean network of a text model where it answers as the saved one does, else that one; with
    what was decided, where there was a choice."""
    lean = Lean(saved.model, tokenizer, max_length, tags=tags)
    done = ["no block that only carries the mean"] if lean.lean else []
    gain = measure_gain()
    if gain >= FASTER_BY:
        use_onednn(lean.network)
        done.append(f"products by oneDNN, {gain:.1f} times as fast here")
    if not done:
        return Saved(saved), None
    gap = largest_gap(saved, lean, tokenizer, max_length)
    because = f"{' and '.join(done)}; probabilities within {gap:.0e} of the saved model's"
    if not gap <= TOLERANCE:
        because = f"another form lies {gap:.1e} off, and at most {TOLERANCE:g} are allowed"
        return Saved(saved), Decision("network", "as it was saved", because)
    return lean, Decision("network", "the same function, lean", because)


def largest_gap(first: Any, second: Any, tokenizer: Any, max_length: int) -> float:
    """How far two networks lie apart on texts of several lengths, padded and alone: the largest
    difference of a probability, or of a number as a share of the largest."""
    worst, words = 0.0, TEXT.split()
    for counts in ((1,), (3, 9, 27), (2 * max_length,)):
        batch = tokenizer(
            [" ".join(words[i % len(words)] for i in range(count)) for count in counts],
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            found = [np.asarray(net(**batch).double()) for net in (first, second)]
        if found[0].shape[-1] > 1:
            found = [softmax(one) for one in found]
        real = np.asarray(batch["attention_mask"], dtype=bool)
        if found[0].ndim == 3:
            found = [one[real] for one in found]
        scale = max(1.0, float(np.abs(found[0]).max()))
        worst = max(worst, float(np.abs(found[0] - found[1]).max()) / scale)
    return worst


class EngineFile:
    """A network in a file that another engine runs, with the features as a second output."""

    def __init__(self, engine: OnnxEngine | OpenVinoEngine, multiple: int = 1) -> None:
        self._engine, self.multiple = engine, multiple
        self._heard: list[Tensor] | None = None

    def __call__(self, **batch: Tensor) -> Tensor:
        logits, *more = self._engine.run_all(batch)
        if self._heard is not None and more:
            states = torch.from_numpy(np.array(more[0], dtype=np.float32))
            if states.dim() == 3:
                states = masked_mean(states, batch.get("attention_mask"))
            self._heard.append(states.flatten(1))
        return torch.from_numpy(np.array(logits, dtype=np.float32))

    @contextmanager
    def hearing(self) -> Iterator[list[Tensor]]:
        self._heard = []
        try:
            yield self._heard
        finally:
            self._heard = None


@dataclass(frozen=True)
class Computing:
    """What is asked: ``use`` answers tables through ``network`` (``None``: through its own), in
    ``precision``, and ``because`` says why."""

    use: TaskPredictor
    network: Graph | None
    precision: str
    because: str


def computing(
    run: Path | None, predictor: Predictor, precision: str, notify: DecisionListener
) -> Computing:
    """The network of a run that is asked in ``precision``: ``float32`` or ``auto``.

    Raises ``RecipeError`` for another word; ``MachineError`` where an export cannot be written.
    """
    if precision not in PRECISIONS:
        raise RecipeError("--precision", "is unknown", precision, suggest_name(precision, PRECISIONS))
    use, because = predictor.model, "as `holdfast predict` answers"
    if precision == AUTO and run is not None:
        found = _measured(run, use, notify)
        if isinstance(found, Computing):
            return found
        because = found
    network: Graph | None = None
    if isinstance(use, TextPredictor | TagPredictor) and len(use.models) == 1:
        first: Any = use.models[0]
        model = first.text if isinstance(first, TextWithExtraFeatures) else first
        tags = isinstance(use, TagPredictor)
        network, decision = quicker(model.network, model.tokenizer, model.max_length, tags=tags)
        if decision is not None:
            notify(decision)
        use = _through(use, network)
    elif isinstance(use, ImagePredictor) and len(use.models) == 1:
        network = Saved(use.models[0].network)
    return Computing(use, network, FLOAT32, because)


def _through(use: Any, network: Graph) -> TaskPredictor:
    """The same with another network in the place of its own."""
    model: Any = use.models[0]
    one: Any
    if isinstance(use, ImagePredictor):
        one = FittedVision(network, model.processor, model.classes, model.channels)
    elif isinstance(model, TextWithExtraFeatures):
        text = model.text
        one = FittedText(network, text.tokenizer, text.classes, text.max_length)
        one = TextWithExtraFeatures(one, model.layer)
    else:
        one = FittedText(network, model.tokenizer, model.classes, model.max_length)
    changed: TaskPredictor = replace(use, models=[one])
    return changed


def _measured(run: Path, use: TaskPredictor, notify: DecisionListener) -> Computing | str:
    """The form that an export of the run kept, made where there is none; or why there is none that
    is quicker than the model itself."""
    if not isinstance(use, TextPredictor | TagPredictor | ImagePredictor):
        return "what export measures are classifiers and taggers, and this model writes"
    folders = [place for name in FORMATS if (place := run / EXPORT_FOLDER / name / FACTS).is_file()]
    if not folders:
        made = _made(run, notify)
        if isinstance(made, str):
            return made
        folders = [made / FACTS]
    chosen, why = None, []
    for place in folders:
        facts = json.loads(place.read_text("utf-8"))
        if list(facts.get("labels") or ()) != list(use.models[0].classes):
            raise RunError(str(place), "is not an export of this run", None, "Take it away.")
        ours = _ms(facts, str(facts["format"]), str(facts["precision"]))
        itself = _ms(facts, "torch", FLOAT32)
        if not ours < itself:
            told = f"{ours:g} ms a row, the model itself {itself:g}"
            why.append(f"{place.parent} is not faster: {told}")
        elif chosen is None or ours < chosen[0]:
            chosen = ours, itself, place, facts
    if chosen is None:
        return "; ".join(why)
    ours, itself, place, facts = chosen
    path = place.parent / str(facts["file"])
    if facts["format"] == "onnx":
        network = EngineFile(OnnxEngine(path, features=True))
    else:
        form = "bf16" if facts["precision"] == BFLOAT16 else "f32"
        network = EngineFile(OpenVinoEngine(path, form, features=True), multiple=8)
    because = (
        f"{place.parent} keeps it ({facts['kept_because']}); {ours:g} ms a row at batch {BATCH} "
        f"where it was made, the model itself {itself:g}"
    )
    told = f"{facts['precision']} ({facts['format']})"
    return Computing(_through(use, network), network, told, because)


def _ms(facts: Mapping[str, Any], engine: str, precision: str) -> float:
    """Milliseconds a row, as the export measured them."""
    for row in facts["speed"]["rows"]:
        if row["engine"] == engine and row["precision"] == precision:
            return float(row["ms"][BATCH])
    return float("inf")


def _made(run: Path, notify: DecisionListener) -> Path | str:
    """A new export, where the run has its exports; or why there is none."""
    form = next((name for name, pack in FORMATS.items() if importlib.util.find_spec(pack)), None)
    if form is None:
        return f"neither OpenVINO nor onnxruntime is installed, so nothing was measured. {MISSING}"
    home = run / EXPORT_FOLDER / form
    because = f"--precision auto takes what export measures; it is kept in {home}"
    notify(Decision("exporting", form, because, prominent=True))
    format_of(form, str(read_result(run)["task"]))
    try:
        with decisions_to(None):
            return export(run, form, int8=True).folder
    except RunError:
        # Another server of the same run was quicker.
        if (home / FACTS).is_file():
            return home
        raise
    except InputError as error:
        # A folder that may only be read.
        if os.access(run, os.W_OK):
            return f"it cannot be exported: {error.what}: {error.rule}"
        place = scratch_file("export", "")
        place.unlink(missing_ok=True)
        with decisions_to(None):
            return export(run, form, int8=True, out=place).folder
