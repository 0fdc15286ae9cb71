"""The base model of a finished run of a generative task: the network without its adapter, or the
pretrained model, loaded again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from holdfast.core.tasks import ENCODER_DECODER_TASKS
from holdfast.models.adapters.adapter import adapter_off, below_prompt, has_adapter_layers
from holdfast.models.loading.options import LoadOptions
from holdfast.recipe import Recipe
from holdfast.tasks.generation.base import GenerationPredictor

SwitchOff = Callable[[], contextlib.AbstractContextManager[None]]


def base_network(plain: Any, recipe: Recipe) -> tuple[Any, SwitchOff]:
    """The base model as Transformers load it, and the block in which it is one; ``plain`` is the
    run's model. Only a model trained whole is loaded again."""
    if has_adapter_layers(plain):
        return plain, partial(adapter_off, plain)
    if (below := below_prompt(plain)) is not None:
        return below, contextlib.nullcontext
    return load_untuned(recipe).plain, contextlib.nullcontext


def load_untuned(recipe: Recipe) -> Any:
    """The network of the pretrained model that the recipe names.

    Raises ``ModelError`` where it cannot be found or read.
    """
    from holdfast.models.generators.causal import load_causal
    from holdfast.models.generators.seq2seq import load_seq2seq

    model = recipe.model
    load: Any = load_seq2seq if recipe.task in ENCODER_DECODER_TASKS else load_causal
    options = LoadOptions(model.revision, model.trust_remote_code, seed=recipe.seed)
    return load(model.name, options).network


@contextlib.contextmanager
def untuned_predictor(model: GenerationPredictor) -> Iterator[GenerationPredictor]:
    """The predictor of the base model, inside the block."""
    network = model.network
    plain, adapter_switched_off = base_network(network.plain, model.recipe)
    with adapter_switched_off():
        same = plain is network.plain
        yield model if same else replace(model, network=type(network)(plain).eval())
