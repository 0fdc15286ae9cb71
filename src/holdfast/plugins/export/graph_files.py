"""A network → one ONNX file for any number of rows of any length, with what it needs inside; the
same in eight bits; and OpenVINO's two files of either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door
from holdfast.plugins.export.engines import hushed
from holdfast.plugins.export.model import Exportable
from holdfast.plugins.export.proof import rows_of

# A file of protocol buffers holds two GiB at most; larger weights lie beside it.
LARGEST = 1_800_000_000
BESIDE = "model.onnx.data"
# Under what OpenVINO's files hold the facts.
HOME = "holdfast"


def write_onnx(exportable: Exportable, path: Path, facts: Mapping[str, str]) -> None:
    """Trace the network with ``torch.export``, its batch and length left open, and write it with
    ``facts`` as its metadata. Raises ``ModelError`` where its computation has no ONNX form."""
    free = torch.export.Dim.DYNAMIC
    # One row and one token would be taken for constants.
    example = rows_of(exportable, 3, 9 if exportable.tokens is None else min(9, exportable.tokens))
    open_axes = {0: free, 1: free} if exportable.shape is None else {0: free}
    with (
        hushed(),
        torch.inference_mode(False),
        torch.no_grad(),
        door("the model", ModelError, "cannot be written as ONNX"),
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
    # Shapes of single values that the exporter's own folding has made untrue.
    del model.graph.value_info[:]
    model.producer_name = "holdfast"
    _save(model, path, facts)


def quantise(source: Path, target: Path) -> None:
    """Write ``target``, weights in eight bits, from the float32 ONNX file ``source``, by
    onnxruntime's dynamic quantisation: what the weights multiply is quantised as it comes. Per
    channel: one scale for a whole matrix costs three times the error (cosine 0.967 against 0.993 on
    MiniLM). The metadata stays. Raises ``ModelError`` where the graph cannot be quantised."""
    with hushed(), door(str(source.name), ModelError, "cannot be quantised"):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8)


def with_facts(source: Path, target: Path, facts: Mapping[str, str]) -> None:
    """Move an ONNX file to ``target`` in the same folder, with other ``facts``; every other file of
    a model there goes."""
    import onnx

    model = onnx.load(str(source))
    for path in source.parent.glob("model.*"):
        path.unlink()
    _save(model, target, facts)


def _save(model: Any, path: Path, facts: Mapping[str, str]) -> None:
    import onnx

    onnx.helper.set_model_props(model, dict(facts))
    if model.ByteSize() < LARGEST:
        onnx.save(model, str(path))
    else:
        onnx.save(model, str(path), save_as_external_data=True, location=BESIDE)


def read_facts(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def write_openvino(source: Path, path: Path, facts: Mapping[str, str]) -> None:
    """Write ``path`` (.xml) and its weights (.bin) in the precision of the ONNX file ``source``: by
    itself OpenVINO would store halves. Raises ``ModelError`` where it cannot read the graph."""
    with hushed(), door("the model", ModelError, "cannot be written for OpenVINO"):
        import openvino

        model: Any = openvino.convert_model(str(source))
        for name, value in facts.items():
            model.set_rt_info(value, [HOME, name])
        model.set_rt_info(json.dumps(list(facts)), [HOME, "names"])
        openvino.save_model(model, str(path), compress_to_fp16=False)
