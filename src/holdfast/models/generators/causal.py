"""From a name or folder to a causal language model ready for training, its tokenizer and the
reasons."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.decisions import decisions_in, notify, record_decisions
from holdfast.core.errors import ModelError
from holdfast.core.packaged_models import SMOLLM2
from holdfast.core.records import Decision
from holdfast.models.adapters.adapter import below_prompt
from holdfast.models.base import Adapter, Layer, LoadedModel, Preprocessor, evaluating
from holdfast.models.generators.base import (
    check_generates,
    chunked_losses,
    pretrained_generator,
    save_generator,
    saved_generator,
)
from holdfast.models.layers import blocks_in_order
from holdfast.models.loading.checks import architectures, loading
from holdfast.models.loading.options import DEFAULT_LOAD_OPTIONS, LoadOptions
from holdfast.models.loading.source import Source, find_model, read_config
from holdfast.models.loading.tokenizer import choose_max_length, give_pad, load_tokenizer
from holdfast.models.loading.weights import configuration, describe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DESCRIPTION, EXAMPLE = "a causal language model", SMOLLM2
DROPOUTS = (
    "attention_dropout",
    "hidden_dropout",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "dropout",
)


class CausalNetwork(nn.Module):
    """A plain causal language model of Transformers, with what the loop asks of a network.

    ``plain`` is the model itself; adapters may change its modules in place. The last layer is
    pretrained like the rest.
    """

    adapter: Adapter | None = None
    fixed: frozenset[int] = frozenset()
    new_head = False
    _prefix: PrefixKeyValues | None = None

    def __init__(self, plain: PreTrainedModel) -> None:
        super().__init__()
        self.plain: Any = plain
        self.training = bool(plain.training)
        self.direct = _is_direct(plain)

    @property
    def config(self) -> Any:
        return self.plain.config

    @property
    def backbone(self) -> nn.Module:
        """All but the last layer."""
        body: nn.Module = self.plain.base_model
        return body

    @property
    def head(self) -> nn.Module:
        """The layer from hidden states to the vocabulary."""
        last: nn.Module = self.plain.get_output_embeddings()
        return last

    @property
    def word_embeddings(self) -> nn.Module:
        """The table of word embeddings, [vocabulary, E]."""
        table: nn.Module = self.plain.get_input_embeddings()
        return table

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids [B, T] → logits [B, T, vocabulary]."""
        logits: Tensor = self.plain(**inputs, **self._cache_arguments(inputs)).logits
        # A soft prompt's own places come first.
        return logits[:, -inputs["input_ids"].shape[1] :]

    def logits_at(self, where: Tensor, **inputs: Tensor) -> Tensor:
        """Logits [N, vocabulary] at the flat positions ``where`` [N] of the batch.

        Where the model's logits are its last layer of its hidden states and nothing else (asked of
        the model itself when it is loaded), those of other positions are never computed: they are
        the largest tensor of a step.
        """
        if not self.chunks:
            all_logits: Tensor = self(**inputs)
            return all_logits.flatten(0, 1)[where]
        states = self.backbone(**inputs, **self._cache_arguments(inputs)).last_hidden_state
        logits: Tensor = self.head(states.flatten(0, 1)[where])
        return logits

    @property
    def chunks(self) -> bool:
        """Whether ``losses_at`` can be used."""
        return self.direct and not has_prompt(self)

    def losses_at(
        self, where: Tensor, expected: Tensor, together: int, **inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of each target ``expected`` [N] at the flat positions ``where`` [N], and whether
        it was predicted correctly; see ``chunked_losses``."""
        states = self.backbone(**inputs, **self._cache_arguments(inputs)).last_hidden_state
        return chunked_losses(self.head, states.flatten(0, 1)[where], expected, together)

    @contextlib.contextmanager
    def with_prefix(self, ids: Sequence[int]) -> Iterator[None]:
        """Within this context, every row of a batch continues the prefix ``ids``. The model
        computes the prefix once, in evaluation mode, at the precision of the first batch."""
        self._prefix = PrefixKeyValues(self, ids)
        try:
            yield
        finally:
            self._prefix = None

    def _cache_arguments(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        if self._prefix is None:
            return {"use_cache": False}
        lines = len(inputs["input_ids"])
        return {"use_cache": True, "past_key_values": self._prefix.for_batch(lines)}

    @cached_property
    def supports_key_value_cache(self) -> bool:
        """Whether ``with_prefix`` gives the logits of whole rows, tested on the model with sixteen
        tokens."""
        if has_prompt(self) or getattr(self.config, "sliding_window", None):
            return False
        table: Any = self.word_embeddings.weight
        ids = torch.arange(1, 17, device=table.device)[None] % int(table.shape[0])
        with evaluating(self):
            whole = self(input_ids=ids)[:, 8:]
            try:
                with self.with_prefix(ids[0, :8].tolist()):
                    rest = self(input_ids=ids[:, 8:])
            # Not every architecture has such a cache.
            except Exception:
                return False
        # Sums in another order; a cache that is wrong changes logits as a whole.
        return bool((whole - rest).abs().max() <= 1e-3 * whole.abs().max())

    def layers(self) -> list[Layer]:
        """Embeddings (a soft prompt among them), each block, the head; every weight is in exactly
        one. A head that shares the embeddings' weights has none of its own."""
        body, head = self.backbone, self.head
        first, *blocks = blocks_in_order(body, int(self.config.num_hidden_layers))
        placed = {id(body), id(head), *map(id, first.modules)}
        other_modules = tuple(
            module for module in self.plain.children() if id(module) not in placed
        )
        shared = head.weight is self.word_embeddings.weight
        last = Layer("head", () if shared else (head,))
        return [Layer(first.name, (*other_modules, *first.modules)), *blocks, last]

    def save(self, folder: Path, tokenizer: Preprocessor) -> None:
        """Write a folder that plain ``AutoModelForCausalLM`` loads without remote code; with an
        adapter that is not merged, one that plain ``peft`` loads."""
        save_generator(self, folder, tokenizer)


class PrefixKeyValues:
    """The keys and values of tokens that several texts begin with, computed at their first use."""

    def __init__(self, network: CausalNetwork, ids: Sequence[int]) -> None:
        self._network, self._ids = network, ids
        self._computed: Any = None

    def __len__(self) -> int:
        return len(self._ids)

    @torch.inference_mode()
    def for_batch(self, count: int) -> Any:
        """A cache for a batch of ``count`` lines, which its pass may extend."""
        if self._computed is None:
            table: Any = self._network.word_embeddings.weight
            ids = torch.tensor([list(self._ids)], device=table.device)
            self._computed = self._network.backbone(input_ids=ids, use_cache=True).past_key_values
        cache = copy.deepcopy(self._computed)
        cache.batch_repeat_interleave(count)
        return cache


@dataclass(frozen=True)
class LoadedCausal(LoadedModel):
    """What ``load_causal`` gives; ``max_length`` is the tokens that an example is cut to."""

    network: CausalNetwork
    max_length: int


def load_causal(name: str, options: LoadOptions = DEFAULT_LOAD_OPTIONS) -> LoadedCausal:
    """Load a decoder (Llama, Mistral, Qwen, Gemma, Phi, GPT-2, SmolLM, DeepSeek …) in evaluation
    mode.

    The vocabulary is never resized. A tokenizer without a padding token gets a spare or its
    end-of-text token for generation; in training nothing is read off padding. What ``quantize``
    asks for needs an adapter later. Of a folder with an adapter, the pretrained model is loaded.

    Raises
    ------
    ModelError : the model cannot be found or read, or is no causal language model.
    """
    from transformers import AutoModelForCausalLM

    check_generates(name, DESCRIPTION, EXAMPLE)
    trust = options.trust_remote_code
    source = find_model(name, revision=options.revision, trust=trust, adapters=True)
    config = _config(source, options.dropout)
    tokenizer = load_tokenizer(source, trust, need_pad=False)
    with loading(source.name, "states no length that can be used"):
        length, reason = choose_max_length(
            source.folder,
            config,
            tokenizer,
            options.max_length,
            options.prompt_places,
            options.most,
        )
    with record_decisions() as log:
        notify(*source.decisions)
        plain = pretrained_generator(AutoModelForCausalLM, source, config, DESCRIPTION, options)
        notify(reason)
        _set_pad(plain, tokenizer)
    with loading(source.name, "cannot compute: its config.json does not fit it"):
        network = CausalNetwork(plain).eval()
    facts = describe(
        source,
        network,
        read_config(source.name, source.folder)["model_type"],
        pooling=None,
        hidden_size=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
    )
    return LoadedCausal(network, tokenizer, length, decisions_in(log), facts)


def check_causal(name: str) -> None:
    """Raise ``ModelError`` if ``name`` is not a causal language model, by its files alone."""
    check_generates(name, DESCRIPTION, EXAMPLE)
    _config(find_model(name, adapters=True), None)


def load_saved_causal(folder: Path) -> tuple[CausalNetwork, Any]:
    """A saved folder through ``AutoModelForCausalLM`` and ``AutoTokenizer`` alone (or, with an
    adapter, plain ``peft``), in float32 and evaluation mode, and its tokenizer."""
    from transformers import AutoModelForCausalLM

    def adapted(model: Any) -> Any:
        return model if below_prompt(model) is not None else model.get_base_model()

    plain, tokenizer = saved_generator(folder, AutoModelForCausalLM, DESCRIPTION, adapted)
    return CausalNetwork(plain).eval(), tokenizer


def _config(source: Source, dropout: float | None) -> Any:
    from transformers import AutoModelForCausalLM

    config = configuration(source, dropout, DROPOUTS)
    named = architectures(source.config)
    decoder = not named or any(n.endswith(("ForCausalLM", "LMHeadModel")) for n in named)
    # The private table alone says which configurations have such a class.
    if not decoder or type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            source.name,
            "is not a causal language model",
            named or config.model_type,
            "Choose a decoder (Llama, Mistral, Qwen, Gemma, Phi, GPT-2, SmolLM, DeepSeek …), or "
            "another task.",
        )
    return config


def _set_pad(plain: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """A padding token that the vocabulary already has; none is added."""
    pad_token = give_pad(tokenizer)
    if pad_token is None:
        return
    if plain.generation_config is not None:
        plain.generation_config.pad_token_id = tokenizer.pad_token_id
    because = "the tokenizer has it; no weights are added, and no loss is read off padding"
    notify(Decision("padding token", pad_token, because))


def _is_direct(plain: Any) -> bool:
    """Whether the logits are exactly the last layer of the hidden states (Gemma-2 caps them, Cohere
    scales them), tested on the model with eight tokens."""
    is_transformers = type(plain).__module__.startswith("transformers.")
    if not is_transformers or plain.base_model is plain:
        return False
    head: Any = plain.get_output_embeddings()
    if head is None:
        return False
    ids = torch.arange(1, 9, device=head.weight.device)[None] % int(head.weight.shape[0])
    with evaluating(plain):
        all_logits = plain(input_ids=ids, use_cache=False).logits
        states = plain.base_model(input_ids=ids, use_cache=False).last_hidden_state
        return torch.allclose(all_logits.float(), head(states).float(), rtol=1e-4, atol=1e-4)


def isolates_packed_examples(network: CausalNetwork) -> bool:
    """Whether packed examples attend only to themselves, tested on the model with two of them. Some
    architectures (OPT, Falcon) do not infer the boundaries from the positions."""
    table: Any = network.word_embeddings.weight
    ids = (torch.arange(1, 13, device=table.device) * 7 % int(table.shape[0]))[None]
    positions = torch.cat([torch.arange(6), torch.arange(6)])[None].to(ids.device)
    with evaluating(network):
        separate = network(input_ids=ids[:, 6:])
        packed = network(input_ids=ids, position_ids=positions)[:, 6:]
    return bool(torch.allclose(separate.float(), packed.float(), rtol=1e-3, atol=1e-3))


def has_prompt(network: CausalNetwork) -> bool:
    """Whether a soft prompt precedes every text: only the complete model reads it."""
    adapter = network.adapter
    return adapter is not None and adapter.spec.kind == "prompt"
