"""A causal language model that continues prompts: sampled, by a seed, in one go."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from holdfast.core.seeds import derive_seed
from holdfast.models.causal import load_causal
from holdfast.models.quiet import quiet_transformers

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
