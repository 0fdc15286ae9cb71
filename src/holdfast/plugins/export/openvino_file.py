"""An ONNX file → OpenVINO's two files, with the same facts inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door
from holdfast.plugins.export.quiet import hushed

HOME = "holdfast"


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
