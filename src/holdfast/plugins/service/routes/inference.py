"""``/v2``: the Open Inference Protocol (https://github.com/kserve/open-inference-protocol, REST).

Each column of the model is an input tensor with its name and one item per row; a model with one
column accepts any input name. Texts are BYTES. The outputs are ``label``, ``confidence`` and, for
classes, ``probabilities`` and ``answered``. BYTES has no null, so a row that is left to an
annotator has an empty label, and ``answered`` is false.
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

from starlette.responses import Response

from holdfast._version import __version__
from holdfast.core.tasks import TAGGING_TASKS
from holdfast.plugins.service.records import EngineFacts, RowPredictions
from holdfast.plugins.service.routes.health import Health, live
from holdfast.plugins.service.routes.predict import answer_rows, rows_of
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint, ResponseSchema, as_json
from holdfast.plugins.service.web.faults import Fault, bad_request, inference_body

VERSION = "1"
DATATYPES: dict[str, tuple[type, ...]] = {
    "BYTES": (str,),
    "BOOL": (bool,),
    "FP16": (int, float),
    "FP32": (int, float),
    "FP64": (int, float),
    **{f"{sign}INT{bits}": (int,) for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
MODEL_PATH = "/v2/models/{name}"


class TensorAsked(ResponseSchema):
    """A tensor: `shape` gives the dimensions of its `data`, in row-major order."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] | None = None


class OutputAsked(ResponseSchema):
    """A requested output tensor."""

    name: str


class InferBody(ResponseSchema):
    """The request of `infer` in the Open Inference Protocol."""

    inputs: list[TensorAsked]
    outputs: list[OutputAsked] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


class InferAnswer(ResponseSchema):
    """The response of `infer`."""

    model_name: str
    model_version: str
    id: str
    outputs: list[TensorAsked]


class TensorFacts(ResponseSchema):
    """A tensor of a model; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(ResponseSchema):
    """The metadata of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class ServerFacts(ResponseSchema):
    """The metadata of the server."""

    name: str
    version: str
    extensions: list[str]


class ModelReady(ResponseSchema):
    """Whether a model is ready."""

    name: str
    ready: bool


class InferenceError(ResponseSchema):
    """An error in the shape of the Open Inference Protocol."""

    error: str


async def server(service: Service, call: Call) -> Response:
    """The server's name and version."""
    return as_json({"name": "holdfast", "version": __version__, "extensions": []})


async def ready(service: Service, call: Call) -> Response:
    """Whether the model is ready."""
    return as_json({"ready": service.ready}, 200 if service.ready else 503)


async def model(service: Service, call: Call) -> Response:
    """The model's inputs and outputs."""
    facts = _requested_model(service, call)
    shape = [-1, -1] if facts.task in TAGGING_TASKS else [-1]
    return as_json(
        {
            "name": name_of(facts),
            "versions": [VERSION],
            "platform": f"holdfast_{facts.task.replace('-', '_')}",
            "inputs": [
                {"name": name, "datatype": "BYTES", "shape": shape} for name in facts.columns
            ],
            "outputs": _outputs(facts),
        }
    )


async def model_ready(service: Service, call: Call) -> Response:
    """Whether the model answers."""
    facts = _requested_model(service, call)
    return as_json({"name": name_of(facts), "ready": service.ready})


async def infer(service: Service, call: Call) -> Response:
    """Predict the rows."""
    facts = _requested_model(service, call)
    if b"inference-header-content-length" in call.headers:
        rule = "requests the binary extension, which is not supported"
        raise bad_request("Inference-Header-Content-Length", rule, None, "Send tensors as JSON.")
    body = call.json()
    requested = _requested_outputs(body, facts)
    columns = _columns(body, facts)
    names, count = list(columns), len(next(iter(columns.values())))
    rows = [{name: columns[name][place] for name in names} for place in range(count)]
    checked_rows = rows_of({"rows": rows}, facts, service.settings)
    request_id = body.get("id")
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= 200):
        raise bad_request(
            "id", "must be a text of at most 200 characters", request_id, "Leave it out."
        )
    request, predictions = await answer_rows(service, call, checked_rows, None)
    tensors = _tensors(predictions, facts)
    return as_json(
        {
            "model_name": name_of(facts),
            "model_version": VERSION,
            # The id for feedback; a caller's own id is returned next to it.
            "id": request if request_id is None else request_id,
            "parameters": {"request": request},
            "outputs": [one for one in tensors if requested is None or one["name"] in requested],
        }
    )


def name_of(facts: EngineFacts) -> str:
    """The model's name in a path, without its mark."""
    return facts.model.partition("@")[0]


def _requested_model(service: Service, call: Call) -> EngineFacts:
    facts = service.facts
    name, version = call.params["name"], call.params.get("version", VERSION)
    if name not in (name_of(facts), facts.model) or version != VERSION:
        subject = f"the model {name[:100]!r}, version {version[:20]}"
        remedy = f"This server has {name_of(facts)!r}, version {VERSION}."
        raise Fault(404, subject, "is not served here", None, remedy, reason="model")
    return facts


def _outputs(facts: EngineFacts) -> list[dict[str, Any]]:
    datatypes = {"label": "BYTES", "confidence": "FP64", "answered": "BOOL"}
    outputs = [
        {"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in datatypes.items()
    ]
    if facts.classes:
        shape = [-1, len(facts.classes)]
        outputs.append({"name": "probabilities", "datatype": "FP64", "shape": shape})
    return outputs


def _requested_outputs(body: dict[str, Any], facts: EngineFacts) -> set[str] | None:
    outputs = body.get("outputs")
    if outputs is None:
        return None
    known = [one["name"] for one in _outputs(facts)]
    remedy = f"Known outputs: {', '.join(known)}."
    if not isinstance(outputs, list):
        raise bad_request("outputs", "must be a list", outputs, remedy)
    names = [one.get("name") if isinstance(one, dict) else None for one in outputs]
    for name in names:
        if name not in known:
            raise bad_request("outputs", "names an unknown output", name, remedy)
    return {str(name) for name in names}


def _columns(body: dict[str, Any], facts: EngineFacts) -> dict[str, list[Any]]:
    """Each input tensor as a list with one value per row."""
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        rule = "must be a list with a tensor for each column"
        remedy = f"Columns of this model: {', '.join(facts.columns)}."
        raise bad_request("inputs", rule, inputs, remedy)
    columns: dict[str, list[Any]] = {}
    for place, tensor in enumerate(inputs):
        where = f"inputs[{place}]"
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise bad_request(where, "must be an object with a name", tensor, "See the protocol.")
        name = tensor["name"]
        if len(facts.columns) == 1 and len(inputs) == 1:
            (name,) = facts.columns
        if name in columns:
            raise bad_request(where, "occurs more than once", name, "Send each input once.")
        columns[name] = _values(tensor, where)
    if len({len(values) for values in columns.values()}) > 1:
        counts = {name: len(values) for name, values in columns.items()}
        raise bad_request(
            "inputs", "have different numbers of rows", counts, "Send one value per row in each."
        )
    return columns


def _values(tensor: dict[str, Any], where: str) -> list[Any]:
    datatype, shape, data = (tensor.get(name) for name in ("datatype", "shape", "data"))
    parameters = tensor.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise bad_request(f"{where}.parameters", "must be an object", parameters, "Leave it out.")
    if parameters and "binary_data_size" in parameters:
        rule = "requests the binary extension, which is not supported"
        raise bad_request(f"{where}.parameters", rule, None, "Send tensors as JSON.")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        remedy = f"Known types: {known}."
        raise bad_request(f"{where}.datatype", "is unknown", datatype, remedy)
    valid_shape = isinstance(shape, list) and all(type(one) is int and one >= 0 for one in shape)
    if not valid_shape or not shape or len(shape) > 2 or 0 in shape[1:]:
        raise bad_request(f"{where}.shape", "must be [rows] or [rows, items]", shape, "E.g. [1].")
    if not isinstance(data, list):
        raise bad_request(
            f"{where}.data", "must be a list", data, "Send the items in row-major order."
        )
    flat = data
    if len(shape) == 2 and all(isinstance(one, list) for one in data):
        flat = [item for one in data for item in one]
    if len(flat) != math.prod(shape):
        rule = f"has {len(flat):,} items, but its shape {shape} has {math.prod(shape):,}"
        raise bad_request(f"{where}.data", rule, None, "Make data and shape agree.")
    types = DATATYPES[datatype]
    for item in flat:
        if not isinstance(item, types) or (isinstance(item, bool) and datatype != "BOOL"):
            raise bad_request(
                f"{where}.data", f"contains an item that is not {datatype}", item, "Correct it."
            )
    if len(shape) == 1 or shape[1] == 1:
        return flat
    width = shape[1]
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _tensors(predictions: RowPredictions, facts: EngineFacts) -> list[dict[str, Any]]:
    rows = predictions.answers
    has_lists = any(isinstance(output.prediction, (list, dict)) for output in rows)
    data: dict[str, list[Any]] = {
        "label": [_label_text(output.prediction, has_lists) for output in rows],
        "confidence": [-1.0 if output.confidence is None else output.confidence for output in rows],
        "answered": [output.prediction is not None for output in rows],
        "probabilities": [
            (output.probabilities or {}).get(name, -1.0)
            for output in rows
            for name in facts.classes or ()
        ],
    }
    parameters: dict[str, dict[str, Any]] = {
        "probabilities": {"classes": list(facts.classes or ())}
    }
    if has_lists:
        parameters["label"] = {"content_type": "json"}
    tensors = []
    for output in _outputs(facts):
        name, shape = output["name"], [len(rows), *output["shape"][1:]]
        tensor = {**output, "shape": shape, "data": data[name]}
        extra = {"parameters": parameters[name]} if name in parameters else {}
        tensors.append({**tensor, **extra})
    return tensors


def _label_text(prediction: Any, as_json: bool) -> str:
    if prediction is None:
        return ""
    if isinstance(prediction, str) and not as_json:
        return prediction
    return json.dumps(prediction, ensure_ascii=False)


_endpoint = partial(Endpoint, error_body=inference_body, error_schema=InferenceError)
_model_endpoint = partial(_endpoint, other_statuses=((404, "The model does not exist"),))
ENDPOINTS = (
    _endpoint("GET", "/v2", server, "Which server this is", response_schema=ServerFacts),
    _endpoint(
        "GET",
        "/v2/health/live",
        live,
        "Check that the server is alive",
        response_schema=Health,
        without_token=True,
    ),
    _endpoint(
        "GET",
        "/v2/health/ready",
        ready,
        "Check that the model is ready",
        response_schema=Health,
        other_statuses=((503, "Not ready"),),
        without_token=True,
    ),
    *(
        _model_endpoint(method, begin + path, handle, summary, takes, gives)
        for begin in (MODEL_PATH, f"{MODEL_PATH}/versions/{{version}}")
        for method, path, handle, summary, takes, gives in (
            ("GET", "", model, "Inputs and outputs of a model", None, ModelMetadata),
            ("GET", "/ready", model_ready, "Check that a model is ready", None, ModelReady),
            ("POST", "/infer", infer, "Predict from tensors", InferBody, InferAnswer),
        )
    ),
)
