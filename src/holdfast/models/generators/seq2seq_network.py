"""The network that is trained: a plain encoder-decoder, with what the loop asks of a network."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.files import disk_errors
from holdfast.models.adapters.save import merges
from holdfast.models.base import Adapter, Layer, evaluating
from holdfast.models.generators.base import chunked_losses, save_generator, saved_generator
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from holdfast.models.base import Preprocessor

PLAIN_INPUTS = ("input_ids", "attention_mask")
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
        # Sinusoidal positions (Pegasus, Marian) are weights in name only; loaded, they claim to
        # learn.
        tables = [m for m in plain.modules() if "Sinusoidal" in type(m).__name__]
        sinusoids = [parameter for table in tables for parameter in table.parameters()]
        self.fixed = frozenset(map(id, sinusoids))
        for parameter in sinusoids:
            parameter.requires_grad_(False)
        self.direct = _is_direct(self)

    @property
    def config(self) -> Any:
        return self.plain.config

    @property
    def backbone(self) -> nn.Module:
        """The complete plain model: its head is pretrained too, and usually shared."""
        model: nn.Module = self.plain
        return model

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
        accepted = {name: value for name, value in inputs.items() if name in self.accepts}
        logits: Tensor = self.plain(**accepted, decoder_input_ids=shifted, use_cache=False).logits
        return logits

    def logits_at(self, where: Tensor, labels: Tensor, **inputs: Tensor) -> Tensor:
        """Logits [N, vocabulary] at the flat places ``where`` [N] of ``labels`` [B, T].

        Where the last layer takes each state by itself (asked of the model itself when it is
        loaded), it is given the wanted ones alone: logits of padding are never computed.
        """
        if not self.direct:
            all_logits: Tensor = self(labels, **inputs)
            return all_logits.flatten(0, 1)[where]
        # On the last layer, so that the model's own forward with its scaling stays what it is.
        with self._head_reads(lambda states: states[where]):
            logits: Tensor = self(labels, **inputs)
        return logits[0]

    @property
    def chunks(self) -> bool:
        """Whether ``losses_at`` can be used: nothing is added to the last layer's outputs."""
        bias = getattr(self.plain, "final_logits_bias", None)
        return self.direct and (bias is None or not bool(bias.any()))

    def losses_at(
        self, where: Tensor, expected: Tensor, together: int, labels: Tensor, **inputs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of each target ``expected`` [N] at the flat places ``where`` [N] of ``labels``,
        and whether it was the likeliest; see ``chunked_losses``."""
        read: list[Tensor] = []

        def take(states: Tensor) -> Tensor:
            read.append(states[where])
            # The model's own forward goes on with one state, whose logits nobody reads.
            return read[0][:1]

        with self._head_reads(take):
            self(labels, **inputs)
        return chunked_losses(self.head, read[0], expected, together)

    @contextmanager
    def _head_reads(self, take: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """The last layer reads what ``take`` makes of the states [B · T, H], as one text's."""
        with self.head.register_forward_pre_hook(
            lambda _, given: (take(given[0].flatten(0, 1))[None],)
        ):
            yield

    def layers(self) -> list[Layer]:
        """Embeddings, each block of the encoder, each block of the decoder, the head; every weight
        is in exactly one. A last norm belongs to the last block of its side; a head that shares
        the embeddings' weights has none of its own."""
        parameters = list(self.plain.named_parameters())
        # How many blocks each side has, by the names of the weights.
        blocks = [match for name, _ in parameters if (match := _BLOCK.search(name))]
        numbers = {"encoder": [-1], "decoder": [-1]}
        for block in blocks:
            numbers[block.group(1)].append(int(block.group(2)))
        last = {side: max(found) for side, found in numbers.items()}
        names = [f"{side}.{i}" for side, index in last.items() for i in range(index + 1)]
        groups: dict[str, list[nn.Parameter]] = {n: [] for n in ("embeddings", *names, "head")}
        for name, parameter in parameters:
            if match := _BLOCK.search(name):
                layer = f"{match.group(1)}.{match.group(2)}"
            elif (match := _LAST.search(name)) and last[match.group(1)] >= 0:
                layer = f"{match.group(1)}.{last[match.group(1)]}"
            else:
                # What is in no block stands before them: tables, positions, their norms.
                layer = "head" if "lm_head" in name else "embeddings"
            groups[layer].append(parameter)
        return [Layer(name, (nn.ParameterList(learnt),)) for name, learnt in groups.items()]

    def save(self, folder: Path, tokenizer: Preprocessor) -> None:
        """Write a folder that plain ``AutoModelForSeq2SeqLM`` loads without remote code (or, with
        an adapter that is not to be merged, plain ``peft``), with tokenizer and generation
        configuration."""
        save_generator(self, folder, tokenizer)
        if not merges(self):
            with disk_errors(folder), quiet_transformers():
                self.plain.generation_config.save_pretrained(folder)


def load_saved_seq2seq(folder: Path) -> tuple[Seq2SeqNetwork, Any]:
    """A saved folder through ``AutoModelForSeq2SeqLM`` and ``AutoTokenizer`` alone (or, with an
    adapter, plain ``peft``), in float32 and evaluation mode, and its tokenizer.

    Raises ``ModelError`` where the folder is absent, incomplete, or no encoder-decoder.
    """
    from transformers import AutoModelForSeq2SeqLM, GenerationConfig

    def adapted(model: Any) -> Any:
        plain = model.get_base_model()
        plain.generation_config = GenerationConfig.from_pretrained(folder)
        # An adapter's folder has no configuration of the model; its generation settings name these
        # tokens.
        for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            setattr(plain.config, key, getattr(plain.generation_config, key))
        return plain

    plain, tokenizer = saved_generator(folder, AutoModelForSeq2SeqLM, "an encoder-decoder", adapted)
    return Seq2SeqNetwork(plain).eval(), tokenizer


def _is_direct(network: Seq2SeqNetwork) -> bool:
    """Whether the last layer may be applied to selected states only, tested with four target tokens
    of which two are wanted: later steps must not depend on their positions."""
    if network.head is None:
        return False
    table = network.word_embeddings.weight
    ids = torch.arange(1, 9, device=table.device)[None] % int(table.shape[0])
    where = torch.tensor([1, 3], device=table.device)
    inputs = {"labels": ids[:, :4], "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    # On trial: ``logits_at`` takes the short way that is being asked about.
    network.direct = True
    with evaluating(network):
        all_logits = network(**inputs).flatten(0, 1)[where]
        try:
            picked = network.logits_at(where, **inputs)
        except (RuntimeError, IndexError):
            return False
    same = picked.shape == all_logits.shape
    return same and torch.allclose(picked.float(), all_logits.float(), rtol=1e-4, atol=1e-4)
