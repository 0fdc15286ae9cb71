"""What asks an exported file: a function of a tokenizer's (or processor's) batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.core.records import Floats
from holdfast.plugins.export.inner import add_features, onnx_with_features
from holdfast.plugins.export.quiet import hushed

# Of every shape that it meets OpenVINO keeps a kernel with its memory, up to 5,000: a service that
# is asked texts of all lengths grew by 1.5 MB a pass.
SERVING = {"CPU_RUNTIME_CACHE_CAPACITY": "64"}


class OnnxEngine:
    """onnxruntime on the processor, with as many threads as torch has.

    With ``features`` what the last layer reads is an output of its own behind the logits, where
    ``inner`` finds it. ``outputs`` says how many there are.
    """

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

    def run(self, given: Mapping[str, Tensor]) -> Floats:
        """The logits, float32, for what the file takes of a batch."""
        return self.all(given)[0]

    def all(self, given: Mapping[str, Tensor]) -> list[Floats]:
        """Every output, float32; the logits are the first."""
        feed = {name: given[name].numpy() for name in self.inputs}
        return [np.asarray(one, dtype=np.float32) for one in self._session.run(None, feed)]

    def __call__(self, **given: Tensor) -> Tensor:
        return torch.from_numpy(self.run(given))


class OpenVinoEngine:
    """OpenVINO on the processor. ``precision`` is what it computes in: left to itself it takes
    bfloat16 wherever the processor has it, whatever the file says. ``features`` and ``outputs`` as
    of ``OnnxEngine``."""

    def __init__(self, path: Path, precision: str = "f32", *, features: bool = False) -> None:
        with hushed():
            import openvino

            core: Any = openvino.Core()
            model = core.read_model(str(path))
            if features:
                add_features(model)
            self._compiled: Any = core.compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": precision,
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                    "NUM_STREAMS": 1,
                    **(SERVING if features else {}),
                },
            )
        self.inputs = tuple(str(one.any_name) for one in self._compiled.inputs)
        self.outputs = len(self._compiled.outputs)

    def run(self, given: Mapping[str, Tensor]) -> Floats:
        """As ``OnnxEngine.run``."""
        return self.all(given)[0]

    def all(self, given: Mapping[str, Tensor]) -> list[Floats]:
        """As ``OnnxEngine.all``."""
        feed = {name: given[name].numpy() for name in self.inputs}
        found = self._compiled(feed)
        return [np.array(found[place], dtype=np.float32) for place in range(self.outputs)]

    def __call__(self, **given: Tensor) -> Tensor:
        return torch.from_numpy(self.run(given))


class TorchEngine:
    """A network under the same door. It is asked in its own precision."""

    def __init__(self, network: Any, inputs: tuple[str, ...]) -> None:
        self._network = network
        self.inputs = inputs
        self._dtype = next(network.parameters()).dtype

    def run(self, given: Mapping[str, Tensor]) -> Floats:
        """As ``OnnxEngine.run``."""
        taken = [given[name] for name in self.inputs]
        with torch.inference_mode():
            cast = [v.to(self._dtype) if v.is_floating_point() else v for v in taken]
            found: Floats = self._network(*cast).float().numpy()
        return found

    def __call__(self, **given: Tensor) -> Tensor:
        return torch.from_numpy(self.run(given))
