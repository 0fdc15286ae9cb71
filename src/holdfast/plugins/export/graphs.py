"""Exported graphs: writing them, and engines that run them.

Writing: a network becomes one ONNX file for any number of rows of any length, with all metadata
inside; the same with 8-bit weights; and OpenVINO's two files of either. Running: a function of a
tokenizer's (or processor's) batch; and the input of a classifier's last layer, as a second output
of its graph.
"""

from __future__ import annotations

import contextlib
import io
import json
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

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Floats
from holdfast.plugins.export.model import Exportable
from holdfast.plugins.export.proof import synthetic_rows

# A protocol-buffer file holds two GiB at most; larger weights are in a file next to it.
MAX_PROTOBUF_BYTES = 1_800_000_000
WEIGHTS_FILE = "model.onnx.data"
# The key under which OpenVINO's files hold the facts.
RT_INFO_KEY = "holdfast"


def write_onnx(exportable: Exportable, path: Path, facts: Mapping[str, str]) -> None:
    """Trace the network with ``torch.export``, with dynamic batch and length, and write it with
    ``facts`` as its metadata. Raises ``ModelError`` where its computation has no ONNX form.
    """
    dynamic = torch.export.Dim.DYNAMIC
    # One row and one token would be taken for constants.
    example = synthetic_rows(
        exportable, 3, 9 if exportable.tokens is None else min(9, exportable.tokens)
    )
    open_axes = {0: dynamic, 1: dynamic} if exportable.shape is None else {0: dynamic}
    with (
        silenced(),
        torch.inference_mode(False),
        torch.no_grad(),
        reading_errors("the model", ModelError, "cannot be written as ONNX"),
    ):
        program: Any = torch.onnx.export(
            exportable.network,
            example,
            dynamo=True,
            dynamic_shapes=(tuple(dict(open_axes) for _ in example),),
            input_names=list(exportable.inputs),
            output_names=["logits"],
            verbose=False,
        )
        model = program.model_proto
    # Shapes of single values that the exporter's own folding has made invalid.
    del model.graph.value_info[:]
    model.producer_name = "holdfast"
    _save(model, path, facts)


def quantise(source: Path, target: Path) -> None:
    """Write ``target`` with 8-bit weights from the float32 ONNX file ``source``, by onnxruntime's
    dynamic quantisation: the inputs of the products are quantised at run time.

    Per channel: one scale for a full matrix costs three times the error (cosine 0.967 against 0.993
    on MiniLM). The metadata stays. Raises ``ModelError`` where the graph cannot be quantised.
    """
    with silenced(), reading_errors(str(source.name), ModelError, "cannot be quantised"):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8)


def move_with_facts(source: Path, target: Path, facts: Mapping[str, str]) -> None:
    """Move an ONNX file to ``target`` in the same folder, with other ``facts``; every other model
    file there is deleted.
    """
    import onnx

    model = onnx.load(str(source))
    for path in source.parent.glob("model.*"):
        path.unlink()
    _save(model, target, facts)


def _save(model: Any, path: Path, facts: Mapping[str, str]) -> None:
    import onnx

    onnx.helper.set_model_props(model, dict(facts))
    if model.ByteSize() < MAX_PROTOBUF_BYTES:
        onnx.save(model, str(path))
    else:
        onnx.save(model, str(path), save_as_external_data=True, location=WEIGHTS_FILE)


def write_openvino(source: Path, path: Path, facts: Mapping[str, str]) -> None:
    """Write ``path`` (.xml) and its weights (.bin) in the precision of the ONNX file ``source``:
    OpenVINO's default would store float16. Raises ``ModelError`` where it cannot read the graph.
    """
    with silenced(), reading_errors("the model", ModelError, "cannot be written for OpenVINO"):
        import openvino

        model: Any = openvino.convert_model(str(source))
        for name, value in facts.items():
            model.set_rt_info(value, [RT_INFO_KEY, name])
        model.set_rt_info(json.dumps(list(facts)), [RT_INFO_KEY, "names"])
        openvino.save_model(model, str(path), compress_to_fp16=False)


# A file that is in memory once more.
MAX_BYTES_IN_MEMORY = 1_500_000_000
# The last layer and what may stand between it and the logits, also in a graph that computes in
# eight bits.
PRODUCTS = ("MatMul", "Gemm", "FullyConnected", "MatMulInteger")
BETWEEN = ("Add", "Mul", "Identity", "Cast", "Convert", "Result", "Squeeze", "Reshape")
ROUNDED = ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "FakeQuantize")
# OpenVINO keeps a kernel with its memory for every shape that it meets, up to 5,000: a service with
# texts of all lengths grew by 1.5 MB a pass.
SERVING = {"CPU_RUNTIME_CACHE_CAPACITY": "64"}


class Engine(ABC):
    """A model behind its ``inputs``, by name.

    With ``features`` the input of the last layer is an output of its own after the logits, where
    the graph has it; ``outputs`` is the number of outputs.
    """

    inputs: tuple[str, ...]
    outputs: int = 1

    @abstractmethod
    def run_all(self, batch: Mapping[str, Tensor]) -> list[Floats]:
        """Every output, float32, for the model's inputs in a batch; the logits are the first."""

    @final
    def run(self, batch: Mapping[str, Tensor]) -> Floats:
        """The logits, float32."""
        return self.run_all(batch)[0]

    @final
    def __call__(self, **batch: Tensor) -> Tensor:
        return torch.from_numpy(self.run(batch))


class OnnxEngine(Engine):
    """onnxruntime on the CPU, with as many threads as torch has."""

    def __init__(self, path: Path, *, features: bool = False) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        if features:
            # For a service: spinning threads would take the core from the thread that reads
            # requests.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            onnx_with_features(path) if features else str(path),
            options,
            providers=["CPUExecutionProvider"],
        )
        self.inputs = tuple(one.name for one in self._session.get_inputs())
        self.outputs = len(self._session.get_outputs())

    def run_all(self, batch: Mapping[str, Tensor]) -> list[Floats]:
        feed = {name: batch[name].numpy() for name in self.inputs}
        return [np.asarray(one, dtype=np.float32) for one in self._session.run(None, feed)]


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU.

    ``precision`` is what it computes in: by default it takes bfloat16 wherever the processor has
    it, whatever the file says.
    """

    def __init__(self, path: Path, precision: str = "f32", *, features: bool = False) -> None:
        with silenced():
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

    def run_all(self, batch: Mapping[str, Tensor]) -> list[Floats]:
        outputs = self._compiled({name: batch[name].numpy() for name in self.inputs})
        return [np.array(outputs[place], dtype=np.float32) for place in range(self.outputs)]


class TorchEngine(Engine):
    """A network that runs in its own precision."""

    def __init__(self, network: Any, inputs: tuple[str, ...]) -> None:
        self._network = network
        self.inputs = inputs
        self._dtype = next(network.parameters()).dtype

    def run_all(self, batch: Mapping[str, Tensor]) -> list[Floats]:
        values = [batch[name] for name in self.inputs]
        with torch.inference_mode():
            cast = [v.to(self._dtype) if v.is_floating_point() else v for v in values]
            return [self._network(*cast).float().numpy()]


def add_features(model: Any) -> None:
    """Make an OpenVINO model return its features after the logits, where it has a plain last
    layer.
    """
    layer_input = model.outputs[0].get_node().input_value(0)
    while (node := layer_input.get_node()).get_type_name() not in PRODUCTS:
        inputs = [v for v in node.input_values() if v.get_node().get_type_name() != "Constant"]
        if node.get_type_name() not in BETWEEN or not inputs:
            return
        layer_input = inputs[0]
    model.add_outputs([node.input_value(0)])


def onnx_with_features(path: Path) -> bytes | str:
    """An ONNX file that returns its features after the logits; the path itself where there is no
    plain last layer, or where the file is very large.
    """
    import onnx

    if path.stat().st_size > MAX_BYTES_IN_MEMORY:
        return str(path)
    model = onnx.load(str(path))
    graph = model.graph
    node_of_output = {name: node for node in graph.node for name in node.output}
    constant = {one.name for one in graph.initializer}
    constant |= {name for name, node in node_of_output.items() if node.op_type == "Constant"}
    tensor_name = graph.output[0].name
    while (node := node_of_output.get(tensor_name)) is not None and node.op_type not in PRODUCTS:
        inputs = [name for name in node.input if name and name not in constant]
        if node.op_type not in BETWEEN or not inputs:
            return str(path)
        tensor_name = inputs[0]
    if node is None:
        return str(path)
    tensor_name = node.input[0]
    # With eight bits the product's input is quantised, and the features are what was rounded.
    while (producer := node_of_output.get(tensor_name)) is not None and producer.op_type in ROUNDED:
        tensor_name = producer.input[0]
    graph.output.append(
        onnx.helper.make_tensor_value_info(tensor_name, onnx.TensorProto.FLOAT, None)
    )
    content: bytes = model.SerializeToString()
    return content


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress warnings, log lines below errors, progress bars, standard output and standard error
    of the block. Errors pass unchanged.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # OpenVINO's telemetry contacts a server each time it is imported.
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
