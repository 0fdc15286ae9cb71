"""Answers to rows, and with each the vector that the model's last layer read of it, in the same
pass: what drift is seen by, and rows to be labelled are told apart by.

Differs from ``prepare/embedding.py``, which asks an untouched model before any fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.contract.inference import Answering, Answers
from holdfast.core.records import Floats, Ints
from holdfast.data.chats.chat import form_of
from holdfast.data.table import Table
from holdfast.models.encoders.checkpoint import hearing
from holdfast.models.encoders.network import masked_mean
from holdfast.models.loading.tokenizer import position_limit
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes import encoding
from holdfast.tasks.classes.answers import TextUse
from holdfast.tasks.classes.encoding import encode
from holdfast.tasks.images import losses as images
from holdfast.tasks.images.task import ImageUse
from holdfast.tasks.lm.answers import TokenUse
from holdfast.tasks.lm.generation import prompts_of, whole_prompts
from holdfast.tasks.seq2seq.task import PairUse
from holdfast.tasks.tags import scores as tagged
from holdfast.tasks.tags.answers import TagUse
from holdfast.tasks.tags.losses import encode_words
from holdfast.training.plan import by_length


def answer_with_vectors(predictor: Predictor, table: Table) -> tuple[Answers, Floats | None]:
    """What ``predictor.answer(table)`` gives, and the vectors [n, d] float32 in the table's order;
    ``None`` where several models answer together, or the last layer is not to be found."""
    with predictor.alone():
        return use_with_vectors(predictor.model, table)


def use_with_vectors(use: Answering, table: Table) -> tuple[Answers, Floats | None]:
    """The same of what answers, by the one thread that asks it."""
    if isinstance(use, PairUse | TokenUse):
        return use.answer(table), written_vectors(use, table)
    network = _network(use)
    if network is None or not len(table):
        return use.answer(table), None
    with network.capturing_features() if hasattr(network, "capturing_features") else hearing(network.model) as heard:
        answers = use.answer(table)
    if not heard:
        return answers, None
    rows = np.concatenate([one.cpu().numpy() for one in heard])
    vectors = np.empty_like(rows)
    vectors[passed(use, table)] = rows
    return answers, vectors


def _network(use: Answering) -> Any:
    """The one network that answers, where it lets itself be heard: a plain model, or one in other
    clothes with a ``hearing`` of its own."""
    models: Sequence[Any] = getattr(use, "models", ())
    network = getattr(models[0], "network", None) if len(models) == 1 else None
    return network if hasattr(network, "capturing_features") or hasattr(network, "model") else None


def passed(use: Answering, table: Table) -> Ints:
    """The order [n] in which a classifier or tagger passes the rows of a table on to its model."""
    lengths: Ints
    if isinstance(use, ImageUse):
        # Pictures are all as long, and such rows keep their order.
        lengths, tokens = np.ones(len(table), dtype=int), images.TOKENS
    elif isinstance(use, TagUse):
        model: Any = use.models[0]
        words = encode_words(table, model.tokenizer, model.max_length, need_words=False)
        lengths, tokens = words.lengths, tagged.TOKENS
    else:
        assert isinstance(use, TextUse)
        one: Any = use.models[0]
        lengths, tokens = encode(table, one.tokenizer, one.max_length).lengths, encoding.TOKENS
    most = max(tokens, int(lengths.max()))
    return np.concatenate(list(by_length(lengths, np.arange(len(table)), most)))


def written_vectors(use: PairUse | TokenUse, table: Table) -> Floats | None:
    """Of a model that writes: the mean of its last states over what it was asked [n, d] (of an
    encoder-decoder the encoder's); a pass of its own, far shorter than the writing."""
    import torch

    plain: Any = getattr(use.network, "plain", None)
    if plain is None:
        return None
    found = []
    for one in _asked(use, table):
        device = next(plain.parameters()).device
        given = {
            "input_ids": torch.tensor([one], device=device),
            "attention_mask": torch.ones(1, len(one), dtype=torch.int64, device=device),
        }
        with torch.inference_mode():
            if isinstance(use, PairUse):
                states = plain.get_encoder()(**given).last_hidden_state
            else:
                read = plain(**given, output_hidden_states=True, use_cache=False)
                states = read.hidden_states[-1]
            found.append(masked_mean(states, None)[0].float().cpu().numpy())
    return np.stack(found) if found else None


def _asked(use: PairUse | TokenUse, table: Table) -> list[list[int]]:
    """The tokens of what each row asks."""
    if isinstance(use, PairUse):
        examples = use.sources(table)
        ends = itertools.pairwise(examples.source_offsets.tolist())
        return [examples.source_ids[start:end].tolist() for start, end in ends]
    plain_text = form_of(table) == "text"
    ids: Any = (
        whole_prompts(table.column("text"), use.tokenizer)
        if plain_text
        else prompts_of(table, use.tokenizer).ids
    )
    # As for writing, the end of a long prompt is kept.
    room = position_limit(use.network.config)
    return [list(one)[-room:] for one in ids]
