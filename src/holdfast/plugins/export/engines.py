"""What asks an exported file: a function of a tokenizer's (or processor's) batch; and what the last
layer of a classifier reads, as a second output of its graph.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from holdfast.core.records import Floats

# A file that is held in memory once more.
LARGEST = 1_500_000_000
# The last layer and what may stand between it and the logits, in a graph that computes in eight
# bits too.
PRODUCTS = ("MatMul", "Gemm", "FullyConnected", "MatMulInteger")
BETWEEN = ("Add", "Mul", "Identity", "Cast", "Convert", "Result", "Squeeze", "Reshape")
ROUNDED = ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "FakeQuantize")
# Of every shape that it meets OpenVINO keeps a kernel with its memory, up to 5,000: a service that
# is asked texts of all lengths grew by 1.5 MB a pass.
SERVING = {"CPU_RUNTIME_CACHE_CAPACITY": "64"}


class Engine(ABC):
    """A model behind its ``inputs``, by name. With ``features`` what the last layer reads is an
    output of its own behind the logits, where the graph has it: ``outputs`` says how many there
    are."""

    inputs: tuple[str, ...]
    outputs: int = 1

    @abstractmethod
    def all(self, given: Mapping[str, Tensor]) -> list[Floats]:
        """Every output, float32, for what the model takes of a batch; the logits are the first."""

    @final
    def run(self, given: Mapping[str, Tensor]) -> Floats:
        """The logits, float32."""
        return self.all(given)[0]

    @final
    def __call__(self, **given: Tensor) -> Tensor:
        return torch.from_numpy(self.run(given))


class OnnxEngine(Engine):
    """onnxruntime on the processor, with as many threads as torch has."""

    def __init__(self, path: Path, *, features: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        if features:
            # A service: threads that wait in a circle take the core from who reads requests.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            onnx_with_features(path) if features else str(path),
            options,
            providers=["CPUExecutionProvider"],
        )
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.outputs = len(self._session.get_outputs())

    def all(self, given: Mapping[str, Tensor]) -> list[Floats]:
        feed = {name: given[name].numpy() for name in self.inputs}
        return [np.asarray(one, dtype=np.float32) for one in self._session.run(None, feed)]


class OpenVinoEngine(Engine):
    """OpenVINO on the processor. ``precision`` is what it computes in: left to itself it takes
    bfloat16 wherever the processor has it, whatever the file says."""

    def __init__(self, path: Path, precision: str = "f32", *, features: bool = False) -> None:
        with hushed():
            import openvino

            core: Any = openvino.Core()
            model = core.read_model(str(path))
            if features:
                add_features(model)
            settings = {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                **(SERVING if features else {}),
            }
            self._compiled: Any = core.compile_model(model, "CPU", settings)
        self.inputs = tuple(str(one.any_name) for one in self._compiled.inputs)
        self.outputs = len(self._compiled.outputs)

    def all(self, given: Mapping[str, Tensor]) -> list[Floats]:
        found = self._compiled({name: given[name].numpy() for name in self.inputs})
        return [np.array(found[place], dtype=np.float32) for place in range(self.outputs)]


class TorchEngine(Engine):
    """A network, asked in its own precision."""

    def __init__(self, network: Any, inputs: tuple[str, ...]) -> None:
        self._network = network
        self.inputs = inputs
        self._dtype = next(network.parameters()).dtype

    def all(self, given: Mapping[str, Tensor]) -> list[Floats]:
        taken = [given[name] for name in self.inputs]
        with torch.inference_mode():
            cast = [v.to(self._dtype) if v.is_floating_point() else v for v in taken]
            return [self._network(*cast).float().numpy()]


def add_features(model: Any) -> None:
    """Let a model of OpenVINO give its features behind the logits, where it has a plain last
    layer."""
    place = model.outputs[0].get_node().input_value(0)
    while (node := place.get_node()).get_type_name() not in PRODUCTS:
        inputs = [v for v in node.input_values() if v.get_node().get_type_name() != "Constant"]
        if node.get_type_name() not in BETWEEN or not inputs:
            return
        place = inputs[0]
    model.add_outputs([node.input_value(0)])


def onnx_with_features(path: Path) -> bytes | str:
    """An ONNX file that gives its features behind the logits; the path itself where there is no
    plain last layer, or it is very large."""
    import onnx

    if path.stat().st_size > LARGEST:
        return str(path)
    model = onnx.load(str(path))
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constant = {one.name for one in graph.initializer}
    constant |= {name for name, node in makers.items() if node.op_type == "Constant"}
    place = graph.output[0].name
    while (node := makers.get(place)) is not None and node.op_type not in PRODUCTS:
        inputs = [name for name in node.input if name and name not in constant]
        if node.op_type not in BETWEEN or not inputs:
            return str(path)
        place = inputs[0]
    if node is None:
        return str(path)
    place = node.input[0]
    # Eight bits are of the product's input, and the features are what was rounded.
    while (before := makers.get(place)) is not None and before.op_type in ROUNDED:
        place = before.input[0]
    graph.output.append(onnx.helper.make_tensor_value_info(place, onnx.TensorProto.FLOAT, None))
    found: bytes = model.SerializeToString()
    return found


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """No warning, no log line below an error, no bar and no line on standard output or standard
    error from the block. Errors pass as they are."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # OpenVINO's telemetry asks a server each time it is imported.
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    try:
        nowhere = io.StringIO()
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
