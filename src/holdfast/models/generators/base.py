"""What decoders and encoder-decoders share: their weights, pretrained or saved, and the losses of
target tokens without all logits at once.

The logits of a batch, [targets, vocabulary] in float32 with their gradient beside them, are the
largest thing in the memory of a language model with a large vocabulary: 3 GB for 2,048 targets of
128,000 words. Here the last layer takes a few targets at a time, and the backward pass computes
their logits once more (as 2410.10989 and 2411.09009 do in kernels of their own; in PyTorch's
checkpoints any last layer will do: tied, with an adapter, spread over processes).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError
from holdfast.core.input_errors import reading_errors
from holdfast.core.packaged_models import EMBEDDED
from holdfast.core.records import Decision
from holdfast.models.adapters.quantize import load_settings, prepare_quantized
from holdfast.models.adapters.save import load_adapted, save_model
from holdfast.models.loading.adapter_folder import is_adapter_folder
from holdfast.models.loading.options import LoadOptions
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import Source
from holdfast.models.loading.tokenizer import forget_limits
from holdfast.models.loading.weights import SAVED, check_tokenizer, load_pretrained, read_saved

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PretrainedConfig

    from holdfast.models.base import ModelFactory, Preprocessor

# Bytes of float32 logits that are there at once: beyond this nothing is gained in speed.
LOGIT_BYTES_AT_ONCE = 64_000_000


def check_generates(name: str, description: str, example: str) -> None:
    """Raise ``ModelError`` if the embedded model, an encoder, is used as a generative model."""
    if name == EMBEDDED:
        remedy = f"Name {description}: --model {example}, or a folder."
        raise ModelError("model.name", "is an encoder, which cannot generate text", name, remedy)


def pretrained_generator(
    make: ModelFactory,
    source: Source,
    config: PretrainedConfig,
    description: str,
    options: LoadOptions,
) -> Any:
    """The model of class ``make`` with the weights of ``source``, quantised or held in the
    ``dtype`` of the options; the log says of either what it means. Errors are those of
    ``pretrained``."""
    quantize, dtype = options.quantize, options.dtype
    settings = load_settings(quantize.config) if quantize else {}
    plain = load_pretrained(
        make, source, config, description, seed=options.seed, dtype=dtype, **settings
    )
    if quantize:
        prepare_quantized(plain, quantize, source.name)
    elif dtype != "float32":
        because = (
            "set in the recipe: the pretrained weights take 2 bytes each, are multiplied in "
            "bfloat16 and stay frozen; trained weights are float32"
        )
        notify(Decision("model.dtype", dtype, because))
    return plain


def saved_generator(
    folder: Path, make: ModelFactory, description: str, adapted: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """The model of class ``make`` and the tokenizer in a saved folder, through plain Transformers
    alone, in float32 and evaluation mode. Where the folder holds an adapter, it is what ``adapted``
    makes of plain PEFT's model.

    Raises ``ModelError`` where the folder is absent, incomplete, or not ``description`` it should
    be.
    """
    from transformers import AutoTokenizer

    rule = f"cannot be loaded as {description}"
    with reading_errors(str(folder), ModelError, rule, SAVED), quiet_transformers():
        if is_adapter_folder(folder):
            plain = adapted(load_adapted(folder, make))
        else:
            plain = read_saved(make, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    check_tokenizer(str(folder), tokenizer, plain.config)
    return plain, tokenizer


def save_generator(network: Any, folder: Path, tokenizer: Preprocessor) -> None:
    """Write a folder that plain Transformers loads without remote code; with an adapter that is
    not merged, one that plain ``peft`` loads."""
    forget_limits(tokenizer)
    if getattr(network.config, "auto_map", None):
        del network.config.auto_map
    save_model(network.plain, network.adapter, folder, tokenizer)


def targets_at_once(vocabulary: int) -> int:
    """For how many target tokens the logits are computed together."""
    return max(1, LOGIT_BYTES_AT_ONCE // (4 * vocabulary))


def chunked_losses(
    head: nn.Module, states: Tensor, expected: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each target in nats, float32 [N], and whether it was predicted correctly
    [N].

    ``states`` [N, H] are the input of ``head``, ``expected`` [N] the target tokens; the logits of
    ``chunk_size`` targets exist at once. The gradient reaches states and head as that of
    ``torch.nn.functional.cross_entropy`` of all logits does, except for the order of sums.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(states), chunk_size):
        arguments = (head, states[start : start + chunk_size], expected[start : start + chunk_size])
        with_gradient = torch.is_grad_enabled()
        parts.append(
            checkpoint(_losses, *arguments, use_reentrant=False)
            if with_gradient
            else _losses(*arguments)
        )
    if not parts:
        return states.new_zeros(0, dtype=torch.float32), expected.new_zeros(0, dtype=torch.bool)
    return torch.cat([one for one, _ in parts]), torch.cat([hit for _, hit in parts])


def _losses(head: nn.Module, states: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    losses = torch.nn.functional.cross_entropy(logits, expected, reduction="none")
    return losses, logits.detach().argmax(dim=-1) == expected
