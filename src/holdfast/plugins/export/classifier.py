"""A classifier or tagger → ONNX or OpenVINO: written, proven, scored, timed, and the precision that
is kept.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast.contract.predictions import groups_of
from holdfast.contract.result import surroundings
from holdfast.contract.run_folder import model_of
from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError
from holdfast.core.records import Decision
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.data.table import Table
from holdfast.plugins.export import folder as files
from holdfast.plugins.export.formats import Format, about, valid_rows
from holdfast.plugins.export.graphs import (
    BESIDE,
    Engine,
    OnnxEngine,
    OpenVinoEngine,
    TorchEngine,
    quantise,
    with_facts,
    write_onnx,
    write_openvino,
)
from holdfast.plugins.export.measurements import (
    BFLOAT16,
    FALSE_KEPT,
    FLOAT32,
    INT8,
    MARGIN,
    FormMeasurements,
    Inferiority,
    ModelForm,
    choose,
    inferiority,
    measure,
)
from holdfast.plugins.export.model import (
    Exportable,
    ExportableModel,
    answered,
    exportable,
    facts_of,
)
from holdfast.plugins.export.proof import (
    OutputGap,
    batch_of,
    check_gap,
    difference,
    lengths_of,
    prove,
)
from holdfast.runs.finished_run import FinishedRun
from holdfast.tasks.images.losses import encode_images
from holdfast.training.machine.machine import flushed_subnormals

# Texts whose length is looked at.
LOOKED_AT = 500
# Tokens of a text where nothing is known of how long texts are.
USUAL = 33
BATCHES = (1, 16)
ONNX_FILE, ROUGH_FILE = "model.onnx", "model.int8.onnx"


@dataclass(frozen=True)
class WrittenForm:
    """A form with what asks it, and the file that holds it (none of torch)."""

    form: ModelForm
    engine: Engine
    path: Path | None = None


def write_classifier(again: FinishedRun, form: Format, int8: bool, made: Path) -> dict[str, Any]:
    """Write everything but card and ``export.json`` into the folder ``made``; the facts."""
    run, result = again.run, again.result
    model = answered(run, result)
    table, stored = valid_rows(again)
    if result.get("wrapper"):
        because = (
            "the layer over the columns beside the text is not in the file: its answers are those "
            "of the plain part, whose score stands beside in result.json"
        )
        notify(Decision("exported", "the text part alone", because, prominent=True))
        stored = None
    whole = exportable(model, _shape(model, table))
    facts = facts_of(run, result, model)
    sizes = ", ".join(map(str, lengths_of(whole)))
    asked = "one size" if whole.tokens is None else f"lengths of {sizes}"
    because = f"it is held against the model at batches of 1, 7 and 64 and {asked}"
    notify(Decision("file", form.file, because))
    with flushed_subnormals():
        forms, gap, lacking = _forms(whole, form, int8, made, facts)
        judged = _judged(model, whole, table, stored, forms)
        measured = _timed(judged, whole, _length(model, table))
    plain, *coarse = (one for one in measured.forms if one.engine == form.name)
    kept, because = plain, "it was not to be made smaller: --int8 was not asked for"
    if int8:
        kept, because = choose(measured, plain, coarse, model.metric, lacking)
    _keep(form, next(one for one in judged if one.form is kept), made, facts)
    files.copy_tokenizer(model_of(run), made)
    files.write_predict(made, form.name, model.task in IMAGE_TASKS)
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
        "valid": _valid(model, kept.valid),
        "speed": measured.to_json(),
        "fastest": {"engine": best.engine, "precision": best.precision},
        "false_alarms": {
            "rate": FALSE_KEPT,
            "of": "files that are worse by one point, kept all the same",
            "measured_by": "benchmarks/export.py, simulated validation rows",
        },
    }


def _shape(model: ExportableModel, table: Table | None) -> tuple[int, ...] | None:
    """The shape of a picture as the processor makes it."""
    if model.task not in IMAGE_TASKS:
        return None
    saved = model.saved
    if table is not None:
        return tuple(encode_images(table.take([0]), saved.processor, saved.channels).pixels.shape)
    from PIL import Image

    blank = Image.new("L" if saved.channels == 1 else "RGB", (64, 64))
    seen = saved.processor(images=[blank], return_tensors="pt")
    return tuple(seen["pixel_values"].shape[1:])


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
    if form.name == "openvino":
        ours = _in_openvino(made, facts, lacking)
    else:
        ours = [WrittenForm(ModelForm("onnx", FLOAT32), OnnxEngine(source), source)]
        if rough.exists():
            ours.append(WrittenForm(ModelForm("onnx", INT8), OnnxEngine(rough), rough))
    gap = prove(whole, ours[0].engine.run)
    check_gap(form.file, gap.relative)
    itself = WrittenForm(ModelForm("torch", FLOAT32), TorchEngine(whole.asked, whole.inputs))
    found = [itself, *ours]
    # In bfloat16 through torch, for comparison, where the model can compute so.
    try:
        half = TorchEngine(copy.deepcopy(whole.asked).to(torch.bfloat16), whole.inputs)
        half.run(batch_of(whole, 1, 2))
        found.append(WrittenForm(ModelForm("torch", BFLOAT16), half))
    except RuntimeError:
        pass
    return found, gap, lacking


def _in_openvino(
    made: Path, facts: Mapping[str, str], lacking: dict[str, str]
) -> list[WrittenForm]:
    path, small = made / "model.xml", made / "model.int8.xml"
    write_openvino(made / ONNX_FILE, path, facts)
    found = [WrittenForm(ModelForm("openvino", FLOAT32), OpenVinoEngine(path), path)]
    if (made / ROUGH_FILE).exists():
        try:
            write_openvino(made / ROUGH_FILE, small, facts)
            found.append(WrittenForm(ModelForm("openvino", INT8), OpenVinoEngine(small), small))
        except (ModelError, RuntimeError) as error:
            lacking[INT8] = str(error).splitlines()[0]
            for part in (small, small.with_suffix(".bin")):
                part.unlink(missing_ok=True)
    found.append(WrittenForm(ModelForm("openvino", BFLOAT16), OpenVinoEngine(path, "bf16"), path))
    return found


def _judged(
    model: ExportableModel,
    whole: Exportable,
    table: Table | None,
    stored: list[Any] | None,
    forms: list[WrittenForm],
) -> list[WrittenForm]:
    """Each form with how it did on the validation rows against the model itself, the first, and how
    far its logits lie."""
    base, groups = None, None
    if table is not None:
        base = model.scores(stored or model.predictions(model.saved.network, table), table)
        named = groups_of(table)
        groups = None if named is None else np.unique(named, return_inverse=True)[1]
    given = batch_of(whole, 7, USUAL if whole.tokens is None else min(USUAL, whole.tokens))
    wanted = forms[0].engine.run(given)
    judged = []
    for one in forms:
        valid: Inferiority | None = None
        if one is not forms[0] and table is not None and base is not None:
            scores = model.scores(model.predictions(one.engine, table), table)
            valid = inferiority(base, scores, groups=groups)
        _, gap = difference(whole, given, wanted, one.engine.run(given))
        form = replace(one.form, valid=valid, gap=gap, size=_size(one.path))
        judged.append(replace(one, form=form))
    return judged


def _size(path: Path | None) -> int | None:
    if path is None:
        return None
    parts = (path, path.with_suffix(".bin"), path.with_name(BESIDE))
    return sum(part.stat().st_size for part in parts if part.exists())


def _timed(judged: list[WrittenForm], whole: Exportable, length: int | None) -> FormMeasurements:
    times = []
    for batch in BATCHES:
        given = batch_of(whole, batch, length or 1)
        times.append(
            measure(batch, {one.form.name: partial(one.engine.run, given) for one in judged})
        )
    threads = torch.get_num_threads()
    cpu = str(surroundings(threads, "cpu")["machine"]["cpu"])
    return FormMeasurements(tuple(one.form for one in judged), tuple(times), length, threads, cpu)


def _length(model: ExportableModel, table: Table | None) -> int | None:
    """Tokens of a usual text, the median; ``None`` for pictures."""
    if model.task in IMAGE_TASKS:
        return None
    if table is None:
        return min(USUAL, int(model.saved.max_length))
    some = table.rows.with_format("arrow")[: min(LOOKED_AT, len(table))]
    words = model.kind == "tags"
    columns = ("tokens",) if words else ("text", "text_pair")
    encoded = model.saved.tokenizer(
        *(some[column].to_pylist() for column in columns if column in some.column_names),
        truncation=True,
        max_length=model.saved.max_length,
        is_split_into_words=words,
    )
    return max(2, int(np.median([len(ids) for ids in encoded["input_ids"]])))


def _keep(form: Format, kept: WrittenForm, made: Path, facts: Mapping[str, str]) -> None:
    """Leave the kept file alone in the folder, under the format's name, with the facts inside."""
    precision = kept.form.precision
    source = made / (ROUGH_FILE if precision == INT8 else ONNX_FILE)
    if form.name == "onnx":
        with_facts(source, made / form.file, {**facts, "precision": precision})
        return
    for path in (*made.glob("model*.xml"), *made.glob("model*.bin")):
        path.unlink()
    # What OpenVINO is to compute in.
    hint = "bf16" if precision == BFLOAT16 else "f32"
    write_openvino(source, made / form.file, {**facts, "precision": hint})
    for path in made.glob("model*.onnx*"):
        path.unlink()


def _valid(model: ExportableModel, found: Inferiority | None) -> dict[str, Any]:
    if found is None:
        return {"n": 0, "why": "there are no validation rows to score it on"}
    return {
        "n": found.n,
        "metric": model.metric,
        "changed": found.changed,
        "worse": found.value,
        "at_most": found.high,
        "margin": MARGIN,
    }
