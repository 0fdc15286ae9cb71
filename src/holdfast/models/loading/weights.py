"""A model's pretrained weights in one of Transformers' classes, read from an untrusted folder in
float32 without its code; and checks that the loaded model matches its folder.

Transformers and PEFT initialise a weight at random if a file lacks it, skip one that the
configuration has no place for, and make an empty tokenizer if its file is missing. They report each
in a log line at most, and each changes the predictions. Here they are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.input_errors import reading_errors
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.seeds import derive_seed
from holdfast.models.base import Network
from holdfast.models.layers import count_parameters
from holdfast.models.loading.card import card_here
from holdfast.models.loading.checks import check_size, loading
from holdfast.models.loading.source import Source, weights_digest

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from holdfast.models.base import ModelFactory

# They are counted or computed, not learned, and a plain folder may lack them.
COMPUTED = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "position_ids",
)
# What to do about a folder that is not one of a run.
SAVED = "Name the model folder of a finished run."
NOT_DESCRIBED = "Its config.json does not describe its weights file; use a complete copy."
COMPLETE = "Use a complete copy."


def check_dropout(dropout: float | None) -> None:
    """Raise ``RecipeError`` for a rate outside [0, 1)."""
    if dropout is not None and not 0 <= dropout < 1:
        raise RecipeError(
            "model.dropout", "must be at least 0 and below 1", dropout, "The usual value is 0.1."
        )


def check_classes(classes: Sequence[str], min_classes: int, remedy: str) -> None:
    """Raise ``ModelError`` for fewer classes than ``min_classes``, or repeated names."""
    if len(classes) < min_classes or len(set(classes)) != len(classes):
        raise ModelError("classes", "must be at least two different names", list(classes), remedy)


def configuration(source: Source, dropout: float | None = None, rates: Sequence[str] = ()) -> Any:
    """Transformers' configuration of the model, with ``dropout`` for those of ``rates`` that it
    has."""
    from transformers import AutoConfig

    with loading(source.name, "has a config.json that cannot be used"):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    for key in rates if dropout is not None else ():
        if hasattr(config, key):
            setattr(config, key, dropout)
    return config


def name_classes(config: PretrainedConfig, classes: Sequence[str]) -> None:
    """Write the names of the outputs into a configuration, in their order."""
    names = dict(enumerate(classes))
    config.id2label, config.label2id = names, {name: index for index, name in names.items()}


def load_pretrained(
    make: ModelFactory,
    source: Source,
    config: PretrainedConfig,
    description: str,
    *,
    seed: int = 0,
    new: Callable[[str], bool] | None = None,
    dtype: str = "float32",
    **settings: object,
) -> Any:
    """The model of class ``make`` with the weights of ``source``, held in ``dtype``.

    ``description`` it should be, with its article, for the message. ``new`` says of a weight's name
    whether it may be absent, or of another size, and is drawn from ``seed``; without it none may.
    The global generator stays as it is. ``settings`` go to Transformers.

    Raises
    ------
    ModelError : the files cannot be read, claim more than they hold, lack weights, or hold some
        that are no finite numbers.
    """
    if source.name != EMBEDDED:
        check_size(source.name, source.folder, make, config)
    with loading(source.name), torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "new weights"))
        plain, info = make.from_pretrained(
            source.folder,
            config=config,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=source.weights == "safetensors",
            # Of a file that is no safetensors numbers are read, and nothing that could run.
            weights_only=True,
            # A head of other classes is replaced; whatever else does not fit is found below.
            ignore_mismatched_sizes=new is not None,
            output_loading_info=True,
            **settings,
        )
    unloaded_keys = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    absent = sorted(key for key in unloaded_keys if new is None or not new(key))
    if absent:
        rule = (
            f"lacks {len(absent)} of the weights of {description}: they are absent, or of "
            "another size"
        )
        raise ModelError(source.name, rule, absent[0], NOT_DESCRIBED)
    check_finite(source.name, plain)
    return plain


def describe(
    source: Source, network: Network, architecture: str, **extra: object
) -> dict[str, Any]:
    """The facts of a loaded model (see ``models.base.LoadedModel``): ``sha256`` is that of its
    files (``weights_digest``), ``licence`` what its card names."""
    total, trainable = count_parameters(network)
    return {
        "name": source.name,
        "architecture": architecture,
        "parameters": total,
        "trainable": trainable,
        "weights": source.weights,
        "commit": source.commit,
        "sha256": weights_digest(source),
        "licence": card_here(source.folder).licence,
        "layers": len(network.layers()),
        **extra,
    }


def read_saved(make: ModelFactory, folder: Path) -> Any:
    """What ``make.from_pretrained`` gives for a saved folder, without remote code, from safetensors
    and in float32, where the weights in it are exactly those of its configuration. Of a folder that
    somebody brings as a pretrained model less is asked: it may lack a head, and have one that is
    not used.

    Raises ``ModelError`` where they are not, and whatever Transformers raises where the folder
    cannot be read at all.
    """
    model, info = make.from_pretrained(
        folder,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    for names, rule in (
        (missing, "lacks {} of the weights that its config.json asks for"),
        (info["unexpected_keys"], "holds {} weights that its config.json has no place for"),
    ):
        parameter_names = sorted(name for name in names if not name.endswith(COMPUTED))
        if parameter_names:
            raise ModelError(
                str(folder), rule.format(len(parameter_names)), parameter_names[0], NOT_DESCRIBED
            )
    check_finite(str(folder), model)
    return model


def check_finite(label: str, model: nn.Module) -> None:
    """Raise ``ModelError`` if a weight is not a finite number.

    A sum is the fastest check of a tensor: it is finite only if every weight is, and if it is not
    (it may overflow), each weight is checked.
    """
    for name, weight in model.state_dict().items():
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            continue
        if weight.is_meta or torch.isfinite(weight.sum()):
            continue
        n_bad = int((~torch.isfinite(weight)).sum())
        if n_bad:
            raise ModelError(
                label,
                f"has weights that are not finite numbers: {n_bad:,} of {weight.numel():,} "
                f"in {name}",
                None,
                "Its training diverged, or the file is damaged; use another.",
            )


def check_tokenizer(
    label: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> None:
    """Raise ``ModelError`` if a tokenizer has no words, or more than the model has embeddings.
    Fewer are usual: tables are padded to round sizes."""
    vocabulary = tokenizer.get_vocab()
    special = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    if not set(vocabulary) - special:
        remedy = "A file of the tokenizer is missing or empty; use a complete copy."
        raise ModelError(label, "has a tokenizer with an empty vocabulary", len(vocabulary), remedy)
    size = getattr(config.get_text_config(), "vocab_size", None)
    highest = max(vocabulary.values())
    if isinstance(size, int) and highest >= size:
        rule = f"has {size} word embeddings, and its tokenizer gives a token the number {highest}"
        raise ModelError(label, rule, None, "The tokenizer belongs to another model.")


def check_adapter(folder: Path, weights: Path, model: PeftModel) -> None:
    """Raise ``ModelError`` unless the file of an adapter holds exactly what PEFT put onto
    ``model``."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with (
        reading_errors(str(weights), ModelError, remedy=COMPLETE),
        safe_open(weights, framework="pt") as file,
    ):
        stored = set(file.keys())
    expected = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    for rule, names, tail in (
        ("lacks", expected - stored, "asks for"),
        ("holds", stored - expected, "has no place for"),
    ):
        if names:
            rule = f"{rule} {len(names)} weights of an adapter that its adapter_config.json {tail}"
            raise ModelError(str(folder), rule, min(names), COMPLETE)
    check_finite(str(folder), model)
