"""What a finished run's model makes of rows [rows, width]: the vectors in which drift is sought.

Of a classifier what its last layer reads, of a tagger the mean over the words, of a model that
writes the mean of the last states of what it reads; each of length 1. The same rows by the same
model are always the same vectors, whatever else is asked with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.evaluate.causal import prompts_of, whole_prompts
from holdfast.evaluate.forward import run_texts
from holdfast.evaluate.images import forward_images
from holdfast.evaluate.tagged import word_outputs
from holdfast.know.drift.held import unit
from holdfast.models.averaged import Averaged
from holdfast.pipeline.kinds.causal_use import TokenUse
from holdfast.pipeline.kinds.image_classification import ImageUse
from holdfast.pipeline.kinds.seq2seq import PairUse
from holdfast.pipeline.kinds.text_use import TextUse
from holdfast.pipeline.kinds.token_use import TagUse
from holdfast.tasks.token_classification import TokenClassification, encode_words

if TYPE_CHECKING:
    from holdfast.data.table import Table
    from holdfast.pipeline.predictor import Predictor

# Pieces of a text that are read, and texts that are read at once, where a model writes.
MOST_PIECES, TOGETHER = 512, 16


def row_vectors(predictor: Predictor, table: Table) -> Floats | None:
    """The vectors [n, width] of the rows of a table that the predictor asked for; ``None`` where it
    is of several models, of which none is the one."""
    with predictor.alone():
        model = predictor.model
        if isinstance(model, TextUse):
            made = _of_texts(model, table)
        elif isinstance(model, ImageUse):
            made = _of_pictures(model, table)
        elif isinstance(model, TagUse):
            made = _of_tags(model, table)
        elif isinstance(model, TokenUse | PairUse):
            made = _of_writer(model, table)
        else:
            made = None
    return None if made is None else unit(made)


class LastInput:
    """A network in whose place stands what its last layer reads: ``width`` numbers a row, or a
    place. The last layer is the linear one to ``outputs`` that is called last."""

    def __init__(self, network: Any, outputs: int) -> None:
        import torch

        linear = [
            one
            for one in network.modules()
            if isinstance(one, torch.nn.Linear) and one.out_features == outputs
        ]
        self.width = int(linear[-1].in_features) if linear else 0
        self._network, self._linear = network, linear

    def __call__(self, **batch: Any) -> Any:
        seen: list[Any] = []
        hooks = [
            one.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
            for one in self._linear
        ]
        try:
            self._network(**batch)
        finally:
            for hook in hooks:
                hook.remove()
        return seen[-1]


def _of_texts(model: TextUse, table: Table) -> Floats | None:
    if len(model.models) > 1:
        return None
    one = model.models[0]
    network = LastInput(one.network, max(1, len(one.classes)))
    if not network.width:
        return None
    return run_texts(network, one.tokenizer, one.max_length, network.width, table)[1]


def _of_pictures(model: ImageUse, table: Table) -> Floats | None:
    if len(model.models) > 1:
        return None
    one = model.models[0]
    network = LastInput(one.network, len(one.classes))
    if not network.width:
        return None
    places = tuple(map(str, range(network.width)))
    # No label is read: of a vector there is no loss.
    bare = table.with_column("label", [-1] * len(table))
    return forward_images(network, one.processor, one.channels, places, bare).logits


def _of_tags(model: TagUse, table: Table) -> Floats | None:
    if len(model.models) > 1:
        return None
    one = model.models[0]
    network = LastInput(one.network, len(one.classes))
    if not network.width:
        return None
    task = TokenClassification(int(one.tokenizer.pad_token_id), one.classes)
    examples = encode_words(table, one.tokenizer, one.max_length, need_words=False)
    words = word_outputs(network, examples, task)
    found, at = np.zeros((len(table), network.width)), 0
    for place, count in zip(examples.kept, examples.read, strict=True):
        if count:
            found[place] = words[at : at + count].mean(axis=0)
        at += int(count)
    return found


def _of_writer(model: TokenUse | PairUse, table: Table) -> Floats | None:
    if isinstance(model.network, Averaged):
        return None
    tokenizer = model.tokenizer
    if isinstance(model, TokenUse):
        plain = model.of_text
        ids = whole_prompts(table.column("text"), tokenizer) if plain else None
        ids = prompts_of(table, tokenizer).ids if ids is None else ids
        # What is asked stands at the end.
        return _mean_states(
            model.network.plain.base_model, [list(one)[-MOST_PIECES:] for one in ids]
        )
    most = min(MOST_PIECES, model.recipe.model.max_length or MOST_PIECES)
    ids = tokenizer(table.column("text"), truncation=True, max_length=most)["input_ids"]
    return _mean_states(model.network.plain.get_encoder(), ids)


def _mean_states(body: Any, ids: Sequence[Sequence[int]]) -> Floats:
    """The mean [n, width] of the last states over each row's tokens."""
    import torch

    order = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
    device = next(body.parameters()).device
    found: dict[int, Any] = {}
    with torch.inference_mode():
        for start in range(0, len(order), TOGETHER):
            chosen = order[start : start + TOGETHER]
            longest = max(1, *(len(ids[n]) for n in chosen))
            rows = [list(ids[n]) + [0] * (longest - len(ids[n])) for n in chosen]
            marks = [[1] * len(ids[n]) + [0] * (longest - len(ids[n])) for n in chosen]
            mask = torch.tensor(marks, device=device)
            given = {"input_ids": torch.tensor(rows, device=device), "attention_mask": mask}
            states = body(**given).last_hidden_state.float()
            weights = mask[..., None].float()
            means = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
            found.update(zip(chosen, means.cpu().numpy(), strict=True))
    return np.stack([found[n] for n in range(len(ids))]) if found else np.zeros((0, 1))
