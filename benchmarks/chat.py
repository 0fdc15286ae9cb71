"""Conversations written beside one another: tokens a second, the wait for the first token, and
whether each is what it is alone.

    python benchmarks/chat.py

Sixteen conversations come at once, each of 8 to 120 tokens, and are answered with 48 tokens. The
models are drawn at random (what they say is noise, what it costs is not). ``generate`` is
Transformers' own loop, one conversation after the other; ``together`` is how many are in the batch.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import Cell, Result, grid, run_cells

CONVERSATIONS, NEW = 16, 48
SIZES = {"8 blocks of 512": (512, 8), "4 blocks of 256": (256, 4)}
CELLS = grid(
    model=SIZES, repeat=[0, 1, 2], system=["generate", "together 1", "together 4", "together 8"]
)


def model_of(name: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    width, blocks = SIZES[name]
    home = Path.home() / ".cache" / "holdfast" / "base_models" / "novels-llama"
    tokenizer = AutoTokenizer.from_pretrained(home)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=8,
        max_position_embeddings=512,
        initializer_range=0.1,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def prompts(tokenizer: Any) -> list[str]:
    # A vocabulary has no order of its own, and comes in another one each time.
    words = sorted(one for one in tokenizer.get_vocab() if one.isascii() and one.isalpha())
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, rng.integers(4, 60))) for _ in range(CONVERSATIONS)]


def alone(plain: Any, tokenizer: Any) -> tuple[list[str], list[float], float]:
    """One after the other; all came at once."""
    from transformers import TextStreamer

    said, waited = [], []
    began = time.perf_counter()

    class First(TextStreamer):
        def put(self, value: Any) -> None:
            if self.next_tokens_are_prompt:
                self.next_tokens_are_prompt = False
            elif len(waited) <= len(said):
                waited.append(time.perf_counter() - began)

        def end(self) -> None:
            pass

    for text in prompts(tokenizer):
        given = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            made = plain.generate(
                input_ids=given["input_ids"],
                attention_mask=given["attention_mask"],
                max_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=None,
                streamer=First(tokenizer, skip_prompt=True),
            )
        written = made[0, given["input_ids"].shape[1] :]
        text = tokenizer.decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        said.append(text.strip())
    return said, waited, time.perf_counter() - began


def beside(plain: Any, tokenizer: Any, together: int) -> tuple[list[str], list[float], float]:
    from holdfast.plugins.service.chat.conversations import ChatLimits, ChatModel, ChatResult, Chats
    from holdfast.plugins.service.chat.request import ChatRequest

    model = ChatModel(plain, tokenizer, trained_on_text=False, new_tokens=NEW)
    chats = Chats(model, "m", limits=ChatLimits(max_running=together))
    chats._stops = []
    chats.warm()
    assert chats.decisions[0].chosen == "in one batch"
    began = 0.0

    async def one(text: str) -> tuple[str, float]:
        conversation = await chats.start(ChatRequest("text", text=text, tokens=NEW))
        first = 0.0
        while True:
            what = await conversation.updates.get()
            # The first piece of text may come a token or two after the first token.
            first = first or time.perf_counter() - began
            if isinstance(what, ChatResult):
                return what.text, first

    async def everybody() -> list[tuple[str, float]]:
        nonlocal began
        began = time.perf_counter()
        return await asyncio.gather(*(one(text) for text in prompts(tokenizer)))

    found = asyncio.run(everybody())
    seconds = time.perf_counter() - began
    chats.drain()
    return [text for text, _ in found], [first for _, first in found], seconds


def run_one(cell: Cell) -> Result:
    torch.set_num_threads(1)
    plain, tokenizer = model_of(str(cell["model"]))
    name = str(cell["system"])
    if name == "generate":
        said, waited, seconds = alone(plain, tokenizer)
        same = len(said)
    else:
        said, waited, seconds = beside(plain, tokenizer, int(name.split()[1]))
        same = sum(a == b for a, b in zip(said, alone(plain, tokenizer)[0], strict=True))
    return {
        "tokens_a_second": CONVERSATIONS * NEW / seconds,
        "first_token_s": statistics.median(waited),
        "seconds": seconds,
        "as_alone": f"{same} of {CONVERSATIONS}",
    }


if __name__ == "__main__":
    run_cells("chat", CELLS, run_one)
