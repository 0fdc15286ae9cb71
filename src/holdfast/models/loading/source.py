"""From a model's name to a local folder with its files, or an error that says what to do."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from holdfast.core.decisions import STARTING_ADAPTER
from holdfast.core.discovery import missing_path_remedy, path_exists, suggest_name, user_path
from holdfast.core.errors import ModelError
from holdfast.core.input_errors import first_line, reading_errors, reason
from holdfast.core.packaged_models import EMBEDDED, PACKAGED_MODELS, SMOLLM2
from holdfast.core.records import Decision
from holdfast.models.loading.adapter_folder import adapter_base, adapter_folder
from holdfast.models.loading.checks import check_files, read_object
from holdfast.models.loading.packaged import packaged_decisions, packaged_folder
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Mapping


TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# The model card states licence and languages.
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.spm", "README.md")
HUB_TIMEOUT_S = 15
COMMIT = re.compile("[0-9a-f]{40}")
LONGEST_NAME = 4000  # characters; Linux takes paths of 4,095
LONGEST_REASON = 120
UNREACHABLE = "the hub is not reachable"
REMOTE_CODE = "model.trust_remote_code"
NAMES = (
    "Name a model folder, a model of the Hugging Face hub (owner/name), or a packaged model: "
    f"{EMBEDDED} (MiniLM, an encoder), {SMOLLM2} (a language model)."
)
TRUST = f"--set {REMOTE_CODE}=true"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model's files are. ``weights`` says which kind of file holds its weights;
    ``config`` is its ``config.json``; ``adapter`` the folder of an adapter for it that the name
    stood for."""

    name: str
    folder: Path
    weights: Literal["safetensors", "pytorch"]
    config: dict[str, Any]
    decisions: tuple[Decision, ...]
    adapter: Path | None = None

    @property
    def tokenizer(self) -> Path:
        """The folder of its tokenizer: an adapter may bring its own."""
        return (
            self.adapter
            if self.adapter and _has_any(self.adapter, TOKENIZER_FILES)
            else self.folder
        )

    @property
    def commit(self) -> str | None:
        """The hub's commit of a fetched model; ``None`` for a folder and a packaged model."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    @property
    def encodes_sentences(self) -> bool:
        """Whether the model was trained to encode sentences: Sentence Transformers name the pooling
        of such models in ``modules.json``."""
        return (self.folder / "modules.json").is_file()


def weights_digest(source: Source) -> str:
    """The SHA-256 of the weight files, read one after the other in the order of their names."""
    if source.name == EMBEDDED:
        return PACKAGED_MODELS[EMBEDDED].sha256
    pattern = "model*.safetensors" if source.weights == "safetensors" else "pytorch_model*.bin"
    files = sorted(source.folder.glob(pattern))
    with reading_errors(source.name, ModelError):
        return _digest_of(tuple((one, one.stat().st_mtime_ns, one.stat().st_size) for one in files))


@functools.cache
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """A model is loaded many times in a search; the time and size of its files tell whether they
    are the same."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def short_name(name: str) -> str:
    """The name of a folder that is given by its whole path, and any other model's own."""
    return Path(name).name if Path(name).is_absolute() else name


def find_model(
    name: str,
    *,
    revision: str | None = None,
    trust: bool = False,
    reads: str = "tokenizer",
    files: tuple[str, ...] = TOKENIZER_FILES,
    adapters: bool = False,
) -> Source:
    """The files of a packaged model, of a folder, or of a model on the Hugging Face hub.

    Of a hub model only what is needed is fetched: configuration, tokenizer and one set of
    weights, safetensors where there are any. ``reads`` is what turns rows into inputs, a tokenizer
    or another processor, of which one of ``files`` must be there. With ``adapters`` the name may
    also be a folder with an adapter: the files are then those of its pretrained model.

    Raises
    ------
    ModelError : no such folder or hub model, no network, a licence to accept, no weights or
        quantised ones, no tokenizer, or code of the model's own that was not allowed to run.
    """
    check_name(name)
    adapter = adapter_folder(name)
    if adapter is not None:
        if not adapters:
            raise _adapter_error(name)
        base = adapter_base(adapter)
        found = find_model(base.name, revision=base.revision, trust=trust, reads=reads, files=files)
        because = f"it is trained further; its base model is {short_name(base.name)}"
        decision = Decision(STARTING_ADAPTER, name, because)
        return replace(found, adapter=adapter, decisions=(*found.decisions, decision))
    folder = find_folder(name, revision)
    config = read_config(name, folder)
    if name != EMBEDDED:
        check_files(name, folder, pictures=files is not TOKENIZER_FILES)
    if config.get("quantization_config"):
        rule = "is already quantised, which Holdfast cannot read"
        remedy = "Name its unquantised base model, with --set model.quantize=4bit."
        raise ModelError(name, rule, config["quantization_config"], remedy)
    allowed = _remote_code(name, folder, config, trust)
    if not _has_any(folder, files):
        raise ModelError(
            name, f"has no {reads}", str(folder), f"Put the model's {reads} files in this folder."
        )
    weights, decisions = _weights(name, folder), [*packaged_decisions(name), *allowed]
    if revision is not None and name not in PACKAGED_MODELS and not user_path(name).is_dir():
        decisions.append(Decision("model.revision", revision, "set in the recipe"))
    if weights == "pytorch":
        because = (
            "the model ships no safetensors; PyTorch's weights-only loader reads numbers and "
            "refuses anything in the file that could run code"
        )
        decisions.append(Decision("weights file", "pytorch_model.bin", because, prominent=True))
    return Source(name, folder, weights, config, tuple(decisions))


def _has_any(folder: Path, files: tuple[str, ...]) -> bool:
    return any((folder / file).is_file() for file in files)


def _adapter_error(name: str) -> ModelError:
    return ModelError(
        name,
        "holds an adapter (adapter_config.json), which only causal-lm can train further",
        None,
        "Train with --set model.adapter.merge=true: the saved model is then a plain one.",
    )


def read_config(name: str, folder: Path) -> dict[str, Any]:
    """``config.json`` as a dictionary; a folder without a readable one is not a model's."""
    path = folder / "config.json"
    try:
        return read_object(name, path)
    except ModelError as error:
        remedy = "Name a folder written by save_pretrained, or a model of the Hugging Face hub."
        # A run holds its model in a folder of its own.
        if path_exists(folder / "model" / "config.json"):
            remedy = f"Did you mean {Path(name) / 'model'}? {remedy}"
        raise ModelError(
            name, "is not a model folder: it has no readable config.json", error.rule, remedy
        ) from error


def check_name(name: str) -> None:
    """Refuse a name that neither a folder nor a hub model can have."""
    if not name.strip() or not name.isprintable() or len(name) > LONGEST_NAME:
        raise ModelError(
            "model.name", f"is no name: up to {LONGEST_NAME:,} printable characters", name, NAMES
        )


def plain_folder(name: str, revision: str | None = None) -> Path:
    """``find_folder`` with its files checked, for loaders of Transformers and PEFT. Given the name
    of a hub model without safetensors, these would ask a service of the hub to convert it."""
    folder = find_folder(name, revision)
    if name not in PACKAGED_MODELS:
        check_files(name, folder)
    return folder


def find_folder(name: str, revision: str | None) -> Path:
    if name in PACKAGED_MODELS:
        return packaged_folder(name)
    path = user_path(name)
    if path_exists(path) and path.is_dir():
        return path
    if path_exists(path) or name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1:
        missing = "" if path_exists(path) else f"{missing_path_remedy(path, folders=True)} "
        raise ModelError(name, "is not a folder", None, f"{missing}{NAMES}")
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    """The hub's files in the local cache; a cached copy works offline. The files of a commit never
    change, so the hub is not asked for one that is cached."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    with quiet_transformers():
        if revision is not None and COMMIT.fullmatch(revision):
            cached = try_to_load_from_cache(name, "config.json", revision=revision)
            if isinstance(cached, str) and weights_format(Path(cached).parent) is not None:
                return Path(cached).parent
        try:
            # Of the calls that list files this one does not try again for half a minute offline.
            files = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S).siblings
            weights = _weights_pattern([file.rfilename for file in files or []])
            return Path(
                snapshot_download(name, revision=revision, allow_patterns=[*SMALL_FILES, weights])
            )
        except Exception as error:
            explained = _hub_error(name, revision, error)
            if UNREACHABLE not in explained.rule:
                raise explained from error
            with contextlib.suppress(OSError):
                return Path(snapshot_download(name, revision=revision, local_files_only=True))
            raise explained from error


def _weights_pattern(files: list[str]) -> str:
    """Of several copies of the weights, take one; those in sub-folders are other formats."""
    top = [file for file in files if "/" not in file]
    return "model*.safetensors" if any(f.endswith(".safetensors") for f in top) else "pytorch*.bin"


def _hub_error(name: str, revision: str | None, error: Exception) -> ModelError:
    """The hub's errors in the user's terms."""
    from huggingface_hub import errors as hub

    value: object = None
    if isinstance(error, hub.GatedRepoError):
        rule = "has a licence that must be accepted first"
        remedy = (
            f"Accept it at the model's page on the hub ({name}), then give a read token of that "
            "account: HF_TOKEN=… or `hf auth login`."
        )
    elif isinstance(error, hub.RevisionNotFoundError):
        rule, value = "does not have this revision", revision
        remedy = "Name a branch, a tag or a commit of it."
    elif isinstance(error, (hub.RepositoryNotFoundError, hub.HFValidationError)):
        rule = "is neither a folder nor a model of the Hugging Face hub"
        remedy = "Check the spelling. A private model needs a read token: HF_TOKEN=…"
    elif isinstance(error, (OSError, hub.LocalEntryNotFoundError)) or "onnect" in repr(error):
        rule = f"is not a folder and cannot be downloaded: {UNREACHABLE}"
        value = first_line(error).partition(". ")[0][:LONGEST_REASON]
        remedy = (
            "Connect to the network (unset HF_HUB_OFFLINE), name a local folder, or use a model "
            f"that is on this machine. {suggest_name(name, [*PACKAGED_MODELS, *_cached_models()])}"
        )
    else:
        rule, value = "cannot be downloaded from the Hugging Face hub", reason(error)
        remedy = "Try again later, name a local folder, or use --model embedded."
    return ModelError(name, rule, value, remedy)


def _cached_models() -> list[str]:
    """The hub's models in the local cache."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, OSError):
        return []
    return [repository.repo_id for repository in repositories if repository.repo_type == "model"]


def _remote_code(
    name: str, folder: Path, config: Mapping[str, object], trust: bool
) -> list[Decision]:
    """Refuse a model that brings code, unless that was allowed. If allowed, its tokenizer's code
    runs; its layers are still Transformers' own, because a saved folder must load without remote
    code."""
    path = folder / "tokenizer_config.json"
    tokenizer = read_object(name, path) if path.is_file() else {}
    custom_code = {"model": config.get("auto_map"), "tokenizer": tokenizer.get("auto_map")}
    parts_with_code = {part: code for part, code in custom_code.items() if code}
    if parts_with_code and not trust:
        raise ModelError(
            name,
            f"brings code of its own for its {' and '.join(parts_with_code)}, which does "
            "not run without your permission",
            parts_with_code,
            f"Read that code; if you trust it, use {TRUST}, best with a pinned "
            "model.revision. Layers that exist only as such code are refused even then.",
        )
    decisions = []
    if "model" in parts_with_code:
        because = "the saved model must load without remote code; all weights must fit these"
        decisions.append(Decision("model's own code", "Transformers' layers instead", because))
    if "tokenizer" in parts_with_code:
        decisions.append(Decision("tokenizer's own code", "run", f"allowed by you: {TRUST}"))
    return decisions


def weights_format(folder: Path) -> Literal["safetensors", "pytorch"] | None:
    """Which kind of file holds the weights in a folder; ``None`` if there are none."""
    formats: dict[str, Literal["safetensors", "pytorch"]]
    formats = {"model.safetensors": "safetensors", "pytorch_model.bin": "pytorch"}
    for file, name in formats.items():
        if (folder / file).is_file() or (folder / f"{file}.index.json").is_file():
            return name
    return None


def _weights(name: str, folder: Path) -> Literal["safetensors", "pytorch"]:
    found = weights_format(folder)
    if found is not None:
        return found
    remedy = "Its folder needs model.safetensors, or pytorch_model.bin."
    raise ModelError(name, "has no weights that can be read safely", str(folder), remedy)
