"""A finished run → a folder in another format: written, proven against the saved model, scored on
the validation rows, timed on this machine, and pushed to the hub where that was asked, by somebody
who is logged in.

Everything is written into a hidden folder beside ``out`` and renamed at the end, so that an export
that was broken off leaves nothing that looks like one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.contract.run_folder import unsealed_decisions
from holdfast.core.decisions import notify
from holdfast.core.errors import MachineError, RecipeError, RunError
from holdfast.core.files import new_folder, refuse_existing, write_json, write_text
from holdfast.core.input_errors import first_line
from holdfast.core.printable import brief_repr
from holdfast.core.records import Decision
from holdfast.core.tasks import IMAGE_TASKS
from holdfast.plugins.export import folder as files
from holdfast.plugins.export.folder import SPACE
from holdfast.plugins.export.formats import Format, format_of
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
        return brief_repr("Exported", self.folder)

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
    notify(*unsealed_decisions([run]))
    title = name.rpartition("/")[2]
    with new_folder(place, "an export") as (made, finish):
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
            files.write_space(made, made / files.SPACE, title, task in IMAGE_TASKS)
        write_json(made / files.FACTS, facts)
        finish()
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
    refuse_existing(place, "an export")
    inside = place.absolute()
    if (run / "model").resolve() in (inside.resolve(), *inside.resolve().parents):
        raise RunError(
            str(place),
            "lies in the model folder of the run, which must stay as it is",
            None,
            "Choose another --out.",
        )
    return place


REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ON = ("1", "ON", "YES", "TRUE")
REMOVE = "Unset it, then run the command again; without --push the folder is written alone."
LOGIN = "Log in with `hf auth login` (or set HF_TOKEN), then run the command again."
# What the hub puts into a repository by itself.
HUBS_OWN = {".gitattributes"}


class Hub:
    """The hub as the account that is logged in. ``api`` is huggingface_hub's."""

    def __init__(self, name: str, api: Any = None) -> None:
        if not REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
            raise RecipeError(
                "--push", "is no name of a repository", name, "Give OWNER/NAME, e.g. ada/reviews."
            )
        offline = next((v for v in OFFLINE if os.environ.get(v, "").upper() in ON), None)
        if offline and api is None:
            raise MachineError("--push", f"needs the hub, and {offline} forbids it", None, REMOVE)
        self._api = _hub_api() if api is None else api
        self._name = name

    def login(self) -> str:
        """``OWNER/NAME``, once the hub has said who is logged in. Raises ``RunError`` where nobody
        is."""
        try:
            who = str(self._api.whoami()["name"])
        except Exception as error:
            raise RunError(
                "--push", f"nobody is logged in at the hub: {first_line(error)}", None, LOGIN
            ) from error
        return self._name if "/" in self._name else f"{who}/{self._name}"

    def check_free(self, name: str, kind: str) -> None:
        """Raise ``RunError`` where a repository of this name already holds files."""
        if not self._api.repo_exists(name, repo_type=kind):
            return
        files = set(self._api.list_repo_files(name, repo_type=kind)) - HUBS_OWN
        if files:
            raise RunError(
                f"--push {name}",
                f"is a {kind} on the hub that already holds something, which is never overwritten",
                sorted(files)[0],
                "Choose another name.",
            )

    def push(self, folder: Path, name: str, kind: str) -> str:
        """Make a private repository of this ``kind`` (``model`` or ``space``) and put ``folder``
        into it, but for the files of a Space within; its address. Raises ``MachineError`` where the
        hub refuses or breaks off."""
        more = {"space_sdk": "docker"} if kind == SPACE else {}
        try:
            made = self._api.create_repo(name, repo_type=kind, private=True, exist_ok=True, **more)
            self._api.upload_folder(
                repo_id=name,
                repo_type=kind,
                folder_path=str(folder),
                commit_message="Exported with Holdfast",
                ignore_patterns=[f"{SPACE}/*"],
            )
        except Exception as error:
            raise MachineError(
                f"--push {name}",
                f"the hub did not take it: {first_line(error)}",
                None,
                f"{folder} is whole; push it later with: hf upload {name} {folder}",
            ) from error
        return str(made)


def _hub_api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()
