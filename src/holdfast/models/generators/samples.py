"""Texts sampled from a causal language model with a seed: without a prompt, or as continuations of
prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holdfast.core.seeds import derive_seed
from holdfast.models.base import evaluating
from holdfast.models.generators.causal import CausalNetwork, load_causal
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLES_AT_ONCE, PROMPTS_AT_ONCE = 64, 16
TOP_P, NEW_TOKENS = 0.95, 60
# A model whose texts are all empty gives none, instead of being asked for ever.
ROUNDS = 4


def sample_texts(
    network: CausalNetwork, tokenizer: PreTrainedTokenizerBase, count: int, tokens: int, seed: int
) -> list[str]:
    """At most ``count`` texts of at most ``tokens`` tokens, sampled from the model's own
    distribution (temperature 1, no word left out) from its first token on, up to its end token.

    The first token is the one that the tokenizer begins a text with, else the one that parts texts.
    Equal seeds and machines give equal texts; the generators of others stay as they are. Empty
    texts are left out.
    """
    first = _first_token(tokenizer)
    if first is None:
        return []
    device = next(network.parameters()).device
    samples: list[str] = []
    with torch.random.fork_rng(devices=[]), evaluating(network), quiet_transformers():
        torch.manual_seed(derive_seed(seed, "own texts"))
        for _ in range(ROUNDS * -(-count // SAMPLES_AT_ONCE)):
            ids = torch.full((min(SAMPLES_AT_ONCE, count), 1), first, device=device)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            texts = _generate(network.plain, tokenizer, inputs, tokens, temperature=1.0, top_p=1.0)
            samples += [text for text in texts if text.strip()]
            if len(samples) >= count:
                break
    return samples[:count]


def _generate(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Mapping[str, Tensor],
    tokens: int,
    **sampling: float,
) -> list[str]:
    """The text that the model generates after ``inputs``, without these."""
    ids = inputs["input_ids"]
    generated = model.generate(
        input_ids=ids,
        attention_mask=inputs["attention_mask"],
        do_sample=True,
        top_k=0,
        max_new_tokens=tokens,
        pad_token_id=tokenizer.pad_token_id,
        **sampling,
    )
    return tokenizer.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    begins = tokenizer("a", verbose=False)["input_ids"]
    if begins and begins[0] == tokenizer.bos_token_id and tokenizer.bos_token_id is not None:
        return int(begins[0])
    for name in ("eos_token_id", "bos_token_id"):
        token_id = getattr(tokenizer, name)
        if token_id is not None:
            return int(token_id)
    return None


def continue_prompts(
    name: str, prompts: Sequence[str], *, seed: int, temperature: float
) -> list[str]:
    """The model's continuation of each prompt, at most 60 tokens, sampled at ``temperature`` with
    top-p 0.95 (1904.09751).

    Equal seeds, prompts and machines give equal texts. A prompt too long for the model loses its
    beginning. Raises ``ModelError`` if the model cannot be loaded.
    """
    loaded = load_causal(name)
    model, tokenizer = loaded.network.plain, loaded.tokenizer
    model.eval()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    max_prompt = max(8, loaded.max_length - NEW_TOKENS)
    continuations: list[str] = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), quiet_transformers():
        torch.manual_seed(derive_seed(seed, "synthesize"))
        for start in range(0, len(prompts), PROMPTS_AT_ONCE):
            batch = tokenizer(
                list(prompts[start : start + PROMPTS_AT_ONCE]),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=max_prompt,
            )
            sampling = {"temperature": temperature, "top_p": TOP_P}
            continuations += _generate(model, tokenizer, batch, NEW_TOKENS, **sampling)
    return continuations
