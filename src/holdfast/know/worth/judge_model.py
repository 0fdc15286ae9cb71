"""A language model as a judge, loaded from its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.know.worth.judge import ModelJudge
from holdfast.models.causal import CausalNetwork, load_causal
from holdfast.models.limits import position_limit
from holdfast.models.quiet import quiet_transformers
from holdfast.tasks.chat_tokens import prompt_tokens


def load_judge(name: str, device: Any = "cpu") -> ModelJudge:
    """Raises ``ModelError`` where ``name`` is no causal language model."""
    loaded = load_causal(name)
    network, tokenizer = loaded.network.to(device).eval(), loaded.tokenizer

    def scores(prompts: Sequence[str]) -> Floats:
        return prefers_a(network, tokenizer, prompts)

    return ModelJudge(name, scores)


def prefers_a(network: CausalNetwork, tokenizer: Any, prompts: Sequence[str]) -> Floats:
    """log P(A) − log P(B) as the next word after each prompt, [n], read at the first token in
    which the two differ."""
    import torch

    device: Any = network.word_embeddings.weight.device
    room, made = position_limit(network.config), np.zeros(len(prompts))
    with torch.inference_mode(), quiet_transformers():
        for at, prompt in enumerate(prompts):
            shared, a, b = _parting(*(_ids(tokenizer, prompt, letter) for letter in "AB"))
            # The end of what is asked is kept: there the answers stand.
            ids = torch.tensor([shared[-room:]], device=device)
            logits = network(input_ids=ids)[0, -1].float()
            made[at] = float(logits[a] - logits[b])
    return made


def _ids(tokenizer: Any, prompt: str, letter: str) -> list[int]:
    """Ids of the prompt with an answer's letter after it, as a chat where there is a template."""
    if tokenizer.chat_template:
        asked = prompt_tokens(tokenizer, [{"role": "user", "content": prompt + ": A or B?"}])
        ids: list[int] = tokenizer(letter, add_special_tokens=False)["input_ids"]
        return [*asked, *ids]
    whole: list[int] = tokenizer(f"{prompt} {letter}")["input_ids"]
    return whole


def _parting(first: list[int], second: list[int]) -> tuple[list[int], int, int]:
    """What two lists begin with alike, and the first items in which they differ."""
    at = next(n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    return first[:at], first[at], second[at]
