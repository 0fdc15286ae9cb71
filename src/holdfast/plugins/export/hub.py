"""Putting an export on the Hugging Face hub: only when asked, only by somebody who is logged in."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from holdfast.core.errors import MachineError, RecipeError, RunError
from holdfast.core.input_errors import first_line
from holdfast.plugins.export.folder import SPACE

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ON = ("1", "ON", "YES", "TRUE")
REMOVE = "Unset it, then run the command again; without --push the folder is written alone."
LOGIN = "Log in with `hf auth login` (or set HF_TOKEN), then run the command again."
# What the hub puts into a repository by itself.
HUBS_OWN = {".gitattributes"}


class Hub:
    """The hub as the account that is logged in. ``api`` is huggingface_hub's."""

    def __init__(self, name: str, api: Any = None) -> None:
        if not NAME.fullmatch(name) or ".." in name or "--" in name:
            raise RecipeError(
                "--push", "is no name of a repository", name, "Give OWNER/NAME, e.g. ada/reviews."
            )
        offline = next((v for v in OFFLINE if os.environ.get(v, "").upper() in ON), None)
        if offline and api is None:
            raise MachineError("--push", f"needs the hub, and {offline} forbids it", None, REMOVE)
        self._api = _api() if api is None else api
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


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()
