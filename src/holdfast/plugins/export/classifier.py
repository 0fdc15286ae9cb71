"""Export of a classifier or tagger to ONNX or OpenVINO: written, verified, scored, timed, and the
choice of precision.
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
from holdfast.plugins.export.formats import Format, common_facts, validation_rows
from holdfast.plugins.export.graphs import (
    WEIGHTS_FILE,
    Engine,
    OnnxEngine,
    OpenVinoEngine,
    TorchEngine,
    move_with_facts,
    quantise,
    write_onnx,
    write_openvino,
)
from holdfast.plugins.export.measurements import (
    BFLOAT16,
    FALSE_ACCEPTANCE_RATE,
    FLOAT32,
    INT8,
    MARGIN,
    FormMeasurements,
    Inferiority,
    ModelForm,
    choose_form,
    inferiority,
    measure,
)
from holdfast.plugins.export.model import (
    Exportable,
    ExportableModel,
    file_facts,
    load_exportable_model,
    to_exportable,
)
from holdfast.plugins.export.proof import (
    OutputGap,
    check_gap,
    compare_file,
    logit_difference,
    proof_lengths,
    synthetic_batch,
)
from holdfast.runs.finished_run import FinishedRun
from holdfast.tasks.images.losses import encode_images
from holdfast.training.machine.machine import flushed_subnormals

# Texts whose length is measured.
LENGTH_SAMPLE = 500
# Tokens of a text where the length of texts is unknown.
DEFAULT_LENGTH = 33
BATCHES = (1, 16)
ONNX_FILE, INT8_FILE = "model.onnx", "model.int8.onnx"


@dataclass(frozen=True)
class WrittenForm:
    """An exported form with its engine, and the file that holds it (none for torch)."""

    form: ModelForm
    engine: Engine
    path: Path | None = None


def write_classifier(
    finished_run: FinishedRun, form: Format, int8: bool, folder: Path
) -> dict[str, Any]:
    """Write everything but card and ``export.json`` into the folder ``folder``; returns the
    facts.
    """
    run, result = finished_run.run, finished_run.result
    model = load_exportable_model(run, result)
    table = validation_rows(finished_run)
    if result.get("wrapper"):
        because = (
            "the file does not hold the layer over feature columns: its predictions "
            "are those of the text part, whose own score is in result.json"
        )
        notify(Decision("exported", "the text part only", because, prominent=True))
    exportable = to_exportable(model, _image_shape(model, table))
    facts = file_facts(run, result, model)
    sizes = ", ".join(map(str, proof_lengths(exportable)))
    size_words = "one size" if exportable.tokens is None else f"lengths of {sizes}"
    because = f"verified against the model at batch sizes 1, 7 and 64 and {size_words}"
    notify(Decision("file", form.file, because))
    with flushed_subnormals():
        forms, gap, obstacles = _write_forms(exportable, form, int8, folder, facts)
        scored_forms = _score_forms(model, exportable, table, forms)
        measurements = _time_forms(scored_forms, exportable, _median_length(model, table))
    plain, *smaller_forms = (one for one in measurements.forms if one.engine == form.name)
    selected, because = plain, "--int8 was not given"
    if int8:
        selected, because = choose_form(measurements, plain, smaller_forms, model.metric, obstacles)
    _finish_file(form, next(one for one in scored_forms if one.form is selected), folder, facts)
    files.copy_tokenizer(model_of(run), folder)
    files.write_predict(folder, form.name, model.task in IMAGE_TASKS)
    notify(Decision("precision", selected.precision, because, prominent=True))
    best = measurements.fastest()
    return {
        **common_facts(finished_run, form, selected.precision, because),
        **gap.to_json(),
        "kept_logit_gap": selected.gap,
        "labels": list(model.saved.classes),
        "threshold": json.loads(facts.get("threshold", "null")),
        "costs": json.loads(facts.get("costs", "null")),
        "part": "text" if result.get("wrapper") else "whole",
        "lean": exportable.lean,
        "valid": _validation_facts(model, selected.valid),
        "speed": measurements.to_json(),
        "fastest": {"engine": best.engine, "precision": best.precision},
        "false_alarms": {
            "rate": FALSE_ACCEPTANCE_RATE,
            "of": "files that are one point worse and are still kept",
            "measured_by": "benchmarks/export.py, simulated validation rows",
        },
    }


def _image_shape(model: ExportableModel, table: Table | None) -> tuple[int, ...] | None:
    """The shape of an image after the processor."""
    if model.task not in IMAGE_TASKS:
        return None
    saved = model.saved
    if table is not None:
        return tuple(encode_images(table.take([0]), saved.processor, saved.channels).pixels.shape)
    from PIL import Image

    blank = Image.new("L" if saved.channels == 1 else "RGB", (64, 64))
    encoded = saved.processor(images=[blank], return_tensors="pt")
    return tuple(encoded["pixel_values"].shape[1:])


def _write_forms(
    exportable: Exportable, form: Format, int8: bool, folder: Path, facts: Mapping[str, str]
) -> tuple[list[WrittenForm], OutputGap, dict[str, str]]:
    """The model itself, the file, and every form of lower precision; how far the file's logits
    differ from the model's; why a form could not be written.
    """
    source, int8_path = folder / ONNX_FILE, folder / INT8_FILE
    write_onnx(exportable, source, facts)
    obstacles: dict[str, str] = {}
    if int8:
        try:
            quantise(source, int8_path)
        except ModelError as error:
            obstacles[INT8] = error.rule
    if form.name == "openvino":
        exported_forms = _openvino_forms(folder, facts, obstacles)
    else:
        exported_forms = [WrittenForm(ModelForm("onnx", FLOAT32), OnnxEngine(source), source)]
        if int8_path.exists():
            exported_forms.append(
                WrittenForm(ModelForm("onnx", INT8), OnnxEngine(int8_path), int8_path)
            )
    gap = compare_file(exportable, exported_forms[0].engine.run)
    check_gap(form.file, gap.relative)
    torch_form = WrittenForm(
        ModelForm("torch", FLOAT32), TorchEngine(exportable.saved, exportable.inputs)
    )
    forms = [torch_form, *exported_forms]
    # In bfloat16 with torch, for comparison, where the model supports it.
    try:
        bfloat16_engine = TorchEngine(
            copy.deepcopy(exportable.saved).to(torch.bfloat16), exportable.inputs
        )
        bfloat16_engine.run(synthetic_batch(exportable, 1, 2))
        forms.append(WrittenForm(ModelForm("torch", BFLOAT16), bfloat16_engine))
    except RuntimeError:
        pass
    return forms, gap, obstacles


def _openvino_forms(
    folder: Path, facts: Mapping[str, str], obstacles: dict[str, str]
) -> list[WrittenForm]:
    path, int8_path = folder / "model.xml", folder / "model.int8.xml"
    write_openvino(folder / ONNX_FILE, path, facts)
    forms = [WrittenForm(ModelForm("openvino", FLOAT32), OpenVinoEngine(path), path)]
    if (folder / INT8_FILE).exists():
        try:
            write_openvino(folder / INT8_FILE, int8_path, facts)
            forms.append(
                WrittenForm(ModelForm("openvino", INT8), OpenVinoEngine(int8_path), int8_path)
            )
        except (ModelError, RuntimeError) as error:
            obstacles[INT8] = str(error).splitlines()[0]
            for part in (int8_path, int8_path.with_suffix(".bin")):
                part.unlink(missing_ok=True)
    forms.append(WrittenForm(ModelForm("openvino", BFLOAT16), OpenVinoEngine(path, "bf16"), path))
    return forms


def _score_forms(
    model: ExportableModel, exportable: Exportable, table: Table | None, forms: list[WrittenForm]
) -> list[WrittenForm]:
    """Each form with its result on the validation rows compared with the model itself, the first
    form, and the difference of its logits.
    """
    base, groups = None, None
    if table is not None:
        base = model.scores(model.predictions(model.saved.network, table), table)
        group_names = groups_of(table)
        groups = None if group_names is None else np.unique(group_names, return_inverse=True)[1]
    batch = synthetic_batch(
        exportable,
        7,
        DEFAULT_LENGTH if exportable.tokens is None else min(DEFAULT_LENGTH, exportable.tokens),
    )
    expected = forms[0].engine.run(batch)
    scored_forms = []
    for one in forms:
        valid: Inferiority | None = None
        if one is not forms[0] and table is not None and base is not None:
            scores = model.scores(model.predictions(one.engine, table), table)
            valid = inferiority(base, scores, groups=groups)
        _, gap = logit_difference(exportable, batch, expected, one.engine.run(batch))
        form = replace(one.form, valid=valid, gap=gap, size=_file_size(one.path))
        scored_forms.append(replace(one, form=form))
    return scored_forms


def _file_size(path: Path | None) -> int | None:
    if path is None:
        return None
    parts = (path, path.with_suffix(".bin"), path.with_name(WEIGHTS_FILE))
    return sum(part.stat().st_size for part in parts if part.exists())


def _time_forms(
    scored_forms: list[WrittenForm], exportable: Exportable, length: int | None
) -> FormMeasurements:
    times = []
    for batch in BATCHES:
        batch_rows = synthetic_batch(exportable, batch, length or 1)
        times.append(
            measure(
                batch, {one.form.name: partial(one.engine.run, batch_rows) for one in scored_forms}
            )
        )
    threads = torch.get_num_threads()
    cpu = str(surroundings(threads, "cpu")["machine"]["cpu"])
    return FormMeasurements(
        tuple(one.form for one in scored_forms), tuple(times), length, threads, cpu
    )


def _median_length(model: ExportableModel, table: Table | None) -> int | None:
    """The median number of tokens of a text; ``None`` for images."""
    if model.task in IMAGE_TASKS:
        return None
    if table is None:
        return min(DEFAULT_LENGTH, int(model.saved.max_length))
    sample = table.rows.with_format("arrow")[: min(LENGTH_SAMPLE, len(table))]
    words = model.label_type == "tags"
    columns = ("tokens",) if words else ("text", "text_pair")
    encoded = model.saved.tokenizer(
        *(sample[column].to_pylist() for column in columns if column in sample.column_names),
        truncation=True,
        max_length=model.saved.max_length,
        is_split_into_words=words,
    )
    return max(2, int(np.median([len(ids) for ids in encoded["input_ids"]])))


def _finish_file(form: Format, best: WrittenForm, folder: Path, facts: Mapping[str, str]) -> None:
    """Leave only the chosen file in the folder, under the format's name, with the facts inside."""
    precision = best.form.precision
    source = folder / (INT8_FILE if precision == INT8 else ONNX_FILE)
    if form.name == "onnx":
        move_with_facts(source, folder / form.file, {**facts, "precision": precision})
        return
    for path in (*folder.glob("model*.xml"), *folder.glob("model*.bin")):
        path.unlink()
    # The precision in which OpenVINO computes.
    hint = "bf16" if precision == BFLOAT16 else "f32"
    write_openvino(source, folder / form.file, {**facts, "precision": hint})
    for path in folder.glob("model*.onnx*"):
        path.unlink()


def _validation_facts(model: ExportableModel, inferiority: Inferiority | None) -> dict[str, Any]:
    if inferiority is None:
        return {"n": 0, "why": "there are no validation rows to score it on"}
    return {
        "n": inferiority.n,
        "metric": model.metric,
        "changed": inferiority.changed,
        "worse": inferiority.value,
        "at_most": inferiority.high,
        "margin": MARGIN,
    }
