"""A classifier or tagger of any architecture that Transformers loads, as it classifies by itself.

The plain model runs without its last linear layer, so that what comes out is that layer's exact
input: the first token, the last one, a mean, or each token, as the architecture pools. The order of
its layers is found by walking its modules. Encoders of ``families.py`` have more: the mean over
their tokens, and layers that are known by name.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.errors import Defect, ModelError
from holdfast.core.files import disk_errors
from holdfast.models.adapters.save import merged_state, save_adapter
from holdfast.models.base import Adapter, Layer
from holdfast.models.encoders.network import SINGLE_LABEL, TOKENS, EncoderClassifier, masked_mean
from holdfast.models.layers import new_head, walked_layers
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import Source
from holdfast.models.loading.tokenizer import accepted_inputs, forget_limits
from holdfast.models.loading.weights import name_classes

if TYPE_CHECKING:
    from holdfast.models.base import Preprocessor


class GeneralClassifier(nn.Module):
    """``head(features)``, where ``backbone`` is the plain Transformers model with an identity in
    the place of its last linear layer, ``last`` is that layer's name, and ``problem`` says what the
    outputs mean. The architecture's dropout is inside the backbone.

    ``features`` are [B, D] a text, or [B, T, D] of a tagger. Differs from ``EncoderClassifier`` in
    that it knows nothing of the architecture, and cannot pool in another way than it does.
    """

    config: Any
    adapter: Adapter | None = None
    fixed: frozenset[int] = frozenset()
    new_head = True
    pooling = "own"

    def __init__(
        self,
        plain: nn.Module,
        last: str,
        classes: tuple[str, ...],
        problem: str = SINGLE_LABEL,
        seed: int = 0,
    ) -> None:
        super().__init__()
        layer: Any = plain.get_submodule(last)
        plain.set_submodule(last, nn.Identity())
        self.backbone = plain
        # The architecture's own, if any, is inside the backbone.
        self.dropout = nn.Dropout(0.0)
        self.last = last
        self.classes = classes
        self.problem = problem
        self.config = plain.config
        self.accepts = accepted_inputs(self.config)
        self.head = new_head(layer.in_features, len(classes), seed, bias=layer.bias is not None)

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids [B, T] and mask [B, T] → logits [B, C], of a tagger [B, T, C]."""
        logits: Tensor = self.head(self.dropout(self.features(**inputs)))
        return logits

    def features(self, **inputs: Tensor) -> Tensor:
        """The input of the last linear layer, [B, D] or [B, T, D]."""
        accepted = {name: value for name, value in inputs.items() if name in self.accepts}
        features: Tensor = self.backbone(**accepted).logits
        return features

    def embed(self, **inputs: Tensor) -> Tensor:
        """The mean of the last hidden states over the real tokens, [B, H]; over all where the
        architecture shortens the text on the way (Funnel)."""
        return _mean(self.hidden(**inputs), inputs.get("attention_mask"))

    def embed_at(self, depths: Sequence[float], **inputs: Tensor) -> Tensor:
        """The means of the hidden states over the real tokens at these shares of the depth, 0 the
        embeddings and 1 the last block, [B, depths, H]. States of another length or width than the
        last ones, as some architectures have on the way, give way to the nearest that have both."""
        output = self._read(inputs, output_hidden_states=True)
        last = output.last_hidden_state
        states = [*(output.hidden_states or (last,))[:-1], last]
        states = [one for one in states if one.shape == last.shape]
        mask = inputs.get("attention_mask")
        selected = [states[round(depth * (len(states) - 1))] for depth in depths]
        return torch.stack([_mean(state, mask) for state in selected], dim=1)

    def hidden(self, **inputs: Tensor) -> Tensor:
        """The last hidden states of all tokens, [B, T, H]; of an encoder-decoder the encoder's."""
        states: Tensor = self._read(inputs).last_hidden_state
        return states

    def _read(self, inputs: dict[str, Tensor], **settings: bool) -> Any:
        plain: Any = self.backbone
        reader = plain.get_encoder() if self.config.is_encoder_decoder else plain.base_model
        accepted = {name: value for name, value in inputs.items() if name in self.accepts}
        return reader(**accepted, **settings)

    def layers(self) -> list[Layer]:
        """The layers in the order of the modules: embeddings, blocks, what pools if it has weights,
        head. Every weight is in exactly one."""
        return [*walked_layers(self.backbone), Layer("head", (self.head,))]

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, [vocabulary, E]."""
        table: nn.Embedding = self.backbone.get_input_embeddings()  # type: ignore[operator]
        return table

    def save(self, folder: Path, tokenizer: Preprocessor, temperature: float = 1.0) -> None:
        """Write a folder that plain ``AutoModelForSequenceClassification`` (or
        ``AutoModelForTokenClassification``) loads, giving these logits ÷ ``temperature``. Raises as
        ``EncoderClassifier.save``."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise Defect("temperature", "must be a positive number", temperature)
        forget_limits(tokenizer)
        last = {
            f"{self.last}.{name}": (value / temperature).detach().float().cpu()
            for name, value in self.head.named_parameters()
        }
        if self.adapter is not None and not self.adapter.spec.merge:
            # PEFT saves a part of the model whole: with the last layer all that stands in it.
            owner = self.last.partition(".")[0]
            part: Any = self.backbone.get_submodule(owner)
            extra = {f"{owner}.{name}": value for name, value in part.state_dict().items()} | last
            save_adapter(
                self.adapter, folder, tokenizer, extra=extra, modules=[owner], classes=self.classes
            )
            return
        plain = self.with_last(last)
        with disk_errors(folder), quiet_transformers():
            folder.mkdir(parents=True, exist_ok=True)
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    def with_last(self, last: dict[str, Tensor]) -> Any:
        """A plain model of these weights with the layer ``last``."""
        config = copy.deepcopy(self.config)
        name_classes(config, self.classes)
        # Transformers names the problem of whole texts alone.
        config.problem_type = None if self.problem == TOKENS else self.problem
        config.dtype = torch.float32
        body: Any = self.backbone
        state = merged_state(body) if self.adapter else body.state_dict()
        with quiet_transformers(), torch.device("meta"):
            plain = type(body)(config)
        state = {name: value.detach().float().cpu() for name, value in state.items()} | last
        plain.load_state_dict(state, strict=False, assign=True)
        absent = [name for name, value in plain.named_parameters() if value.is_meta]
        if absent:
            raise Defect(type(body).__name__, "has weights that cannot be saved", absent[0])
        plain.tie_weights()
        return plain


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    fits = mask is not None and mask.shape == states.shape[:2]
    return masked_mean(states, mask if fits else None)


# The networks of classifiers and taggers of texts.
TextNetwork = EncoderClassifier | GeneralClassifier


def architecture_of(source: Source, make: Any, config: Any) -> Any:
    """Transformers' class for this configuration, as ``make`` would choose it."""
    # The private table alone says which configurations have such a class.
    table = make._model_mapping
    if type(config) not in table:
        purpose = make.__name__.removeprefix("AutoModelFor")
        rule = f"has an architecture that Transformers has no class for ({purpose})"
        remedy = "Choose another model; for texts e.g. sentence-transformers/all-mpnet-base-v2."
        raise ModelError(source.name, rule, config.model_type, remedy)
    found = table[type(config)]
    return found[0] if isinstance(found, tuple) else found


def reads_padding(network: TextNetwork, tokenizer: Any) -> bool:
    """Whether a text's outputs at its real tokens change with the padding after it."""
    alone = tokenizer("a a", return_tensors="pt")
    length = alone["input_ids"].shape[1]
    padded = tokenizer("a a", padding="max_length", max_length=length + 5, return_tensors="pt")
    with torch.inference_mode():
        one, other = network(**alone), network(**padded)
    if one.dim() == 3:
        other = other[:, :length]
    return not torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def last_linear(plain: nn.Module, outputs: int, name: str) -> str:
    """The name of the linear layer that gives a plain classifier's logits. Raises ``ModelError``
    where there is none."""
    found: list[str] = [
        path
        for path, module in plain.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == outputs
    ]
    if not found:
        rule = "does not end in one linear layer, so no new head can be put on it"
        raise ModelError(name, rule, type(plain).__name__, "Choose another model.")
    return found[-1]
