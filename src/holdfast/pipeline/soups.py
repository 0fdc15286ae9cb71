"""Soups of saved models, as the tasks' ways of answering ask for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from holdfast.core.errors import RecipeError
from holdfast.core.records import Floats
from holdfast.models.soup import distance, mean_state, other_shape

T = TypeVar("T")
AVERAGE = "Take predict.ensemble=stack or average, which need no common weights."


def souped_model(models: Sequence[T], places: Sequence[int], plain_of: Callable[[T], Any]) -> T:
    """A copy of the first chosen model with the mean of the weights of those at ``places``;
    ``plain_of`` is a model's module. Raises ``RecipeError`` for models of other shapes, and for
    adapters: the mean of two factors is not the mean of what they make together."""
    _refuse_unlike(models, plain_of)
    made = copy.deepcopy(models[places[0]])
    state = mean_state(plain_of(models[place]).state_dict() for place in places)
    plain_of(made).load_state_dict(state)
    return made


def lie_apart(models: Sequence[T], plain_of: Callable[[T], Any]) -> Floats:
    """How far each model's weights lie from the first's [models]."""
    _refuse_unlike(models, plain_of)
    first = copy.deepcopy(plain_of(models[0]).state_dict())
    return np.array([distance(first, plain_of(one).state_dict()) for one in models])


def _refuse_unlike(models: Sequence[T], plain_of: Callable[[T], Any]) -> None:
    first: dict[str, Any] = {}
    for one in models:
        plain = plain_of(one)
        state = plain.state_dict()
        if any("lora_" in name or "ia3_" in name or "prompt_encoder" in name for name in state):
            raise RecipeError(
                "predict.ensemble=soup",
                "has no mean of adapters: that of their factors is not that of their updates",
                None,
                f"Train with --set model.adapter.merge=true, or: {AVERAGE}",
            )
        first = first or {name: tensor.detach().clone() for name, tensor in state.items()}
        if (name := other_shape(first, state)) is not None:
            raise RecipeError(
                "predict.ensemble=soup",
                "needs models of one architecture, and these differ in a weight's name or size",
                name,
                AVERAGE,
            )
