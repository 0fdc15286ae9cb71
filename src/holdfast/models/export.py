"""A trained network → a plain Hugging Face folder that is the same function."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from holdfast.core.errors import Defect
from holdfast.core.files import disk_errors
from holdfast.models.adapter import adapter_of
from holdfast.models.adapter_save import merged_state, merges, save_adapter
from holdfast.models.carry import carry_mean
from holdfast.models.pooling import MeanPool, OwnPool
from holdfast.models.quiet import quiet_transformers
from holdfast.models.tokens import forget_limits

if TYPE_CHECKING:
    from holdfast.models.network import EncoderClassifier


def export(
    network: EncoderClassifier, folder: Path, tokenizer: Any, temperature: float = 1.0
) -> None:
    """Write configuration, float32 safetensors and tokenizer into ``folder``.

    Plain ``AutoModelForSequenceClassification.from_pretrained(folder)``, without remote code,
    then gives the network's logits in evaluation mode ÷ ``temperature``, to 1e-4 of the largest.
    The class names stand in the configuration. Files of the same name are replaced. A network
    with an adapter that is not to be merged becomes a plain PEFT folder instead.

    Raises
    ------
    MachineError : the folder cannot be written.
    Defect : the temperature is not a positive number.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise Defect("temperature", "must be a positive number", temperature)
    forget_limits(tokenizer)
    if not merges(network):
        _export_adapter(network, folder, tokenizer, temperature)
        return
    plain = _plain_model(network, temperature)
    with disk_errors(folder), quiet_transformers():
        folder.mkdir(parents=True, exist_ok=True)
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _export_adapter(
    network: EncoderClassifier, folder: Path, tokenizer: Any, temperature: float
) -> None:
    """The adapter, and the layers after the backbone whole: they are new."""
    adapter, family = adapter_of(network), network.family
    assert adapter is not None
    tail = _tail_state(network, temperature)
    save_adapter(
        adapter,
        folder,
        tokenizer,
        prefix=f"{family.base}.",
        extra=tail,
        modules=_owners(tail),
        classes=network.classes,
    )


def _owners(names: dict[str, Tensor]) -> list[str]:
    """The modules of these tensors as PEFT saves them: a ``classifier`` of several layers whole."""
    owners = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return list(dict.fromkeys("classifier" if o.startswith("classifier.") else o for o in owners))


def _plain_model(network: EncoderClassifier, temperature: float) -> Any:
    """The plain model, its weights filled in. On the meta device, so that none are drawn."""
    from transformers import AutoModelForSequenceClassification

    make: Any = AutoModelForSequenceClassification.from_config
    config = _config(network)
    state = plain_state(network, config, temperature)
    with quiet_transformers(), torch.device("meta"):
        plain = make(config, dtype=torch.float32)
    plain.load_state_dict(state, strict=True, assign=True)
    return plain


def plain_state(network: EncoderClassifier, config: Any, temperature: float) -> dict[str, Tensor]:
    """All weights under a plain model's names; ``config`` is adapted where a block is added."""
    family = network.family
    backbone = (
        merged_state(network.backbone) if adapter_of(network) else _under("", network.backbone)
    )
    state = {f"{family.base}.{k}": v for k, v in backbone.items()}
    if not isinstance(network.pool, MeanPool):
        return state | _tail_state(network, temperature)
    carry_mean(state, family, config, network.head)
    for name in ("weight", "bias"):
        state[f"{family.last}.{name}"] = state[f"{family.last}.{name}"] / temperature
    return state


def _tail_state(network: EncoderClassifier, temperature: float) -> dict[str, Tensor]:
    """The architecture's own pooling and the last layer ÷ temperature, under their plain names."""
    family, pool = network.family, network.pool
    assert isinstance(pool, OwnPool)
    last = {name: value / temperature for name, value in _under(family.last, network.head).items()}
    return _own_pool(pool, family.dense, family.norm) | last


def _own_pool(pool: OwnPool, dense: str, norm: str | None) -> dict[str, Tensor]:
    state = _under(dense, pool.dense)
    return state | (_under(norm, pool.norm) if norm and pool.norm is not None else {})


def _under(prefix: str, module: torch.nn.Module) -> dict[str, Tensor]:
    start = f"{prefix}." if prefix else ""
    return {f"{start}{name}": _copy(value) for name, value in module.state_dict().items()}


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float32, copy=True).contiguous()


def _config(network: EncoderClassifier) -> Any:
    config = copy.deepcopy(network.config)
    names = dict(enumerate(network.classes))
    config.id2label, config.label2id = names, {name: index for index, name in names.items()}
    config.problem_type = network.problem
    config.dtype = torch.float32
    if getattr(config, "auto_map", None):
        del config.auto_map
    return config
