"""The encoders of texts on this machine: the embedded one, those that the user names, those in the
folders of ``HOLDFAST_MODELS``, and those in the Hugging Face cache. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.core.discovery import path_exists, user_path
from holdfast.core.errors import InputError, ModelError
from holdfast.core.packaged_models import EMBEDDED
from holdfast.models.loading.card import card_here, purpose_of
from holdfast.models.loading.checks import read_object
from holdfast.models.loading.source import REMOTE_CODE, Source, find_model

FOLDERS, CANDIDATES = "HOLDFAST_MODELS", "model.candidates"
CONFIG = "config.json"
NO_PURPOSE = "is not a text encoder"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that can be loaded without a network: its ``name`` as ``model.name`` takes it, and
    for one of the hub its ``revision`` (a commit). ``named_by`` says where the user names it; one
    that only lies in the cache is not."""

    name: str
    revision: str | None = None
    named_by: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedModel:
    """A model that cannot be used, on this machine or for these rows, and why."""

    name: str
    because: str


def local_encoders(named: Sequence[str] = ()) -> tuple[list[LocalModel], list[SkippedModel]]:
    """The usable encoders on this machine in a fixed order: the embedded one, the ``named`` ones,
    those of ``HOLDFAST_MODELS`` by path, those of the cache by name; and the skipped ones.

    Raises
    ------
    ModelError : a model that the user names, or a folder of ``HOLDFAST_MODELS``, is missing or
        cannot be used. One that only lies in the cache is skipped instead.
    """
    embedded = LocalModel(EMBEDDED)
    # By folder: a link and its target are one model.
    usable: dict[Path, LocalModel] = {}
    skipped: list[SkippedModel] = []
    cached: dict[str, tuple[LocalModel, Path]] = {}
    for model, snapshot in _cached():
        if isinstance(snapshot, Path):
            cached[model.name] = model, snapshot
        else:
            skipped.append(SkippedModel(model.name, snapshot))
    of_variable = [(str(folder), FOLDERS) for folder in _named_folders()]
    for name, named_by in (*((one, CANDIDATES) for one in named), *of_variable):
        if name == embedded.name:
            continue
        with naming_place(named_by):
            # One of the hub is in the cache: the hub is not asked.
            model, folder = cached.get(name, (LocalModel(name), None))
            if folder is None:
                _refuse_uncached(name)
            source = find_encoder(str(folder or name))
            usable.setdefault(source.folder.resolve(), replace(model, named_by=named_by))
    for model, snapshot in cached.values():
        try:
            source = find_encoder(str(snapshot))
        except ModelError as error:
            because = error.rule if error.value is None else f"{error.rule} ({error.value})"
            skipped.append(SkippedModel(model.name, because.splitlines()[0]))
        else:
            usable.setdefault(source.folder.resolve(), model)
    return [embedded, *usable.values()], skipped


@contextlib.contextmanager
def naming_place(place: str | None) -> Iterator[None]:
    """Add to the remedy of an error where the user names the model."""
    try:
        yield
    except InputError as error:
        if place is None:
            raise
        if REMOTE_CODE in error.remedy:
            remedy = f"Remove it from {place}, or set model.name to it: {error.remedy}"
        else:
            remedy = f"{error.remedy} It is listed in {place}."
        raise error.reworded(remedy=remedy) from error


def find_encoder(name: str) -> Source:
    """The files of an encoder that trains as a classifier. Raises ``ModelError`` where they are
    incomplete, hold weights as pickles only, bring code, are not an encoder's, or are those of a
    model that Holdfast fine-tuned: its probe would score rows that the model may have learned."""
    source = find_model(name)
    if source.weights != "safetensors":
        remedy = "Save it again with save_pretrained of Transformers 5."
        raise ModelError(name, "has no weights in safetensors", None, remedy)
    _check_parts(source)
    purpose = purpose_of(str(source.folder))
    if purpose != "encoder" or not _is_known(source):
        found = purpose if purpose != "encoder" else source.config.get("model_type")
        raise ModelError(
            name, NO_PURPOSE, found, "Name a text encoder, for example bert-base-uncased."
        )
    if card_here(source.folder).fine_tuned:
        rule = "was fine-tuned by Holdfast, and may have learned from the rows of this run"
        raise ModelError(name, rule, None, "Name it with model.name to train it further.")
    return source


def _is_known(source: Source) -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS,
    )

    return source.config.get("model_type") in CLASSIFIERS


def _check_parts(source: Source) -> None:
    """All parts of the weights must be there, and not empty."""
    index = source.folder / "model.safetensors.index.json"
    parts: Iterable[object] = ("model.safetensors",)
    if index.is_file():
        named: Any = read_object(source.name, index).get("weight_map")
        parts = sorted(set(named.values())) if isinstance(named, dict) else ()
    for part in parts:
        path = source.folder / str(part)
        if not path.is_file() or not path.stat().st_size:
            rule, remedy = "has a missing or empty weight file", "Use a complete copy of the model."
            raise ModelError(source.name, rule, str(part), remedy)


def _refuse_uncached(name: str) -> None:
    """Refuse what is no folder: a name of the hub that is not in the cache would be downloaded."""
    folder = user_path(name)
    if not (path_exists(folder) and folder.is_dir()):
        rule = "is neither a folder nor a model in the Hugging Face cache"
        remedy = "Correct the name, or download the model first: hf download OWNER/NAME."
        raise ModelError(name, rule, None, remedy)


def _named_folders() -> Iterator[Path]:
    """The model folders of ``HOLDFAST_MODELS``: each entry is one, or a folder of such."""
    for entry in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        folder = user_path(entry)
        if not (path_exists(folder) and folder.is_dir()):
            lacks = "is not one" if path_exists(folder) else "does not exist"
            rule, remedy = f"names a folder that {lacks}", f"Correct or unset {FOLDERS}."
            raise ModelError(FOLDERS, rule, entry, remedy)
        inside = [folder] if (folder / CONFIG).is_file() else sorted(folder.iterdir())
        found = [one.resolve() for one in inside if (one / CONFIG).is_file()]
        if not found:
            rule = "names a folder without a model: no config.json in it or its subfolders"
            raise ModelError(FOLDERS, rule, entry, f"Correct or unset {FOLDERS}.")
        yield from found


def _cached() -> Iterator[tuple[LocalModel, Path | str]]:
    """The models of the Hugging Face cache by name, with their folders (the commit of their main
    branch, else the only one that is there), or why there is none."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE)
    if not cache.is_dir():
        return
    for place in sorted(cache.glob("models--*")):
        model = LocalModel("/".join(place.name.split("--")[1:]))
        try:
            commit = _commit(place)
        except (OSError, ValueError) as error:
            yield model, f"has an unreadable refs/main in the cache: {error}"
            continue
        if commit is None:
            yield model, "has no main branch in the cache, and several commits or none"
        elif not (place / "snapshots" / commit / CONFIG).is_file():
            yield model, f"is incomplete in the cache: commit {commit[:8]} has no {CONFIG}"
        else:
            yield replace(model, revision=commit), place / "snapshots" / commit


def _commit(place: Path) -> str | None:
    main = place / "refs" / "main"
    if main.is_file():
        return main.read_text("utf-8").strip()
    snapshots = sorted((place / "snapshots").glob("*"))
    return snapshots[0].name if len(snapshots) == 1 else None
