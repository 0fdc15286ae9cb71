"""The network that is trained: a plain encoder-decoder, with what the loop asks of a network."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.errors import ModelError
from holdfast.core.files import disk_errors
from holdfast.core.input_errors import door
from holdfast.models.adapters.save import is_adapter_folder, load_adapted, merges, save_whole
from holdfast.models.base import Adapter, Layer
from holdfast.models.generators.chunked_loss import chunked_losses
from holdfast.models.loading.completeness import SAVED, check_tokenizer, read_saved
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import forget_limits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from holdfast.models.base import Preprocessor

PLAIN_INPUTS = ("input_ids", "attention_mask")
IGNORED = -100
_BLOCK = re.compile(r"\b(encoder|decoder)\.(?:block|layers)\.(\d+)\.")
_LAST = re.compile(r"\b(encoder|decoder)\.(?:final_layer_norm|layer_norm)\.")


class Seq2SeqNetwork(nn.Module):
    """``forward`` gives the logits of every target token, [B, T, vocabulary].

    Inputs that the model's own ``forward`` does not take are left out, so that any tokenizer fits
    any architecture. The last layer is pretrained like the rest; an adapter changes ``plain`` in
    place.
    """

    adapter: Adapter | None = None
    new_head = False

    def __init__(self, plain: PreTrainedModel) -> None:
        super().__init__()
        self.plain: Any = plain
        self.accepts = frozenset(inspect.signature(plain.forward).parameters)
        self.fixed = frozenset(id(p) for p in _sinusoids(plain))
        for parameter in _sinusoids(plain):
            parameter.requires_grad_(False)
        self.direct = _is_direct(self)

    @property
    def config(self) -> Any:
        return self.plain.config

    @property
    def backbone(self) -> nn.Module:
        """The whole plain model: its head is pretrained like the rest, and mostly shared."""
        whole: nn.Module = self.plain
        return whole

    @property
    def head(self) -> nn.Module:
        """The layer from hidden states to the vocabulary."""
        last: nn.Module = self.plain.get_output_embeddings()
        return last

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, [vocabulary, E]."""
        table: nn.Embedding = self.plain.get_input_embeddings()
        return table

    def forward(self, labels: Tensor, **inputs: Tensor) -> Tensor:
        """Source ids [B, S] and mask, target ids ``labels`` [B, T] (−100 is padding) → logits.

        The decoder reads the targets shifted by one, as the plain model does when it is given
        ``labels``; its own loss is not computed.
        """
        shifted = self.plain.prepare_decoder_input_ids_from_labels(labels=labels)
        taken = {name: value for name, value in inputs.items() if name in self.accepts}
        logits: Tensor = self.plain(**taken, decoder_input_ids=shifted, use_cache=False).logits
        return logits

    def logits_at(self, where: Tensor, labels: Tensor, **inputs: Tensor) -> Tensor:
        """Logits [N, vocabulary] at the flat places ``where`` [N] of ``labels`` [B, T].

        Where the last layer takes each state by itself (asked of the model itself when it is
        loaded), it is given the wanted ones alone: logits of padding are never computed.
        """
        if not self.direct:
            whole: Tensor = self(labels, **inputs)
            return whole.flatten(0, 1)[where]
        # On the last layer, so that the model's own forward with its scaling stays what it is.
        hook = self.head.register_forward_pre_hook(
            lambda _, given: (given[0].flatten(0, 1)[where][None],)
        )
        try:
            logits: Tensor = self(labels, **inputs)
        finally:
            hook.remove()
        return logits[0]

    @property
    def chunks(self) -> bool:
        """Whether ``losses_at`` can be asked: nothing is added to the last layer's outputs."""
        bias = getattr(self.plain, "final_logits_bias", None)
        return self.direct and (bias is None or not bool(bias.any()))

    def losses_at(
        self, where: Tensor, expected: Tensor, together: int, labels: Tensor, **inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of each target ``expected`` [N] at the flat places ``where`` [N] of ``labels``,
        and whether it was the likeliest; see ``chunked_losses``."""
        read: list[Tensor] = []

        def take(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
            read.append(given[0].flatten(0, 1)[where])
            # The model's own forward goes on with one state, whose logits nobody reads.
            return (read[0][:1][None],)

        hook = self.head.register_forward_pre_hook(take)
        try:
            self(labels, **inputs)
        finally:
            hook.remove()
        return chunked_losses(self.head, read[0], expected, together)

    def layers(self) -> list[Layer]:
        """Embeddings, each block of the encoder, each block of the decoder, the head; every weight
        is in exactly one. A last norm belongs to the last block of its side; a head that shares
        the embeddings' weights has none of its own."""
        sides = {side: int(n) for side, n in _counts(self.plain).items()}
        names = [f"{side}.{i}" for side in ("encoder", "decoder") for i in range(sides[side])]
        found: dict[str, list[nn.Parameter]] = {n: [] for n in ("embeddings", *names, "head")}
        for name, parameter in self.plain.named_parameters():
            found[_layer_of(name, sides)].append(parameter)
        return [Layer(name, (nn.ParameterList(parameters),)) for name, parameters in found.items()]

    def save(self, folder: Path, tokenizer: Preprocessor) -> None:
        """Write a folder that plain ``AutoModelForSeq2SeqLM`` loads without remote code (or, with
        an adapter that is not to be merged, plain ``peft``), with tokenizer and generation
        configuration."""
        forget_limits(tokenizer)
        if getattr(self.config, "auto_map", None):
            del self.config.auto_map
        save_whole(self.plain, self.adapter, folder, tokenizer)
        if not merges(self):
            with disk_errors(folder), quiet_transformers():
                self.plain.generation_config.save_pretrained(folder)


def load_saved_seq2seq(folder: Path) -> tuple[Seq2SeqNetwork, Any]:
    """A saved folder through ``AutoModelForSeq2SeqLM`` and ``AutoTokenizer`` alone (or, with an
    adapter, plain ``peft``), in float32 and evaluation mode, and its tokenizer.

    Raises ``ModelError`` where the folder is absent, incomplete, or no encoder-decoder.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

    rule = "cannot be loaded as an encoder-decoder"
    with door(str(folder), ModelError, rule, SAVED), quiet_transformers():
        if is_adapter_folder(folder):
            model = load_adapted(folder, AutoModelForSeq2SeqLM).get_base_model()
            model.generation_config = GenerationConfig.from_pretrained(folder)
            # An adapter's folder has no configuration of the model; its generation settings name
            # these tokens.
            for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
                setattr(model.config, key, getattr(model.generation_config, key))
        else:
            model = read_saved(AutoModelForSeq2SeqLM, folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    check_tokenizer(str(folder), tokenizer, model.config)
    return Seq2SeqNetwork(model).eval(), tokenizer


def _is_direct(network: Seq2SeqNetwork) -> bool:
    """Whether the last layer may be given some of the states alone, asked with four target tokens
    of which two are wanted: what follows it must not look at their places."""
    if network.head is None:
        return False
    table = network.word_embeddings.weight
    ids = torch.arange(1, 9, device=table.device)[None] % int(table.shape[0])
    where = torch.tensor([1, 3], device=table.device)
    inputs = {"labels": ids[:, :4], "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    # On trial: ``logits_at`` takes the short way that is being asked about.
    was_training, network.direct = network.training, True
    network.eval()
    with torch.inference_mode():
        whole = network(**inputs).flatten(0, 1)[where]
        try:
            picked = network.logits_at(where, **inputs)
        except (RuntimeError, IndexError):
            return False
        finally:
            network.train(was_training)
    same = picked.shape == whole.shape
    return same and torch.allclose(picked.float(), whole.float(), rtol=1e-4, atol=1e-4)


def _sinusoids(model: nn.Module) -> list[nn.Parameter]:
    """Sinusoidal positions (Pegasus, Marian) are weights in name only; loaded, they claim to
    learn."""
    tables = [m for m in model.modules() if "Sinusoidal" in type(m).__name__]
    return [parameter for table in tables for parameter in table.parameters()]


def _counts(model: nn.Module) -> dict[str, int]:
    """How many blocks each side has, by the names of the weights."""
    counts = {"encoder": 0, "decoder": 0}
    for name, _ in model.named_parameters():
        if found := _BLOCK.search(name):
            side, index = found.group(1), int(found.group(2))
            counts[side] = max(counts[side], index + 1)
    return counts


def _layer_of(name: str, sides: dict[str, int]) -> str:
    if found := _BLOCK.search(name):
        return f"{found.group(1)}.{found.group(2)}"
    if (found := _LAST.search(name)) and sides[found.group(1)]:
        return f"{found.group(1)}.{sides[found.group(1)] - 1}"
    # What is in no block stands before them: tables, positions, their norms.
    return "head" if "lm_head" in name else "embeddings"
