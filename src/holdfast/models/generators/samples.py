"""What a causal language model writes unasked: samples of what it knows.

A causal language model that continues prompts: sampled, by a seed, in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from holdfast.core.seeds import derive_seed
from holdfast.models.generators.causal import CausalNetwork, load_causal
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLES_AT_ONCE = 64
# A model whose texts are all empty gives none, instead of being asked for ever.
ROUNDS = 4


def own_texts(
    network: CausalNetwork, tokenizer: PreTrainedTokenizerBase, count: int, tokens: int, seed: int
) -> list[str]:
    """At most ``count`` texts of at most ``tokens`` tokens, sampled from the model's own
    distribution (temperature 1, no word left out) from its first token on, up to its end token.

    The first token is the one that the tokenizer begins a text with, else the one that parts texts.
    Equal seeds and machines give equal texts; the generators of others stay as they are. Empty
    texts are left out.
    """
    first = _first(tokenizer)
    if first is None:
        return []
    device = next(network.parameters()).device
    was_training, found = network.training, []
    network.eval()
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), quiet_transformers():
        torch.manual_seed(derive_seed(seed, "own texts"))
        for _ in range(ROUNDS * -(-count // SAMPLES_AT_ONCE)):
            ids = torch.full((min(SAMPLES_AT_ONCE, count), 1), first, device=device)
            made = network.plain.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                max_new_tokens=tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(made[:, 1:], skip_special_tokens=True)
            found += [text for text in texts if text.strip()]
            if len(found) >= count:
                break
    network.train(was_training)
    return found[:count]


def _first(tokenizer: PreTrainedTokenizerBase) -> int | None:
    begins = tokenizer("a", verbose=False)["input_ids"]
    if begins and begins[0] == tokenizer.bos_token_id and tokenizer.bos_token_id is not None:
        return int(begins[0])
    for name in ("eos_token_id", "bos_token_id"):
        found = getattr(tokenizer, name)
        if found is not None:
            return int(found)
    return None


BATCH = 16


def continued(
    name: str,
    prompts: Sequence[str],
    *,
    seed: int,
    temperature: float = 0.9,
    top_p: float = 0.95,
    new_tokens: int = 60,
) -> list[str]:
    """What the model of this name or folder writes after each of the prompts, at most
    ``new_tokens`` tokens, sampled at ``temperature`` from the likeliest words of share ``top_p``
    (1904.09751).

    Equal seeds, prompts and machines give equal texts. A prompt too long for the model loses its
    beginning. Raises ``ModelError`` where it cannot be loaded.
    """
    loaded = load_causal(name)
    model, tokenizer = loaded.network.plain, loaded.tokenizer
    model.eval()
    tokenizer.padding_side = tokenizer.truncation_side = "left"
    room = max(8, loaded.max_length - new_tokens)
    found: list[str] = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), quiet_transformers():
        torch.manual_seed(derive_seed(seed, "synthesize"))
        for start in range(0, len(prompts), BATCH):
            batch = tokenizer(
                list(prompts[start : start + BATCH]),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=room,
            )
            tokens = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                do_sample=True,
                temperature=temperature,
                top_p=top_p,
                top_k=0,
                max_new_tokens=new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            fresh = tokens[:, batch["input_ids"].shape[1] :]
            found += tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return found
