"""Whether a GGUF file, read back by plain Transformers, writes what the model writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plugins.export.quiet import hushed

# Tokens that are written after each text.
WRITTEN = 20
# Of any script and with what tokenizers trip over, so that a cut that differs is seen.
TEXTS = (
    "The quick brown fox can't jump over 12345 lazy dogs.",
    "Ça déjà vu — 東京 и Москва, 😀!",
    "  two  spaces,\n\na line\tand a tab ",
    'def f(x):\n    return {"a": x ** 2}',
)


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What was compared: ``texts`` cut into the same tokens, ``tokens`` written alike, and the
    largest difference of a logit, as a share of the largest where that exceeds 1."""

    texts: int
    tokens: int
    gap: float


def read_back(model: Any, tokenizer: Any, path: Path, texts: Sequence[str] = ()) -> ReadBack:
    """Load the file through ``AutoModelForCausalLM`` and ``AutoTokenizer`` and compare, token for
    token, on ``texts`` and some made ones. Raises ``ModelError`` at the first difference."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with hushed(), quiet_transformers(), door(str(path.name), ModelError, "cannot be read back"):
        again: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
        again.eval()
        cutter = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokens, gap, count = 0, 0.0, 0
    for text in (*TEXTS, *texts):
        wanted, found = tokenizer(text)["input_ids"], cutter(text)["input_ids"]
        if wanted != found:
            raise ModelError(
                str(path.name),
                f"cuts a text otherwise than the model's tokenizer does: {found[:12]}",
                wanted[:12],
                "This tokenizer has no true GGUF form here.",
            )
        count += 1
        if not wanted:
            continue
        ids = torch.tensor([wanted[: max(1, int(model.config.max_position_embeddings) - WRITTEN)]])
        first, logits = _written(model, ids)
        second, others = _written(again, ids)
        if first != second:
            raise ModelError(
                str(path.name), f"writes other tokens than the model: {second[:12]}", first[:12]
            )
        tokens += len(first)
        apart = float((logits - others).abs().max()) / max(1.0, float(logits.abs().max()))
        gap = max(gap, apart)
    return ReadBack(count, tokens, gap)


def _written(model: Any, ids: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """The likeliest tokens after ``ids`` [1, T], and the logits [V] of each [WRITTEN, V]."""
    said, logits = [], []
    with torch.inference_mode():
        for _ in range(WRITTEN):
            found = model(input_ids=ids, use_cache=False).logits[0, -1].float()
            said.append(int(found.argmax()))
            logits.append(found)
            ids = torch.cat([ids, torch.tensor([[said[-1]]])], dim=1)
    return said, torch.stack(logits)
