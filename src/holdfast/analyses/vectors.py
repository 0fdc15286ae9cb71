"""Predictions and, from the same pass, the vector of each row that the model's last layer reads.
Drift detection and the choice of rows to label use these vectors.

Differs from ``prepare/embedding.py``, which uses an untrained model before any fit.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from holdfast.contract.inference import TaskPredictions, TaskPredictor
from holdfast.core.records import Floats, Ints
from holdfast.data.chats.chat import form_of
from holdfast.data.table import Table
from holdfast.models.encoders.checkpoint import recording_features
from holdfast.models.encoders.network import masked_mean
from holdfast.models.loading.tokenizer import position_limit
from holdfast.runs.predictor import Predictor
from holdfast.tasks.classes import encoding
from holdfast.tasks.classes.answers import TextPredictor
from holdfast.tasks.classes.encoding import encode
from holdfast.tasks.images import losses as images
from holdfast.tasks.images.task import ImagePredictor
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.lm.generation import prompts_of, whole_prompts
from holdfast.tasks.seq2seq.task import Seq2SeqPredictor
from holdfast.tasks.tags import scores as tagged
from holdfast.tasks.tags.answers import TagPredictor
from holdfast.tasks.tags.losses import encode_words
from holdfast.training.plan import batches_by_length


def predict_with_vectors(
    predictor: Predictor, table: Table
) -> tuple[TaskPredictions, Floats | None]:
    """The predictions of ``predictor`` for ``table``, and the vectors [n, d] float32 in the
    table's order; ``None`` if several models predict together, or the last layer is not found."""
    with predictor.alone():
        return model_with_vectors(predictor.model, table)


def model_with_vectors(model: TaskPredictor, table: Table) -> tuple[TaskPredictions, Floats | None]:
    """The same for a model; only one thread may use the model meanwhile."""
    if isinstance(model, Seq2SeqPredictor | CausalLMPredictor):
        return model.predict(table), generator_vectors(model, table)
    network = _network(model)
    if network is None or not len(table):
        return model.predict(table), None
    with (
        network.capturing_features()
        if hasattr(network, "capturing_features")
        else recording_features(network.model) as captured
    ):
        answers = model.predict(table)
    if not captured:
        return answers, None
    rows = np.concatenate([one.cpu().numpy() for one in captured])
    vectors = np.empty_like(rows)
    vectors[forward_order(model, table)] = rows
    return answers, vectors


def _network(model: TaskPredictor) -> Any:
    """The one network that predicts, if its features can be recorded: a plain model, or one that
    records them itself."""
    models: Sequence[Any] = getattr(model, "models", ())
    network = getattr(models[0], "network", None) if len(models) == 1 else None
    return network if hasattr(network, "capturing_features") or hasattr(network, "model") else None


def forward_order(use: TaskPredictor, table: Table) -> Ints:
    """The order [n] in which a classifier or tagger passes the rows of a table to its model."""
    lengths: Ints
    if isinstance(use, ImagePredictor):
        # Images have the same length, so the rows keep their order.
        lengths, tokens = np.ones(len(table), dtype=int), images.TOKENS
    elif isinstance(use, TagPredictor):
        model: Any = use.models[0]
        words = encode_words(table, model.tokenizer, model.max_length, need_words=False)
        lengths, tokens = words.lengths, tagged.TOKENS
    else:
        assert isinstance(use, TextPredictor)
        one: Any = use.models[0]
        lengths, tokens = encode(table, one.tokenizer, one.max_length).lengths, encoding.TOKENS
    most = max(tokens, int(lengths.max()))
    return np.concatenate(list(batches_by_length(lengths, np.arange(len(table)), most)))


def generator_vectors(model: Seq2SeqPredictor | CausalLMPredictor, table: Table) -> Floats | None:
    """For a generative model: the mean of its last hidden states over the prompt [n, d] (for an
    encoder-decoder model, of the encoder). This is a separate pass, far shorter than generation."""
    import torch

    plain: Any = getattr(model.network, "plain", None)
    if plain is None:
        return None
    vectors = []
    for tokens in _prompt_tokens(model, table):
        device = next(plain.parameters()).device
        inputs = {
            "input_ids": torch.tensor([tokens], device=device),
            "attention_mask": torch.ones(1, len(tokens), dtype=torch.int64, device=device),
        }
        with torch.inference_mode():
            if isinstance(model, Seq2SeqPredictor):
                states = plain.get_encoder()(**inputs).last_hidden_state
            else:
                output = plain(**inputs, output_hidden_states=True, use_cache=False)
                states = output.hidden_states[-1]
            vectors.append(masked_mean(states, None)[0].float().cpu().numpy())
    return np.stack(vectors) if vectors else None


def _prompt_tokens(model: Seq2SeqPredictor | CausalLMPredictor, table: Table) -> list[list[int]]:
    """The prompt tokens of each row."""
    if isinstance(model, Seq2SeqPredictor):
        examples = model.sources(table)
        ends = itertools.pairwise(examples.source_offsets.tolist())
        return [examples.source_ids[start:end].tolist() for start, end in ends]
    plain_text = form_of(table) == "text"
    ids: Any = (
        whole_prompts(table.column("text"), model.tokenizer)
        if plain_text
        else prompts_of(table, model.tokenizer).ids
    )
    # As for generation, the end of a long prompt is kept.
    max_length = position_limit(model.network.config)
    return [list(one)[-max_length:] for one in ids]
