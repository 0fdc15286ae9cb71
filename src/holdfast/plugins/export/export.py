"""Export of a finished run to a folder in another format: written, verified against the saved
model, scored on the validation rows, timed on this machine, and uploaded to the hub on request, by
a user who is logged in.

Everything is written into a hidden folder next to ``out`` and renamed at the end, so that an
interrupted export leaves nothing that looks complete.
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
from holdfast.plugins.export.formats import LANGUAGE_FORMATS, Format, format_of
from holdfast.runs.finished_run import FinishedRun

EXPORT_FOLDER = "export"


@dataclass(frozen=True)
class Exported:
    """Result of an export: the ``folder``, its ``export.json`` as ``facts``, and the addresses on
    the hub where it was uploaded.
    """

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
    bfloat16: bool = False,
    push: str | None = None,
    space: bool = False,
    out: Path | None = None,
) -> Exported:
    """Write the model of a finished run in the format ``to``; see ``holdfast export``.

    Raises
    ------
    RecipeError : an unknown format, or one that does not support the run's task.
    RunError : no finished run; ``out`` exists; nobody is logged in to upload.
    ModelError : the model has no form in this format, or its file computes something else.
    MachineError : a package is missing, the disk or the hub refuses.
    """
    finished_run = FinishedRun(run)
    task = str(finished_run.result["task"])
    form = format_of(to, task)
    _check_options(form, int8, bfloat16, space)
    out_folder = _out_folder(run, to, out)
    hub = None if push is None else Hub(push)
    name = hub.login() if hub else run.resolve().name
    repository_types = ("model", files.SPACE) if space else ("model",)
    if hub:
        for repository_type in repository_types:
            hub.check_free(name, repository_type)
    notify(*unsealed_decisions([run]))
    title = name.rpartition("/")[2]
    with new_folder(out_folder, "an export") as (temporary, finish):
        if form.name in LANGUAGE_FORMATS:
            from holdfast.plugins.export.decoder import write_decoder, write_merged

            facts = (
                write_merged(finished_run, temporary, bfloat16=bfloat16)
                if form.name == "merged"
                else write_decoder(finished_run, temporary, title, int8=int8)
            )
        else:
            from holdfast.plugins.export.classifier import write_classifier

            facts = write_classifier(finished_run, form, int8, temporary)
        threshold = any(facts.get(key) is not None for key in ("threshold", "costs"))
        usage = files.usage_lines(form.name, task, title, threshold)
        write_text(temporary / files.CARD, files.card(run / "model", form.name, facts, usage))
        if space:
            files.write_space(temporary, temporary / files.SPACE, title, task in IMAGE_TASKS)
        write_json(temporary / files.FACTS, facts)
        finish()
    pushed: dict[str, str] = {}
    if hub:
        for repository_type in repository_types:
            folder = out_folder if repository_type == "model" else out_folder / repository_type
            pushed[repository_type] = hub.push(folder, name, repository_type)
        because = "a first upload is private: make it public on its hub page"
        notify(Decision("on the hub", "private", because, prominent=True))
    return Exported(out_folder, facts, pushed)


def _check_options(form: Format, int8: bool, bfloat16: bool, space: bool) -> None:
    if form.name == "merged" and int8:
        remedy = "Use --bfloat16, or write 8-bit weights with --to gguf and --int8."
        raise RecipeError("--int8", "is not for merged", None, remedy)
    if form.name != "merged" and bfloat16:
        remedy = "Leave it out. --int8 writes 8-bit weights."
        raise RecipeError("--bfloat16", f"is for merged, not for {form.name}", None, remedy)
    if form.name in LANGUAGE_FORMATS and space:
        raise RecipeError(
            "--space", f"is for classifiers, not for {form.name}", None, "Leave it out."
        )


def _out_folder(run: Path, to: str, out: Path | None) -> Path:
    """The folder of the export. Raises ``RunError`` where it is not empty."""
    out_folder = run / EXPORT_FOLDER / to if out is None else out
    if "\0" in str(out_folder):
        raise RunError(str(out_folder), "has a NUL character, which a path cannot contain")
    refuse_existing(out_folder, "an export")
    absolute = out_folder.absolute()
    if (run / "model").resolve() in (absolute.resolve(), *absolute.resolve().parents):
        rule = "is in the model folder of the run, which must stay unchanged"
        raise RunError(str(out_folder), rule, None, "Choose another --out.")
    return out_folder


REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TRUE_VALUES = ("1", "ON", "YES", "TRUE")
UNSET_OFFLINE = (
    "Unset it, then run the command again. To write the folder without an upload, leave out --push."
)
LOGIN = "Log in with `hf auth login` (or set HF_TOKEN), then run the command again."
# Files that the hub itself adds to a repository.
HUB_FILES = {".gitattributes"}


class Hub:
    """The hub as seen by the logged-in account. ``api`` is huggingface_hub's."""

    def __init__(self, name: str, api: Any = None) -> None:
        if not REPOSITORY.fullmatch(name) or ".." in name or "--" in name:
            rule = "is not a valid repository name"
            raise RecipeError("--push", rule, name, "Use OWNER/NAME, e.g. ada/reviews.")
        offline = next((v for v in OFFLINE if os.environ.get(v, "").upper() in TRUE_VALUES), None)
        if offline and api is None:
            raise MachineError(
                "--push", f"needs the hub, and {offline} forbids it", None, UNSET_OFFLINE
            )
        self._api = _hub_api() if api is None else api
        self._name = name

    def login(self) -> str:
        """``OWNER/NAME``, with the logged-in account as the owner where none is given. Raises
        ``RunError`` where nobody is logged in.
        """
        try:
            account = str(self._api.whoami()["name"])
        except Exception as error:
            raise RunError(
                "--push", f"nobody is logged in to the hub: {first_line(error)}", None, LOGIN
            ) from error
        return self._name if "/" in self._name else f"{account}/{self._name}"

    def check_free(self, name: str, repository_type: str) -> None:
        """Raise ``RunError`` where a repository of this name already holds files."""
        if not self._api.repo_exists(name, repo_type=repository_type):
            return
        files = set(self._api.list_repo_files(name, repo_type=repository_type)) - HUB_FILES
        if files:
            rule = (
                f"is a {repository_type} on the hub that already has files, and "
                "Holdfast never overwrites it"
            )
            raise RunError(f"--push {name}", rule, sorted(files)[0], "Choose another name.")

    def push(self, folder: Path, name: str, repository_type: str) -> str:
        """Create a private repository of this ``repository_type`` (``model`` or ``space``), upload
        ``folder`` without the files of a Space in it, and return the address. Raises
        ``MachineError`` where the hub refuses or the upload breaks off."""
        space_options = {"space_sdk": "docker"} if repository_type == SPACE else {}
        try:
            address = self._api.create_repo(
                name, repo_type=repository_type, private=True, exist_ok=True, **space_options
            )
            self._api.upload_folder(
                repo_id=name,
                repo_type=repository_type,
                folder_path=str(folder),
                commit_message="Exported with Holdfast",
                ignore_patterns=[f"{SPACE}/*"],
            )
        except Exception as error:
            rule = f"the hub refused it: {first_line(error)}"
            remedy = f"{folder} is complete; upload it later with: hf upload {name} {folder}"
            raise MachineError(f"--push {name}", rule, None, remedy) from error
        return str(address)


def _hub_api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()
