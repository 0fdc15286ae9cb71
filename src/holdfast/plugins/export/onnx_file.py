"""A network → one ONNX file for any number of rows of any length, with what it needs inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door
from holdfast.plugins.export.network import Exportable
from holdfast.plugins.export.proof import rows_of
from holdfast.plugins.export.quiet import hushed

OUTPUT = "logits"
# A file of protocol buffers holds two GiB at most; larger weights lie beside it.
LARGEST = 1_800_000_000
BESIDE = "model.onnx.data"


def write_onnx(exportable: Exportable, path: Path, facts: Mapping[str, str]) -> None:
    """Trace the network with ``torch.export``, its batch and length left open, and write it with
    ``facts`` as its metadata. Raises ``ModelError`` where its computation has no ONNX form."""
    import onnx

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
            output_names=[OUTPUT],
            verbose=False,
        )
        model = program.model_proto
    # Shapes of single values that the exporter's own folding has made untrue.
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, dict(facts))
    model.producer_name = "holdfast"
    save(model, path)


def save(model: Any, path: Path) -> None:
    """Write an ONNX model; of one that is too large for a file, the weights beside it."""
    import onnx

    if model.ByteSize() < LARGEST:
        onnx.save(model, str(path))
    else:
        onnx.save(model, str(path), save_as_external_data=True, location=BESIDE)


def read_facts(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}
