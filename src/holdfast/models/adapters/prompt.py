"""Prompt tuning: learnt vectors before the embedded text (Lester and others 2021, 2104.08691)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "prompt_vectors"


def add_prompt(module: nn.Module, count: int, seed: int) -> nn.Embedding:
    """Have ``module`` read ``count`` learnt vectors before every text, as PEFT does.

    They start as the embeddings of words drawn at random, which the paper found better than
    noise. What comes out has the vectors' places too: ``hidden`` states [B, count + T, H]; logits
    of every token are cut back to [B, T, V].
    """
    words: nn.Embedding = module.get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(derive_seed(seed, "adapter"))
    drawn = torch.randint(0, words.num_embeddings, (count,), generator=generator)
    make: Any = nn.utils.skip_init
    # Without drawing: the global generator stays as it is.
    vectors: nn.Embedding = make(nn.Embedding, count, words.embedding_dim)
    with torch.no_grad():
        vectors.weight.copy_(words.weight[drawn])
    module.add_module(NAME, vectors)
    module.register_forward_pre_hook(_read_first, with_kwargs=True)
    module.register_forward_hook(_cut_logits)
    return vectors


def extended(mask: Tensor, count: int) -> Tensor:
    """A mask [B, T] with ``count`` real places before it."""
    return torch.cat([mask.new_ones(len(mask), count), mask], dim=1)


def _read_first(
    module: PreTrainedModel, args: tuple[object, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    if kwargs.get("input_ids") is None:
        return args, kwargs
    ids = kwargs["input_ids"]
    vectors = getattr(module, NAME).weight
    mask = kwargs.get("attention_mask")
    # A prompt that is only now put before the text needs a mask over its places.
    if mask is not None or not _written(kwargs):
        kwargs["attention_mask"] = extended(
            torch.ones_like(ids) if mask is None else mask, len(vectors)
        )
    # Places are counted anew, the vectors' among them, as PEFT does.
    kwargs.pop("position_ids", None)
    kwargs.pop("cache_position", None)
    if _written(kwargs):
        return args, kwargs
    texts = module.get_input_embeddings()(kwargs.pop("input_ids"))
    kwargs["inputs_embeds"] = torch.cat(
        [vectors.to(texts.dtype).expand(len(ids), -1, -1), texts], dim=1
    )
    types = kwargs.get("token_type_ids")
    if types is not None:
        kwargs["token_type_ids"] = torch.cat(
            [types.new_zeros(len(types), len(vectors)), types], dim=1
        )
    return args, kwargs


def _written(kwargs: dict[str, Any]) -> int:
    """Places that generation has in its cache: the vectors are among them by then."""
    cache = kwargs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0


def _cut_logits(module: nn.Module, args: tuple[object, ...], output: Any) -> None:
    """Only a decoder's logits stand for the places that the vectors took."""
    logits = getattr(output, "logits", None)
    count = getattr(module, NAME).num_embeddings
    if logits is not None and logits.ndim == 3 and logits.shape[1] > count:
        output.logits = logits[:, count:]
