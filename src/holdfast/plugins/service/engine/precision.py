"""What a service computes in: float32 as ``predict`` does, or the form that ``export`` measured and
kept on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.contract.inference import Answering
from holdfast.core.decisions import DecisionListener, decisions_to
from holdfast.core.discovery import nearest
from holdfast.core.errors import InputError, RecipeError, RunError
from holdfast.core.records import Decision
from holdfast.core.run_files import read_result
from holdfast.data.scratch import scratch_file
from holdfast.plugins.export.export import HOME, export
from holdfast.plugins.export.folder import FACTS
from holdfast.plugins.export.formats import format_of
from holdfast.plugins.export.graphs import OnnxEngine, OpenVinoEngine
from holdfast.plugins.export.measurements import BFLOAT16, FLOAT32
from holdfast.plugins.service.engine.networks import EngineFile, Graph, Saved, quicker
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes.answers import BesideText, FittedText, TextUse
from holdfast.tasks.images.task import FittedVision, ImageUse
from holdfast.tasks.tags.answers import TagUse

AUTO = "auto"
PRECISIONS = (FLOAT32, AUTO)
# A format and its package, in the order in which they are tried where nothing was exported yet.
FORMATS = {"openvino": "openvino", "onnx": "onnxruntime"}
MISSING = "Install one: pip install 'holdfast[export]'."
# Of an export's table: texts together, as a service asks them.
BATCH = "16"


@dataclass(frozen=True)
class Computing:
    """What is asked: ``use`` answers tables through ``network`` (``None``: through its own), in
    ``precision``, and ``because`` says why."""

    use: Answering
    network: Graph | None
    precision: str
    because: str


def computing(
    run: Path | None, predictor: Predictor, precision: str, notify: DecisionListener
) -> Computing:
    """The network of a run that is asked in ``precision``: ``float32`` or ``auto``.

    Raises ``RecipeError`` for another word; ``MachineError`` where an export cannot be written.
    """
    if precision not in PRECISIONS:
        raise RecipeError("--precision", "is unknown", precision, nearest(precision, PRECISIONS))
    use, because = predictor.model, "as `holdfast predict` answers"
    if precision == AUTO and run is not None:
        found = _measured(run, use, notify)
        if isinstance(found, Computing):
            return found
        because = found
    network: Graph | None = None
    if isinstance(use, TextUse | TagUse) and len(use.models) == 1:
        first: Any = use.models[0]
        model = first.text if isinstance(first, BesideText) else first
        tags = isinstance(use, TagUse)
        network, decision = quicker(model.network, model.tokenizer, model.max_length, tags=tags)
        if decision is not None:
            notify(decision)
        use = _through(use, network)
    elif isinstance(use, ImageUse) and len(use.models) == 1:
        network = Saved(use.models[0].network)
    return Computing(use, network, FLOAT32, because)


def _through(use: Any, network: Graph) -> Answering:
    """The same with another network in the place of its own."""
    model: Any = use.models[0]
    one: Any
    if isinstance(use, ImageUse):
        one = FittedVision(network, model.processor, model.classes, model.channels)
    elif isinstance(model, BesideText):
        text = model.text
        one = FittedText(network, text.tokenizer, text.classes, text.max_length)
        one = BesideText(one, model.layer)
    else:
        one = FittedText(network, model.tokenizer, model.classes, model.max_length)
    changed: Answering = replace(use, models=[one])
    return changed


def _measured(run: Path, use: Answering, notify: DecisionListener) -> Computing | str:
    """The form that an export of the run kept, made where there is none; or why there is none that
    is quicker than the model itself."""
    if not isinstance(use, TextUse | TagUse | ImageUse):
        return "what export measures are classifiers and taggers, and this model writes"
    folders = [place for name in FORMATS if (place := run / HOME / name / FACTS).is_file()]
    if not folders:
        made = _made(run, notify)
        if isinstance(made, str):
            return made
        folders = [made / FACTS]
    chosen, why = None, []
    for place in folders:
        facts = json.loads(place.read_text("utf-8"))
        if list(facts.get("labels") or ()) != list(use.models[0].classes):
            raise RunError(str(place), "is not an export of this run", None, "Take it away.")
        ours = _ms(facts, str(facts["format"]), str(facts["precision"]))
        itself = _ms(facts, "torch", FLOAT32)
        if not ours < itself:
            told = f"{ours:g} ms a row, the model itself {itself:g}"
            why.append(f"{place.parent} is not faster: {told}")
        elif chosen is None or ours < chosen[0]:
            chosen = ours, itself, place, facts
    if chosen is None:
        return "; ".join(why)
    ours, itself, place, facts = chosen
    path = place.parent / str(facts["file"])
    if facts["format"] == "onnx":
        network = EngineFile(OnnxEngine(path, features=True))
    else:
        form = "bf16" if facts["precision"] == BFLOAT16 else "f32"
        network = EngineFile(OpenVinoEngine(path, form, features=True), multiple=8)
    because = (
        f"{place.parent} keeps it ({facts['kept_because']}); {ours:g} ms a row at batch {BATCH} "
        f"where it was made, the model itself {itself:g}"
    )
    told = f"{facts['precision']} ({facts['format']})"
    return Computing(_through(use, network), network, told, because)


def _ms(facts: Mapping[str, Any], engine: str, precision: str) -> float:
    """Milliseconds a row, as the export measured them."""
    for row in facts["speed"]["rows"]:
        if row["engine"] == engine and row["precision"] == precision:
            return float(row["ms"][BATCH])
    return float("inf")


def _made(run: Path, notify: DecisionListener) -> Path | str:
    """A new export, where the run has its exports; or why there is none."""
    form = next((name for name, pack in FORMATS.items() if importlib.util.find_spec(pack)), None)
    if form is None:
        return f"neither OpenVINO nor onnxruntime is installed, so nothing was measured. {MISSING}"
    home = run / HOME / form
    because = f"--precision auto takes what export measures; it is kept in {home}"
    notify(Decision("exporting", form, because, prominent=True))
    format_of(form, str(read_result(run)["task"]))
    try:
        with decisions_to(None):
            return export(run, form, int8=True).folder
    except RunError:
        # Another server of the same run was quicker.
        if (home / FACTS).is_file():
            return home
        raise
    except InputError as error:
        # A folder that may only be read.
        if os.access(run, os.W_OK):
            return f"it cannot be exported: {error.what}: {error.rule}"
        place = scratch_file("export", "")
        place.unlink(missing_ok=True)
        with decisions_to(None):
            return export(run, form, int8=True, out=place).folder
