"""Target losses of an encoder-decoder, and the texts that it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.predictions import groups_of
from holdfast.core.decisions import tick
from holdfast.core.records import Floats, Ints
from holdfast.models.generators.average import processors_of
from holdfast.models.generators.seq2seq_network import PLAIN_INPUTS
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.tasks.generation.losses import IGNORED
from holdfast.tasks.generation.token_scores import (
    GeneratedTexts,
    TokenOutputs,
    drawing,
    measure_saved,
)
from holdfast.tasks.seq2seq.losses import EncodedPairs, SequenceToSequence
from holdfast.training.plan import batches_by_length

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from holdfast.data.table import Table
    from holdfast.models.generators.average import AveragedNetwork
    from holdfast.models.generators.seq2seq_network import Seq2SeqNetwork


TOKENS = 4096


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Generation settings: ``beams`` (1 is greedy), at most ``max_new_tokens`` a text; above
    ``temperature`` 0 tokens are sampled with PyTorch's generators in their current state.
    """

    beams: int
    max_new_tokens: int
    temperature: float = 0.0


def read_pairs(
    network: Any, pad_id: int, examples: EncodedPairs, table: Table, device: torch.device
) -> TokenOutputs:
    """The losses of every row's target, in the precision of the weights, in order."""
    losses, outputs = measure_saved(network, SequenceToSequence(pad_id), examples, device)
    groups = groups_of(table)
    return TokenOutputs(
        examples.rows,
        losses,
        outputs[:, 0].astype(np.int64),
        outputs[:, 1],
        None if groups is None else groups[examples.kept],
    )


def write_texts(
    network: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: EncodedPairs,
    positions: Ints,
    writing: GenerationOptions,
    device: torch.device,
) -> GeneratedTexts:
    """The texts that the model generates for the sources at ``positions``, in that order."""
    import torch

    task = SequenceToSequence(int(tokenizer.pad_token_id))
    texts = [""] * len(positions)
    confidence = np.zeros(len(positions))
    ended, written = np.zeros(len(positions), dtype=bool), 0
    lengths = np.diff(examples.source_offsets)[positions] + writing.max_new_tokens
    network = network.to(device).eval()
    with torch.inference_mode(), quiet_transformers():
        every = np.arange(len(positions))
        # Each beam holds a copy of the row.
        for batch_rows in batches_by_length(lengths, every, max(1, TOKENS // writing.beams)):
            batch = task.collate(examples, positions[batch_rows])
            inputs = {name: batch[name].to(device) for name in PLAIN_INPUTS}
            ids = _generate(network, inputs, writing)
            batch_texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            for place, text in zip(batch_rows, batch_texts, strict=True):
                texts[place] = text.strip()
            confidence[batch_rows] = _certainty(network, task, inputs, ids)
            ended[batch_rows] = _ends(network, ids).any(dim=1).cpu().numpy()
            written += len(batch_rows)
            tick(written, len(positions))
    return GeneratedTexts(texts, confidence, ended)


def _generate(
    network: Seq2SeqNetwork | AveragedNetwork,
    inputs: dict[str, torch.Tensor],
    writing: GenerationOptions,
) -> torch.Tensor:
    """Token ids [batch, T] without the token that starts the decoder."""
    accepted_inputs = {name: value for name, value in inputs.items() if name in network.accepts}
    draws = drawing(writing.temperature)
    ids: torch.Tensor = network.plain.generate(
        **accepted_inputs,
        **processors_of(network, **inputs),
        num_beams=1 if draws["do_sample"] else writing.beams,
        **draws,
        max_new_tokens=writing.max_new_tokens,
        # A summariser's saved settings often hold the lengths of its training task, which would
        # stretch or cut these texts.
        min_new_tokens=None,
        max_length=None,
        min_length=0,
    )
    # The first token starts every text: the model does not choose it.
    return ids[:, 1:]


def _certainty(
    network: Seq2SeqNetwork | AveragedNetwork,
    task: SequenceToSequence,
    inputs: dict[str, torch.Tensor],
    ids: torch.Tensor,
) -> Floats:
    """The geometric mean probability of a text's own tokens, up to the one that ends it."""
    import torch

    ended = _ends(network, ids)
    # The first end token counts, since the model chose it; the padding after it does not.
    after = ended.cumsum(dim=1) - ended.long()
    labels = torch.where(after > 0, IGNORED, ids)
    given = labels != IGNORED
    batch = {
        **inputs,
        "labels": labels,
        "where": given.flatten().nonzero()[:, 0],
        "counts": given.sum(dim=1),
    }
    losses = task.losses(task.forward(network, batch), batch)
    return np.asarray(torch.exp(-losses).double().cpu().numpy())


def _ends(network: Seq2SeqNetwork | AveragedNetwork, ids: torch.Tensor) -> torch.Tensor:
    """Which tokens [batch, T] end a text."""
    import torch

    ends = network.plain.generation_config.eos_token_id
    return torch.isin(ids, torch.as_tensor(ends, device=ids.device).flatten())


def texts_at(table: Table, positions: Ints | Sequence[int], name: str) -> list[str]:
    """The texts of a column at these positions of the table."""
    texts: list[str] = table.take(np.asarray(positions, dtype=np.int64)).column(name)
    return texts
