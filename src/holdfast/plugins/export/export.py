"""A finished run → a folder in another format: written, proven against the saved model, scored on
the validation rows, timed on this machine, and pushed where that was asked.

Everything is written into a hidden folder beside ``out`` and renamed at the end, so that an export
that was broken off leaves nothing that looks like one.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import unsealed
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.files import disk_errors, replace_folder, write_json, write_text
from holdfast.core.printable import brief
from holdfast.core.records import Decision
from holdfast.core.tasks import OF_PICTURES
from holdfast.plugins.export import folder as files
from holdfast.plugins.export.formats import Format, format_of
from holdfast.plugins.export.hub import Hub
from holdfast.runs.finished_run import FinishedRun

HOME = "export"


@dataclass(frozen=True)
class Exported:
    """What was written: the ``folder``, its ``export.json`` as ``facts``, and the addresses on the
    hub where it was pushed."""

    folder: Path
    facts: dict[str, Any]
    pushed: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return brief("Exported", self.folder)

    def to_json(self) -> dict[str, Any]:
        return {**self.facts, "folder": str(self.folder), "pushed": self.pushed or None}


def export(
    run: Path,
    to: str,
    *,
    int8: bool = False,
    push: str | None = None,
    space: bool = False,
    out: Path | None = None,
) -> Exported:
    """Write the model of a finished run in the format ``to``; see ``holdfast export``.

    Raises
    ------
    RecipeError : a format that there is not, or that is not for the run's task.
    RunError : no finished run; ``out`` exists; nobody is logged in to push.
    ModelError : the model has no form in this format, or its file computes something else.
    MachineError : a package is missing, the disk or the hub refuses.
    """
    again = FinishedRun(run)
    task = str(again.result["task"])
    form = format_of(to, task)
    _check(form, int8, space)
    place = _place(run, to, out)
    hub = None if push is None else Hub(push)
    name = hub.login() if hub else run.resolve().name
    kinds = ("model", files.SPACE) if space else ("model",)
    if hub:
        for kind in kinds:
            hub.check_free(name, kind)
    notify(*unsealed([run]))
    title = name.rpartition("/")[2]
    with _beside(place) as made:
        if form.name == "gguf":
            from holdfast.plugins.export.decoder import write_decoder

            facts = write_decoder(again, made, title)
        else:
            from holdfast.plugins.export.classifier import write_classifier

            facts = write_classifier(again, form, int8, made)
        threshold = any(facts.get(key) is not None for key in ("threshold", "costs"))
        how = files.use(form.name, task, title, threshold)
        write_text(made / files.CARD, files.card(run / "model", form.name, facts, how))
        if space:
            files.write_space(made, made / files.SPACE, title, task in OF_PICTURES)
        write_json(made / files.FACTS, facts)
    pushed: dict[str, str] = {}
    if hub:
        for kind in kinds:
            folder = place if kind == "model" else place / kind
            pushed[kind] = hub.push(folder, name, kind)
        because = "what is pushed for the first time is for your eyes: its page on the hub opens it"
        notify(Decision("on the hub", "private", because, prominent=True))
    return Exported(place, facts, pushed)


def _check(form: Format, int8: bool, space: bool) -> None:
    if form.name == "gguf" and int8:
        raise RecipeError(
            "--int8",
            "is not for gguf, which llama.cpp makes smaller itself",
            None,
            "Leave it out, then: ollama create NAME -f Modelfile -q q8_0.",
        )
    if form.name == "gguf" and space:
        raise RecipeError(
            "--space", "is for classifiers: a demo of a gguf file needs llama.cpp", None, ""
        )


def _place(run: Path, to: str, out: Path | None) -> Path:
    """Where the export is to lie. Raises ``RunError`` where something is there."""
    place = run / HOME / to if out is None else out
    if "\0" in str(place):
        raise RunError(str(place), "has a NUL character, which no path can have")
    _refuse_taken(place)
    inside = place.absolute()
    if (run / "model").resolve() in (inside.resolve(), *inside.resolve().parents):
        raise RunError(
            str(place),
            "lies in the model folder of the run, which must stay as it is",
            None,
            "Choose another --out.",
        )
    return place


def _refuse_taken(place: Path) -> None:
    if place.is_symlink() or place.exists():
        raise RunError(
            str(place),
            "exists already, and an export is never written over",
            None,
            "Choose another --out, or remove it.",
        )


@contextlib.contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """A hidden folder beside ``place`` that becomes it when the block has ended well."""
    made = place.with_name(f".{place.name}.partial")
    new = [path for path in (place.parent, *place.parent.parents) if not path.exists()]
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        # What a killed export left.
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
    try:
        yield made
        # Another export may have been quicker.
        _refuse_taken(place)
        replace_folder(made, place)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
