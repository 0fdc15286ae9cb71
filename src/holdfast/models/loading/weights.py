"""A model's pretrained weights in one of Transformers' classes, checked, and what is said of them.

Each kind of model has its own loader, which knows its settings, head and lengths; what lies under
all of them, a stranger's folder read in float32 without its code, stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed
from holdfast.models.base import Network
from holdfast.models.layers import count_parameters
from holdfast.models.loading.checks import check_size, loading
from holdfast.models.loading.completeness import check_finite
from holdfast.models.loading.source import Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from holdfast.models.base import ModelFactory


def check_writes(name: str, what: str, example: str) -> None:
    """Raise ``ModelError`` where the embedded model, an encoder, is asked to write."""
    if name == "embedded":
        raise ModelError(
            "model.name",
            "is an encoder, which writes no text",
            name,
            f"Name {what}: --model {example}, or a folder.",
        )


def check_dropout(dropout: float | None) -> None:
    """Raise ``RecipeError`` for a rate outside [0, 1)."""
    if dropout is not None and not 0 <= dropout < 1:
        raise RecipeError(
            "model.dropout", "must be at least 0 and below 1", dropout, "Usual is 0.1."
        )


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


def pretrained(
    make: ModelFactory,
    source: Source,
    config: PretrainedConfig,
    what: str,
    *,
    seed: int = 0,
    new: Callable[[str], bool] | None = None,
    dtype: str = "float32",
    **settings: object,
) -> Any:
    """The model of class ``make`` with the weights of ``source``, held in ``dtype``.

    ``what`` it should be, with its article, for the message. ``new`` says of a weight's name
    whether it may be absent, or of another size, and is drawn from ``seed``; without it none may.
    The global generator stays as it is. ``settings`` go to Transformers.

    Raises
    ------
    ModelError : the files cannot be read, claim more than they hold, lack weights, or hold some
        that are no finite numbers.
    """
    if source.name != "embedded":
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
    found = [*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])]
    absent = sorted(key for key in found if new is None or not new(key))
    if absent:
        raise ModelError(
            source.name,
            f"lacks {len(absent)} of the weights of {what}: they are absent, or of another size",
            absent[0],
            "Its config.json does not describe its weights file; use a complete copy.",
        )
    check_finite(source.name, plain)
    return plain


def held_in(dtype: str) -> tuple[Decision, ...]:
    """What is said of weights that are not held in float32."""
    if dtype == "float32":
        return ()
    because = (
        "set by you: the pretrained weights take 2 bytes each, are multiplied so, and stay as they "
        "are; what learns is float32"
    )
    return (Decision("model.dtype", dtype, because),)


def describe(source: Source, network: Network, architecture: str, **more: object) -> dict[str, Any]:
    """The facts of a loaded model (see ``models.base.Loaded``)."""
    total, trainable = count_parameters(network)
    return {
        "name": source.name,
        "architecture": architecture,
        "parameters": total,
        "trainable": trainable,
        "weights": source.weights,
        "commit": source.commit,
        "layers": len(network.layers()),
        **more,
    }
