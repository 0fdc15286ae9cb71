"""A classifier or tagger → ONNX or OpenVINO: written, proven, scored, timed, and the precision that
is kept.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast.contract.predictions import groups_of
from holdfast.contract.result import surroundings
from holdfast.contract.run_folder import model_of
from holdfast.core.decisions import DecisionListener as Notify
from holdfast.core.errors import ModelError
from holdfast.core.records import Decision, Floats
from holdfast.data.table import Table
from holdfast.plugins.export import folder as files
from holdfast.plugins.export.engines import OnnxEngine, OpenVinoEngine, TorchEngine
from holdfast.plugins.export.facts import about, middle, too_far, valid_rows
from holdfast.plugins.export.formats import Format
from holdfast.plugins.export.inferior import FALSE_KEPT, Inferiority, inferiority
from holdfast.plugins.export.int8 import quantise
from holdfast.plugins.export.measurements import (
    BFLOAT16,
    FLOAT32,
    INT8,
    FormMeasurements,
    ModelForm,
    choose,
)
from holdfast.plugins.export.model import ExportableModel, answered, exportable, facts_of
from holdfast.plugins.export.network import Exportable
from holdfast.plugins.export.onnx_file import BESIDE, write_onnx
from holdfast.plugins.export.openvino_file import write_openvino
from holdfast.plugins.export.proof import TOLERANCE, OutputGap, lengths_of, prove, rows_of
from holdfast.plugins.export.speed import measure
from holdfast.runs.finished_run import FinishedRun
from holdfast.tasks.images.losses import encode_images
from holdfast.training.machine.machine import flushed_subnormals

# Texts whose length is looked at.
LOOKED_AT = 500
BATCHES = (1, 16)
ONNX_FILE, ROUGH_FILE = "model.onnx", "model.int8.onnx"


@dataclass(frozen=True)
class WrittenForm:
    """A form with what asks it, and the file that holds it (none of torch)."""

    form: ModelForm
    engine: Any
    path: Path | None = None


def write_classifier(
    again: FinishedRun, form: Format, int8: bool, made: Path, notify: Notify
) -> dict[str, Any]:
    """Write everything but card and ``export.json`` into the folder ``made``; the facts."""
    run, result = again.run, again.result
    model = answered(run, result)
    table, stored = valid_rows(again, notify)
    _say_text_part(result, notify)
    whole = exportable(model, _shape(model, table))
    facts = facts_of(run, result, model)
    sizes = ", ".join(map(str, lengths_of(whole)))
    asked = "one size" if whole.tokens is None else f"lengths of {sizes}"
    because = f"it is held against the model at batches of 1, 7 and 64 and {asked}"
    notify(Decision("file", form.file, because))
    with flushed_subnormals():
        forms, gap, lacking = _forms(whole, form, int8, made, facts)
        judged = _judged(model, whole, table, None if result.get("wrapper") else stored, forms)
        measured = _timed(judged, whole, _length(model, table))
    ours = [one for one in measured.forms if one.engine == form.name]
    plain, coarse = ours[0], ours[1:]
    kept, because = plain, "it was not to be made smaller: --int8 was not asked for"
    if int8:
        kept, because = choose(measured, plain, coarse, model.metric, lacking)
    chosen = next(one for one in judged if one.form.name == kept.name)
    told = kept.precision if form.name == "onnx" else _hint(kept)
    _keep(form, chosen, made, {**facts, "precision": told})
    files.copy_tokenizer(model_of(run), made)
    files.write_predict(made, form.name, model.task == "image-classification")
    notify(Decision("precision", kept.precision, because, prominent=True))
    best = measured.fastest()
    return {
        **about(again, form, kept.precision, because),
        **gap.to_json(),
        "kept_logit_gap": kept.gap,
        "labels": list(model.saved.classes),
        "threshold": json.loads(facts.get("threshold", "null")),
        "costs": json.loads(facts.get("costs", "null")),
        "part": "text" if result.get("wrapper") else "whole",
        "lean": whole.lean,
        "valid": _valid(model, kept, table),
        "speed": {
            "cpu": measured.cpu,
            "threads": measured.threads,
            "tokens": measured.tokens,
            "rows": measured.table(),
        },
        "fastest": {"engine": best.engine, "precision": best.precision},
        "false_alarms": {
            "rate": FALSE_KEPT,
            "of": "files that are worse by one point, kept all the same",
            "measured_by": "benchmarks/export.py, simulated validation rows",
        },
    }


def _say_text_part(result: Mapping[str, Any], notify: Notify) -> None:
    if result.get("wrapper"):
        because = (
            "the layer over the columns beside the text is not in the file: its answers are those "
            "of the plain part, whose score stands beside in result.json"
        )
        notify(Decision("exported", "the text part alone", because, prominent=True))


def _shape(model: ExportableModel, table: Table | None) -> tuple[int, int, int] | None:
    """The shape of a picture as the processor makes it."""
    if model.task != "image-classification":
        return None
    if table is not None:
        pixels = encode_images(table.take([0]), model.saved.processor, model.saved.channels).pixels
        channels, height, width = pixels.shape
        return int(channels), int(height), int(width)
    from PIL import Image

    mode = "L" if model.saved.channels == 1 else "RGB"
    seen = model.saved.processor(images=[Image.new(mode, (64, 64))], return_tensors="pt")
    channels, height, width = seen["pixel_values"].shape[1:]
    return int(channels), int(height), int(width)


def _forms(
    whole: Exportable, form: Format, int8: bool, made: Path, facts: Mapping[str, str]
) -> tuple[list[WrittenForm], OutputGap, dict[str, str]]:
    """The model itself, the file, and every coarser form; how far the file lies from the model; why
    a form could not be made."""
    source, rough = made / ONNX_FILE, made / ROUGH_FILE
    write_onnx(whole, source, facts)
    lacking: dict[str, str] = {}
    if int8:
        try:
            quantise(source, rough)
        except ModelError as error:
            lacking[INT8] = error.rule
    itself = WrittenForm(ModelForm("torch", FLOAT32), TorchEngine(whole.asked, whole.inputs))
    ours = [WrittenForm(ModelForm("onnx", FLOAT32), OnnxEngine(source), source)]
    if rough.exists():
        ours.append(WrittenForm(ModelForm("onnx", INT8), OnnxEngine(rough), rough))
    if form.name == "openvino":
        ours = _in_openvino(made, facts, rough.exists(), lacking)
    gap = prove(whole, ours[0].engine.run)
    if not gap.relative <= TOLERANCE:
        raise too_far(form.file, gap.relative, TOLERANCE)
    half = _halved(whole)
    return [itself, *ours, *half], gap, lacking


def _in_openvino(
    made: Path, facts: Mapping[str, str], rough: bool, lacking: dict[str, str]
) -> list[WrittenForm]:
    path = made / "model.xml"
    write_openvino(made / ONNX_FILE, path, facts)
    found = [WrittenForm(ModelForm("openvino", FLOAT32), OpenVinoEngine(path), path)]
    if rough:
        small = made / "model.int8.xml"
        try:
            write_openvino(made / ROUGH_FILE, small, facts)
            found.append(WrittenForm(ModelForm("openvino", INT8), OpenVinoEngine(small), small))
        except (ModelError, RuntimeError) as error:
            lacking[INT8] = str(error).splitlines()[0]
            for part in (small, small.with_suffix(".bin")):
                part.unlink(missing_ok=True)
    found.append(WrittenForm(ModelForm("openvino", BFLOAT16), OpenVinoEngine(path, "bf16"), path))
    return found


def _halved(whole: Exportable) -> list[WrittenForm]:
    """The model in bfloat16 through torch, for comparison; nothing where it cannot compute so."""
    try:
        network = copy.deepcopy(whole.asked).to(torch.bfloat16)
        engine = TorchEngine(network, whole.inputs)
        engine.run(dict(zip(whole.inputs, rows_of(whole, 1, 2), strict=True)))
    except RuntimeError:
        return []
    return [WrittenForm(ModelForm("torch", BFLOAT16), engine)]


def _judged(
    model: ExportableModel,
    whole: Exportable,
    table: Table | None,
    stored: list[Any] | None,
    forms: list[WrittenForm],
) -> list[WrittenForm]:
    """Each form with how it did on the validation rows against the model itself, and how far its
    logits lie."""
    base, groups = None, None
    if table is not None:
        said = stored or model.through(model.saved.network).predictions(table)
        base = model.scores(said, table)
        named = groups_of(table)
        groups = None if named is None else np.unique(named, return_inverse=True)[1]
    length = 33 if whole.tokens is None else min(33, whole.tokens)
    given = dict(zip(whole.inputs, rows_of(whole, 7, length), strict=True))
    wanted = forms[0].engine.run(given)
    out = []
    for one in forms:
        valid: Inferiority | None = None
        if one is not forms[0] and table is not None and base is not None:
            found = model.through(one.engine).predictions(table)
            valid = inferiority(base, model.scores(found, table), groups=groups)
        gap = _apart(wanted, one.engine.run(given), whole, given)
        form = ModelForm(one.form.engine, one.form.precision, valid, gap, _size(one.path))
        out.append(WrittenForm(form, one.engine, one.path))
    return out


def _apart(wanted: Floats, found: Floats, whole: Exportable, given: Mapping[str, Any]) -> float:
    if whole.each_token:
        real = given["attention_mask"].numpy() == 1
        wanted, found = wanted[real], found[real]
    return float(np.abs(wanted - found).max()) / max(1.0, float(np.abs(wanted).max()))


def _size(path: Path | None) -> int | None:
    if path is None:
        return None
    parts = (path, path.with_suffix(".bin"), path.with_name(BESIDE))
    return sum(part.stat().st_size for part in parts if part.exists())


def _timed(judged: list[WrittenForm], whole: Exportable, length: int | None) -> FormMeasurements:
    times = []
    for batch in BATCHES:
        given = dict(zip(whole.inputs, rows_of(whole, batch, length or 1), strict=True))
        asks = {one.form.name: _ask(one.engine.run, given) for one in judged}
        times.append(measure(batch, asks))
    threads = torch.get_num_threads()
    cpu = str(surroundings(threads, "cpu")["machine"]["cpu"])
    return FormMeasurements(tuple(one.form for one in judged), tuple(times), length, threads, cpu)


def _ask(run: Callable[[Mapping[str, Any]], Floats], given: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: run(given)


def _length(model: ExportableModel, table: Table | None) -> int | None:
    """Tokens of a usual text; ``None`` for pictures."""
    if model.task == "image-classification":
        return None
    if table is None:
        return min(33, int(model.saved.max_length))
    some = table.rows.with_format("arrow")[: min(LOOKED_AT, len(table))]
    words = model.kind == "tags"
    columns = [
        c for c in (("tokens",) if words else ("text", "text_pair")) if c in some.column_names
    ]
    encoded = model.saved.tokenizer(
        *(some[c].to_pylist() for c in columns),
        truncation=True,
        max_length=model.saved.max_length,
        is_split_into_words=words,
    )
    return middle(np.array([len(ids) for ids in encoded["input_ids"]]))


def _keep(form: Format, kept: WrittenForm, made: Path, facts: Mapping[str, str]) -> None:
    """Leave the kept file alone in the folder, under the format's name, with the facts inside."""
    assert kept.path is not None
    if form.name == "onnx":
        import onnx

        from holdfast.plugins.export.onnx_file import save

        model = onnx.load(str(kept.path))
        onnx.helper.set_model_props(model, dict(facts))
        for path in made.glob("model.*"):
            path.unlink()
        save(model, made / form.file)
        return
    source = ROUGH_FILE if kept.form.precision == INT8 else ONNX_FILE
    for path in made.glob("model*.xml"):
        path.unlink()
    for path in made.glob("model*.bin"):
        path.unlink()
    write_openvino(made / source, made / form.file, facts)
    for path in made.glob("model*.onnx*"):
        path.unlink()


def _hint(kept: ModelForm) -> str:
    """What OpenVINO is to compute in."""
    return "bf16" if kept.precision == BFLOAT16 else "f32"


def _valid(model: ExportableModel, kept: ModelForm, table: Table | None) -> dict[str, Any]:
    if table is None or kept.valid is None:
        return {"n": 0, "why": "there are no validation rows to score it on"}
    found = kept.valid
    return {
        "n": found.n,
        "metric": model.metric,
        "changed": found.changed,
        "worse": found.value,
        "at_most": found.high,
        "margin": found.margin,
    }
