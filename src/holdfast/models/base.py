"""The interface of a model for other packages: the network, and the result of its loader.

No network inherits from another, and each architecture has its own file. The kits in
``tests/contracts/test_networks.py`` and ``test_loaded.py`` find the implementations and test them
against this contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from holdfast.core.records import Decision

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Layer:
    """One step of the computation: a name, and the modules whose weights belong to it."""

    name: str
    modules: tuple[nn.Module, ...]

    def parameters(self) -> Iterator[nn.Parameter]:
        for module in self.modules:
            yield from module.parameters()


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """The requested adapter; Holdfast chooses values that are ``None``. ``rank`` is the number of
    vectors for ``prompt``; ``rate_ratio`` is LoRA+'s; with ``merge`` the saved model is a plain
    one."""

    kind: str
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    targets: tuple[str, ...] | None = None
    merge: bool = False
    rate_ratio: float | None = None


@dataclass(frozen=True)
class Adapter:
    """An adapter in a network. ``home`` is the Transformers model that carries it; ``config`` is
    PEFT's, ``spec`` has no open value left; ``frozen_ids`` are the pretrained weights' ids,
    ``fast_ids`` those of LoRA+'s second matrices. ``base`` is what the pretrained model is called,
    ``commit`` the hub's."""

    spec: AdapterSpec
    home: Any
    config: PeftConfig
    frozen_ids: frozenset[int]
    fast_ids: frozenset[int]
    base: str
    commit: str | None


class Weights(Protocol):
    """The part of ``torch.nn.Module`` that concerns its weights; every module satisfies it.

    A protocol cannot require a class, so the attributes of ``nn.Module`` that are used are listed
    here.
    """

    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> object: ...

    def train(self, mode: bool = True) -> Self: ...

    def eval(self) -> Self: ...

    def cpu(self) -> Self: ...

    def to(self, device: torch.device | str, /) -> Self: ...


class Preprocessor(Protocol):
    """What turns rows into inputs and is saved with the weights: a tokenizer, or an image
    processor."""

    def save_pretrained(self, save_directory: Path, /) -> object: ...


class ModelFactory(Protocol):
    """One of Transformers' ``AutoModelFor…`` classes."""

    def from_config(
        self, config: PretrainedConfig, /, *, trust_remote_code: bool
    ) -> PreTrainedModel: ...

    def from_pretrained(self, pretrained_model_name_or_path: str | Path, **settings: object) -> Any:
        """The model; with ``output_loading_info`` the model and what was found of its weights."""


class Network(Weights, Protocol):
    """A model that can be trained: a backbone and a head, in layers.

    ``adapter`` is set by ``attach``; ``fixed`` are the ids of parameters that are computed and
    never trained; ``new_head`` says that the head was newly initialised, so it must not be frozen.
    """

    adapter: Adapter | None

    @property
    def fixed(self) -> frozenset[int]: ...

    @property
    def new_head(self) -> bool: ...

    @property
    def config(self) -> Any:
        """Transformers' configuration of the backbone."""

    @property
    def backbone(self) -> nn.Module:
        """The pretrained part. If the head is pretrained too, it may be the complete model."""

    @property
    def head(self) -> nn.Module:
        """The last layer: features to outputs."""

    @property
    def word_embeddings(self) -> nn.Module:
        """The table of word embeddings, with ``weight`` [vocabulary, E]. Raises ``RecipeError`` if
        the inputs are not words."""

    def __call__(self, **inputs: Tensor) -> Tensor:
        """A batch of the tokenizer's (or processor's) outputs → the head's outputs."""

    def layers(self) -> list[Layer]:
        """The layers in the order of the computation, ``embeddings`` first and ``head`` last;
        every weight is in exactly one."""

    def save(self, folder: Path, tokenizer: Preprocessor) -> None:
        """Write a folder that plain libraries load and that gives these outputs."""


@dataclass(frozen=True)
class LoadedModel:
    """The result of a loader: a network in float32 and evaluation mode, and how it was loaded.

    ``tokenizer`` turns rows into the network's inputs (for images it is the image processor);
    ``max_length`` is the number of tokens that a row is cut to, ``None`` if rows have no length;
    ``decisions`` are the automatic choices, with reasons; ``facts`` name the model (at least
    ``name``, ``architecture``, ``parameters``, ``trainable``, ``weights``, ``commit``,
    ``sha256``, ``licence`` and ``layers``); ``settings`` are the choices that a recipe must store
    to repeat them, by their names in ``model``; ``defaults`` names the row of the table of
    defaults, if the model's size alone does not determine it.
    """

    network: Network
    tokenizer: Any
    max_length: int | None
    decisions: tuple[Decision, ...]
    facts: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    defaults: str | None = None


@contextmanager
def evaluating(model: Network | nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; the previous mode is restored
    afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
