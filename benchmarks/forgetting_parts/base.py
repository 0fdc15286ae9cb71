"""A small Llama that knows English novels: what it may forget when it is tuned.

1.2 million parameters, trained from ``corpus/novels_train.txt.gz`` on next tokens; no author of
``novels_val.txt.gz`` is among them. Seeded, and the number of steps is fixed. A killed training
goes on where its last state was written. Kept in ``HOLDFAST_CACHE``, never in the repository.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_base_models import cache_folder, make_tokenizer, paragraphs, tokens

NAME = "novels-llama"
STEPS, BATCH, LENGTH, RATE = 850, 32, 128, 3e-3
# Down to a quarter of the rate in this many steps, then quickly to nothing.
TURN = 773
# Two of three paragraphs are learned from; the third are general rows that were never seen.
KEPT = 3
SAVE_EVERY = 50


def seen_paragraphs() -> list[str]:
    """What the base was trained on."""
    every = paragraphs("novels_train.txt.gz")
    return [text for place, text in enumerate(every) if place % KEPT]


def unseen_paragraphs() -> list[str]:
    """Of the same novels, what it never saw."""
    return paragraphs("novels_train.txt.gz")[::KEPT]


def base(minutes: float = 1e9) -> Path:
    """The folder of the model, made where it is not there yet. Raises ``TimeoutError`` where it
    is not done within ``minutes``: call again, and it goes on."""
    folder = cache_folder() / NAME
    if (folder / "model.safetensors").is_file():
        return folder
    deadline = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, stream = _tokenized(folder)
    torch.manual_seed(0)
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    state, done = folder / "state.pt", 0
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        done = kept["done"]
    model.train()
    for step in range(done, STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * _scale(step)
        starts = np.random.default_rng((0, step)).integers(0, len(stream) - LENGTH, BATCH)
        ids = torch.from_numpy(np.stack([stream[s : s + LENGTH] for s in starts]).astype(np.int64))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        late = time.monotonic() > deadline
        if (step + 1) % SAVE_EVERY == 0 or late:
            print(f"base step {step + 1}/{STEPS}: loss {loss.item():.3f}", flush=True)
            beside = state.with_suffix(".new")
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**kept, "done": step + 1}, beside)
            beside.replace(state)
        if late:
            raise TimeoutError(f"the base is at step {step + 1} of {STEPS}")
    tokenizer.save_pretrained(folder)
    model.eval().save_pretrained(folder)
    state.unlink(missing_ok=True)
    (folder / "stream.npy").unlink(missing_ok=True)
    return folder


def _scale(step: int) -> float:
    if step < TURN:
        return min((step + 1) / 50, 1 - 0.95 * step / 1000)
    return 0.26 * (STEPS - step) / (STEPS - TURN)


def _tokenized(folder: Path) -> tuple[Any, np.ndarray]:
    from transformers import AutoTokenizer

    kept = folder / "stream.npy"
    if kept.is_file():
        return AutoTokenizer.from_pretrained(folder), np.load(kept)
    texts = seen_paragraphs()
    tokenizer = make_tokenizer(texts[::20])
    stream = tokens(texts, tokenizer).astype(np.int32)
    tokenizer.save_pretrained(folder)
    np.save(kept, stream)
    return tokenizer, stream


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4096,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=2,
        )
    )
