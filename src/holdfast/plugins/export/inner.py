"""What the last layer of an exported classifier reads, as a second output of its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# A file that is held in memory once more.
LARGEST = 1_500_000_000
# The last layer and what may stand between it and the logits, in a graph that computes in eight
# bits too.
PRODUCTS = ("MatMul", "Gemm", "FullyConnected", "MatMulInteger")
BETWEEN = ("Add", "Mul", "Identity", "Cast", "Convert", "Result", "Squeeze", "Reshape")
ROUNDED = ("DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear", "FakeQuantize")


def add_features(model: Any) -> bool:
    """Let a model of OpenVINO give its features behind the logits; ``False`` where there is no
    plain last layer, and nothing is changed."""
    place = model.outputs[0].get_node().input_value(0)
    while (node := place.get_node()).get_type_name() not in PRODUCTS:
        inputs = [v for v in node.input_values() if v.get_node().get_type_name() != "Constant"]
        if node.get_type_name() not in BETWEEN or not inputs:
            return False
        place = inputs[0]
    model.add_outputs([node.input_value(0)])
    return True


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
