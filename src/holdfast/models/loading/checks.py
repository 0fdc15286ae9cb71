"""Error handling around Transformers' reading of a model folder, and limits on what a folder may
claim.

A configuration is untrusted: a number of layers, classes or positions costs memory before anything
is compared with the weights. So it is compared with them first.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import pickle
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import HoldfastError, MachineError, ModelError
from holdfast.core.input_errors import PANIC, reading_errors, reason
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from holdfast.models.base import ModelFactory, Network

WEIGHTS = "has weights that cannot be read"
DAMAGED = "Fetch the model again: the file is damaged, or not of this architecture."
BROKEN = "Fetch the model again: the file is damaged, or was edited."
# Beside the weights: tokenizer.json of 256,000 tokens has 33 MB, every other file below 10.
LARGEST_TOKENIZER, LARGEST_FILE = 256_000_000, 20_000_000
MAX_DEPTH = 40
# The deepest models have some 200 blocks; each costs milliseconds before any weight is looked at.
MAX_LAYERS = 400
MAX_CLASSES = 100_000  # ImageNet-21k has 21,841
LARGEST_PICTURE = 16_384  # pixels a side
# What a model may hold beyond its file: buffers of positions, a head, the halves of float16.
EXTRA_NUMBERS = 50_000_000
LAYERS = re.compile(
    r"(^|_)(layers?|depths?|blocks?)$|^n_layer|^(num_hidden_groups|inner_group_num|num_stages)$"
)
PIXELS = ("height", "width", "shortest_edge", "longest_edge", "image_size", "size", "crop_size")
SMALL_FILES = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "generation_config.json",
    "sentence_bert_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "processor_config.json",
)
# These may hold a list in some models (merges as a list, chat templates by name).
OTHER_FILES = ("tokenizer.json", "vocab.json", "chat_template.json")


@contextlib.contextmanager
def loading(name: str, rule: str = WEIGHTS, remedy: str = DAMAGED) -> Iterator[None]:
    """Wrap Transformers' reading of untrusted files: quiet, and every error becomes one
    ``ModelError``.

    Raises ``ModelError`` that names the model and the reason; ``MachineError`` if memory ran out.
    """
    try:
        with quiet_transformers(), _quiet_panics():
            yield
    except HoldfastError:
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(
            name,
            "has a weights file that holds more than numbers, so it was not loaded",
            reason(error),
            "Such a file can run code. Use a copy of the model in safetensors.",
        ) from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            raise MachineError(
                name,
                "needs more memory to be loaded than is available",
                reason(error),
                "Choose a smaller model, or give the process more memory.",
            ) from error
        raise ModelError(name, rule, reason(error), remedy) from error


def read_object(name: str, path: Path) -> dict[str, Any]:
    """A JSON file of a model's folder, which must be one object.

    Raises ``ModelError`` for anything else: no regular file, too large, no JSON, too deep, a list.
    """
    label = f"{name}: {path.name}"
    with reading_errors(label, ModelError, "cannot be read", BROKEN):
        _check_file(label, path, LARGEST_FILE)
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(value, dict):
        raise ModelError(label, "is not a table of settings", value, BROKEN)
    if _depth(value) > MAX_DEPTH:
        raise ModelError(label, f"is nested more than {MAX_DEPTH} levels deep", None, BROKEN)
    return value


def check_files(name: str, folder: Path, pictures: bool = False) -> None:
    """Refuse a folder whose small files are invalid, before anything reads them. ``pictures``: an
    image model, whose processor scales to the sizes that it names."""
    if (folder / "adapter_config.json").exists() and (folder / "config.json").exists():
        rule = "holds a model and an adapter_config.json, which would replace the model by another"
        remedy = "Remove adapter_config.json, or name the merged model."
        raise ModelError(name, rule, str(folder), remedy)
    for file in SMALL_FILES:
        if os.path.lexists(folder / file):
            value = read_object(name, folder / file)
            check_claims(f"{name}: {file}", value, pictures)
            if file.endswith(".index.json"):
                _check_parts(f"{name}: {file}", value)
    for file in OTHER_FILES:
        if os.path.lexists(folder / file):
            with reading_errors(f"{name}: {file}", ModelError, "cannot be read", BROKEN):
                _check_file(f"{name}: {file}", folder / file, LARGEST_TOKENIZER)


def check_claims(label: str, settings: Mapping[str, object], pictures: bool = False) -> None:
    """Refuse counts that cost memory or time, at any depth of a configuration."""
    for key, value in _numbers(settings):
        if LAYERS.search(key):
            rule, most = "layers", MAX_LAYERS
        elif key in ("num_labels", "num_classes"):
            rule, most = "classes", MAX_CLASSES
        elif pictures and key in PIXELS:
            rule, most = "pixels a side", LARGEST_PICTURE
        else:
            continue
        if abs(value) > most:
            raise ModelError(
                label,
                f"claims a {key} beyond {most:,} {rule}, more than any model has",
                value,
                "Its configuration does not describe its weights; use a complete copy.",
            )


def check_size(name: str, folder: Path, make: ModelFactory, config: PretrainedConfig) -> None:
    """Refuse a configuration with many more numbers than the weight files have bytes.

    The model is laid out without memory (PyTorch's ``meta`` device) and counted.
    """
    import torch

    rule = "has a config.json that no model can be made from"
    with loading(name, rule), torch.random.fork_rng(devices=[]), torch.device("meta"):
        plain = make.from_config(config, trust_remote_code=False)
    claimed = sum(t.numel() for t in itertools.chain(plain.parameters(), plain.buffers()))
    stored = sum(f.stat().st_size for f in folder.iterdir() if f.suffix in (".safetensors", ".bin"))
    if claimed > stored + EXTRA_NUMBERS:
        raise ModelError(
            name,
            f"describes a model of {claimed:,} numbers in its config.json, more than its "
            "weights files have bytes",
            stored,
            "Use a complete copy of the model.",
        )


def architectures(config: Mapping[str, object]) -> list[str]:
    """The classes that a configuration names; none where it names them as anything but a list."""
    named = config.get("architectures")
    return [str(one) for one in named] if isinstance(named, list) else []


def _check_parts(label: str, index: Mapping[str, object]) -> None:
    """An index names the files that hold the weights, all in its own folder."""
    named = index.get("weight_map")
    files = set(map(str, named.values())) if isinstance(named, dict) else None
    outside = [file for file in sorted(files or ()) if "/" in file or "\\" in file]
    if files is None or outside:
        rule = "does not name the weights files of its own folder"
        raise ModelError(label, rule, named if files is None else outside[0], BROKEN)


def check_computes(name: str, network: Network, tokenizer: PreTrainedTokenizerBase) -> None:
    """Run the model on one word: some configuration errors show only then."""
    import torch

    with loading(name, "cannot compute: its config.json does not fit it"), torch.inference_mode():
        network(**tokenizer("a", return_tensors="pt"))


def _numbers(value: object, key: str = "") -> Iterator[tuple[str, int | float]]:
    if isinstance(value, dict):
        for name, item in value.items():
            # The sides of an image stand in a table of their own: {"size": {"height": 224}}.
            yield from _numbers(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif type(value) is int or (type(value) is float and math.isfinite(value)):
        yield key, value


def _depth(value: object) -> int:
    deepest, pending = 0, [(value, 1)]
    while pending:
        one, depth = pending.pop()
        deepest = max(deepest, depth)
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        pending += [(item, depth + 1) for item in inner if isinstance(item, (dict, list))]
    return deepest


def _check_file(label: str, path: Path, largest: int) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(label, "is not a regular file", None, BROKEN)
    if status.st_size > largest:
        raise ModelError(label, f"has more than {largest:,} bytes", status.st_size, BROKEN)


@contextlib.contextmanager
def _quiet_panics() -> Iterator[None]:
    """Keep messages of a failing Rust library off the terminal: the error holds the same words."""
    stream = sys.__stderr__
    try:
        number = stream.fileno() if stream is not None else -1
        saved_descriptor = os.dup(number)
    except (OSError, ValueError):
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, number)
        yield
    finally:
        os.dup2(saved_descriptor, number)
        os.close(saved_descriptor)
        os.close(sink)
