"""The network that is trained: backbone → pooling → dropout → one linear layer. Pooling makes of
the last hidden states of all tokens [B, T, H] the features that the last layer reads: one row of
them [B, D] a text, or one a token [B, T, D]."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from holdfast.core.errors import Defect
from holdfast.core.files import disk_errors
from holdfast.models.adapters.adapter import PROMPT, extend_mask
from holdfast.models.adapters.save import merged_state, plain_tensor, save_adapter
from holdfast.models.base import Adapter, Layer
from holdfast.models.encoders.families import Family, carry_mean
from holdfast.models.layers import new_head
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.tokenizer import accepted_inputs, forget_limits
from holdfast.models.loading.weights import name_classes

if TYPE_CHECKING:
    from holdfast.models.base import Preprocessor


Pooling = Literal["mean", "own"]
SINGLE_LABEL = "single_label_classification"
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
TOKENS = "token_classification"
# Transformers' classes of plain models, by what the outputs mean.
PLAIN_CLASSES = {TOKENS: "AutoModelForTokenClassification"}
TEXT_CLASSIFIER = "AutoModelForSequenceClassification"


# The plain carrier of mean pooling scales its input up before the norm, so that no epsilon of an
# architecture's own (1e-5 in RoBERTa) may enter here.
NORM_EPSILON = 1e-12


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the real tokens, [B, T, H] and [B, T] → [B, H], in at least float32.

    ``mask`` is 1 at real tokens (the special ones among them) and 0 at padding; ``None`` means
    that there is no padding. A row without a real token gives NaN.
    """
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    if mask is None:
        return wide.mean(dim=1)
    weights = mask.to(wide.dtype).unsqueeze(-1)
    return (wide * weights).sum(dim=1) / weights.sum(dim=1)


class MeanPool(nn.Module):
    """The masked mean, then a layer norm without weights: (m − mean(m)) ÷ std(m) over [H].

    The norm is what one more encoder block computes anyway when it carries the mean in a plain
    architecture (see ``models/encoders/families.py``); trained with it, the saved model is the same
    model. ``bias`` is the backbone's module that weighs tokens by their relative position, where
    the block would apply it (MPNet): the mean of a head's share of H is then Σⱼ softmax(b(j))ⱼ hⱼ
    over the real tokens j, b(j) the head's bias of token j for the first one.
    """

    def __init__(self, bias: nn.Module | None = None) -> None:
        super().__init__()
        # In a tuple, so that its weights stay the backbone's alone.
        self._bias = () if bias is None else (bias,)

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if self._bias:
            mean = _biased_mean(hidden, mask, self._bias[0])
        else:
            mean = masked_mean(hidden, mask)
        return nn.functional.layer_norm(mean, mean.shape[-1:], eps=NORM_EPSILON)


def _biased_mean(hidden: Tensor, mask: Tensor | None, bias: Any) -> Tensor:
    """[B, T, H] and [B, T] → [B, H], each head's share of H weighted by its bias."""
    wide = hidden if hidden.dtype == torch.float64 else hidden.float()
    buckets = bias.relative_position_bucket(torch.arange(wide.shape[1], device=wide.device))
    scores = bias.relative_attention_bias(buckets).to(wide.dtype)  # [T, heads]
    scores = scores.expand(len(wide), -1, -1)
    if mask is not None:
        scores = scores.masked_fill(mask.unsqueeze(-1) == 0, -math.inf)
    weights = scores.softmax(dim=1)
    shares = wide.reshape(*wide.shape[:2], weights.shape[-1], -1)
    mean: Tensor = (shares * weights.unsqueeze(-1)).sum(dim=1).flatten(1)
    return mean


def mean_pool(family: Family, backbone: nn.Module) -> MeanPool:
    """The mean that a plain folder of this family carries."""
    place = family.position_bias
    return MeanPool(None if place is None else backbone.get_submodule(place))


class ArchitecturePool(nn.Module):
    """An architecture's own pooling: the first token (or the mean), dense layer, activation, and
    in ModernBERT a norm. Differs from ``MeanPool`` in having weights."""

    def __init__(
        self,
        dense: nn.Module,
        activation: Callable[[Tensor], Tensor],
        *,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
        over: Literal["first", "mean"] = "first",
    ) -> None:
        super().__init__()
        self.dense = dense
        self.activation = activation
        self.norm = norm
        self.dropout = nn.Dropout(dropout)
        self.over = over

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        token = hidden[:, 0] if self.over == "first" else masked_mean(hidden, mask)
        features: Tensor = self.activation(self.dense(self.dropout(token)))
        return features if self.norm is None else self.norm(features)


class EachToken(nn.Module):
    """The last hidden states of all tokens [B, T, H], as they are or through the layers that an
    architecture has ``between`` them and its last one (ModernBERT alone). Differs from ``MeanPool``
    and ``ArchitecturePool`` in that it keeps every token."""

    over: Literal["each"] = "each"

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.between = between

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return hidden if self.between is None else self.between(hidden)


class EncoderClassifier(nn.Module):
    """A text classifier: ``head(dropout(features))``.

    ``features`` [B, D] is the pooled text, the exact input of the last linear layer; with mean
    pooling it is the layer-normed mean of the last hidden states, otherwise the output of the
    architecture's own pooling layers. ``save`` writes the same function as a plain folder.

    ``problem`` says what the outputs mean: one class of several, several labels, one number, or a
    tag for each token; then features are [B, T, D] and logits [B, T, C].

    Inputs that the architecture does not take (``token_type_ids`` for most) are left out, so
    that one tokenizer call serves all.
    """

    config: Any
    problem: str = SINGLE_LABEL
    adapter: Adapter | None = None
    fixed: frozenset[int] = frozenset()
    new_head = True

    def __init__(
        self,
        backbone: nn.Module,
        pool: MeanPool | ArchitecturePool | EachToken,
        family: Family,
        classes: tuple[str, ...],
        dropout: float,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.family = family
        self.classes = classes
        self.config = backbone.config
        self.accepts = accepted_inputs(self.config)
        self.head = new_head(int(self.config.hidden_size), len(classes), seed)

    @property
    def pooling(self) -> Pooling:
        return "mean" if isinstance(self.pool, MeanPool) or self.pool.over == "mean" else "own"

    def forward(self, **inputs: Tensor) -> Tensor:
        """Token ids [B, T] and mask [B, T] → logits [B, C]."""
        logits: Tensor = self.head(self.dropout(self.features(**inputs)))
        return logits

    def features(self, **inputs: Tensor) -> Tensor:
        """The input of the last linear layer before its dropout, [B, D]."""
        features: Tensor = self.pool(*self._states(inputs))
        return features

    def embed(self, **inputs: Tensor) -> Tensor:
        """The mean of the last hidden states over the real tokens, [B, H], whatever the head;
        neither normed nor of unit length."""
        return masked_mean(*self._states(inputs))

    def embed_at(self, depths: Sequence[float], **inputs: Tensor) -> Tensor:
        """The means of the hidden states over the real tokens at these shares of the depth, 0 the
        embeddings and 1 the last block, [B, depths, H]; neither normed nor of unit length."""
        output = self._run_backbone(inputs, output_hidden_states=True)
        # Some architectures norm the last states after they have listed them.
        states = [*output.hidden_states[:-1], output.last_hidden_state]
        mask = inputs.get("attention_mask")
        selected = [states[round(depth * (len(states) - 1))] for depth in depths]
        return torch.stack([masked_mean(state, mask) for state in selected], dim=1)

    def _states(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The last hidden states and their mask, which a soft prompt lengthens."""
        hidden, mask = self.hidden(**inputs), inputs.get("attention_mask")
        if mask is not None and hidden.shape[1] > mask.shape[1]:
            mask = extend_mask(mask, hidden.shape[1] - mask.shape[1])
        return hidden, mask

    def hidden(self, **inputs: Tensor) -> Tensor:
        """The last hidden states of all tokens, [B, T, H]."""
        states: Tensor = self._run_backbone(inputs).last_hidden_state
        return states

    def _run_backbone(self, inputs: dict[str, Tensor], **settings: bool) -> Any:
        accepted = {name: value for name, value in inputs.items() if name in self.accepts}
        return self.backbone(**accepted, **settings)

    def layers(self) -> list[Layer]:
        """The layers in the order of the computation: embeddings (with a soft prompt), blocks, the
        architecture's own pooling layers if used, head. Every weight is in exactly one. ALBERT's
        shared blocks are one layer a group."""
        family = self.family
        blocks = list(self.backbone.get_submodule(family.blocks).children())
        tail = _existing_modules(self.backbone, family.tail)
        layers = [
            Layer("embeddings", _existing_modules(self.backbone, (*family.embeddings, PROMPT)))
        ]
        for index, block in enumerate(blocks):
            after = tail if index == len(blocks) - 1 else ()
            layers.append(Layer(f"block.{index}", (block, *after)))
        if any(True for _ in self.pool.parameters()):
            layers.append(Layer("pooler", (self.pool,)))
        return [*layers, Layer("head", (self.head,))]

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The table of word embeddings, [vocabulary, E]."""
        table: nn.Embedding = self.backbone.get_input_embeddings()  # type: ignore[operator]
        return table

    def save(self, folder: Path, tokenizer: Preprocessor, temperature: float = 1.0) -> None:
        """Write configuration, float32 safetensors and tokenizer into ``folder``.

        Plain ``AutoModelForSequenceClassification.from_pretrained(folder)`` (or
        ``AutoModelForTokenClassification``), without remote code,
        then gives the network's logits in evaluation mode ÷ ``temperature``, to 1e-4 of the
        largest. The class names stand in the configuration. Files of the same name are replaced.
        A network with an adapter that is not to be merged becomes a plain PEFT folder instead.

        Raises
        ------
        MachineError : the folder cannot be written.
        Defect : the temperature is not a positive number.
        """
        if not (math.isfinite(temperature) and temperature > 0):
            raise Defect("temperature", "must be a positive number", temperature)
        forget_limits(tokenizer)
        if self.adapter is not None and not self.adapter.spec.merge:
            # The layers after the backbone are new, and so are saved whole.
            tail = _tail_state(self, temperature)
            owners = dict.fromkeys(name.rpartition(".")[0] for name in tail)
            # PEFT saves a ``classifier`` of several layers as one module.
            module_names = ["classifier" if o.startswith("classifier.") else o for o in owners]
            save_adapter(
                self.adapter,
                folder,
                tokenizer,
                prefix=f"{self.family.base}.",
                extra=tail,
                modules=list(dict.fromkeys(module_names)),
                classes=self.classes,
            )
            return
        plain = plain_model(self, temperature)
        with disk_errors(folder), quiet_transformers():
            folder.mkdir(parents=True, exist_ok=True)
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


def _existing_modules(backbone: nn.Module, paths: tuple[str, ...]) -> tuple[nn.Module, ...]:
    modules = dict(backbone.named_modules(remove_duplicate=False))
    return tuple(modules[path] for path in paths if path in modules)


def plain_model(network: EncoderClassifier, temperature: float = 1.0) -> Any:
    """The plain model, its weights filled in. On the meta device, so that none are drawn."""
    import transformers

    make: Any = getattr(
        transformers, PLAIN_CLASSES.get(network.problem, TEXT_CLASSIFIER)
    ).from_config
    config, family = _config(network), network.family
    backbone = (
        merged_state(network.backbone) if network.adapter else _prefixed_state("", network.backbone)
    )
    state = {f"{family.base}.{name}": value for name, value in backbone.items()}
    if isinstance(network.pool, MeanPool):
        carry_mean(state, family, config, network.head)
        for name in (f"{family.last}.weight", f"{family.last}.bias"):
            state[name] = state[name] / temperature
    else:
        state |= _tail_state(network, temperature)
    with quiet_transformers(), torch.device("meta"):
        plain = make(config, dtype=torch.float32)
    plain.load_state_dict(state, strict=True, assign=True)
    return plain


def _tail_state(network: EncoderClassifier, temperature: float) -> dict[str, Tensor]:
    """The architecture's own pooling and the last layer ÷ temperature, under their plain names."""
    family, pool = network.family, network.pool
    parts: list[tuple[str | None, nn.Module | None]]
    if isinstance(pool, EachToken):
        parts, last = [("head", pool.between)], "classifier"
    else:
        assert isinstance(pool, ArchitecturePool)
        parts, last = [(family.dense, pool.dense), (family.norm, pool.norm)], family.last
    state: dict[str, Tensor] = {}
    for name, module in parts:
        if name is not None and module is not None:
            state |= _prefixed_state(name, module)
    head = _prefixed_state(last, network.head)
    return state | {name: value / temperature for name, value in head.items()}


def _prefixed_state(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    start = f"{prefix}." if prefix else ""
    return {f"{start}{name}": plain_tensor(value) for name, value in module.state_dict().items()}


def _config(network: EncoderClassifier) -> Any:
    config = copy.deepcopy(network.config)
    name_classes(config, network.classes)
    # Transformers names the problem of whole texts alone.
    config.problem_type = None if network.problem == TOKENS else network.problem
    config.dtype = torch.float32
    if getattr(config, "auto_map", None):
        del config.auto_map
    return config
