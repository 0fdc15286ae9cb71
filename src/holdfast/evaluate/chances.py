"""What several models that write give to each token that they should have written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.tasks.batching import by_length
from holdfast.tasks.seq2seq import wanted_of
from holdfast.tasks.token_losses import token_losses

TOKENS = 4096


def token_chances(
    networks: Sequence[Any], task: Any, examples: Any, device: Any
) -> tuple[Floats, Ints]:
    """The probability that each of ``networks`` gives to every target token [tokens, networks], and
    the example [tokens] that it is of; one network after the other."""
    import torch

    order = list(by_length(examples.lengths, np.arange(len(examples)), TOKENS))
    columns: list[Floats] = []
    owner: list[Ints] = []
    for network in networks:
        network.to(device).eval()
        parts = []
        owner = []
        with torch.inference_mode():
            for chosen in order:
                batch = {k: v.to(device) for k, v in task.collate(examples, chosen).items()}
                output = task.forward(network, batch)
                expected = batch["expected"] if "expected" in batch else wanted_of(batch)
                losses = token_losses(getattr(output, "logits", output), expected)
                parts.append(torch.exp(-losses).double().cpu().numpy())
                owner.append(np.repeat(np.asarray(chosen), batch["counts"].cpu().numpy()))
        columns.append(np.concatenate(parts) if parts else np.zeros(0))
    return np.column_stack(columns), np.concatenate(owner) if owner else np.zeros(0, np.int64)
