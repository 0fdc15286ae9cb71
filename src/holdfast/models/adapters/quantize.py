"""Pretrained weights in 4 or 8 bits: bitsandbytes keeps and multiplies them, an adapter learns.

| bits | a weight is | bytes each |
|---|---|---|
| 4 | one of 16 levels × the scale of its block of 64 (QLoRA, 2305.14314) | 0.52 |
| 8 | one of 255 levels × the scale of its row (LLM.int8(), 2208.07339) | 1 |

``nf4`` has its 16 levels at the quantiles of a normal distribution, ``fp4`` those of a small float;
``double`` keeps the scales themselves in 8 bits. In 8 bits what the layer reads is rounded too, row
by row, but for columns in which any row of the batch is above 6: those are multiplied in float16,
so that a row's outputs depend a little on its batch. Embeddings, norms and the last layer stay
float32.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.decisions import notify
from holdfast.core.errors import MachineError, ModelError
from holdfast.core.input_errors import first_line
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision
from holdfast.models.base import Weights
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PretrainedConfig

SETTING = "model.quantize"
CLASSES = ("Linear4bit", "Linear8bitLt")
# Of 4 bits with ``double``: half a byte, a byte of scale for each block of 64, and four for each
# 256 of these.
BYTES = {4: 0.5 + 1 / 64 + 4 / (64 * 256), 8: 1.0}
# What bitsandbytes' bfloat16 kernel for processors takes: [rows, columns] in these multiples.
KERNEL_ROWS, KERNEL_COLUMNS = 32, 64


@dataclass(frozen=True, slots=True)
class QuantizeSpec:
    """``bits`` 4 or 8; ``kind`` (``nf4`` or ``fp4``) and ``double`` apply only to 4 bits."""

    bits: int
    kind: str = "nf4"
    double: bool = True

    def __str__(self) -> str:
        if self.bits == 8:
            return "8bit"
        return f"4bit, {self.kind}" + (", double" if self.double else "")

    @property
    def config(self) -> dict[str, Any]:
        """The spec as ``BitsAndBytesConfig`` takes it."""
        if self.bits == 8:
            return {"load_in_8bit": True}
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": self.kind,
            "bnb_4bit_use_double_quant": self.double,
        }


def load_settings(config: Mapping[str, object] | None) -> dict[str, Any]:
    """Additional arguments of ``from_pretrained``; none without ``config``.

    Raises ``MachineError`` if bitsandbytes is missing or does not support this machine.
    """
    if not config:
        return {}
    check_machine(8 if config.get("load_in_8bit") else 4)
    from transformers import BitsAndBytesConfig

    make: Any = BitsAndBytesConfig
    return {"quantization_config": make(**config), "device_map": {"": _device()}}


def check_machine(bits: int) -> None:
    """Quantise a small layer and run it forward and backward, so that a machine on which this works
    is not refused."""
    need_packages(SETTING, "bitsandbytes", install="'holdfast[quantize]'")
    with quiet_transformers():
        bnb: Any = importlib.import_module("bitsandbytes")
    # Each product in 8 bits would say again that it is computed in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    make = bnb.nn.Linear4bit if bits == 4 else bnb.nn.Linear8bitLt
    kwargs: dict[str, Any] = {} if bits == 4 else {"has_fp16_weights": False}
    try:
        # A new layer draws its weights; the run's own draws must not depend on this check.
        with torch.random.fork_rng(devices=[]):
            layer = make(64, 64, bias=False, **kwargs).to(_device())
        layer(torch.ones(2, 64, device=_device(), requires_grad=True)).sum().backward()
    except Exception as error:
        rule = f"cannot be {bits}bit on this machine ({_device()}): bitsandbytes refuses"
        remedy = f"Leave {SETTING} out, or choose {'8bit' if bits == 4 else '4bit'}."
        raise MachineError(SETTING, rule, first_line(error), remedy) from error


def prepare_quantized(plain: nn.Module, spec: QuantizeSpec, name: str) -> None:
    """Prepare a newly quantised model for training; the log says how much of it is quantised.

    bitsandbytes has a kernel for evaluation on processors that rounds to bfloat16, changes the
    layout of the weights in place and has no backward pass: it is switched off here.

    Raises ``ModelError`` if the model has no layer that can be quantised.
    """
    layers = list(quantized_layers(plain))
    if not layers:
        rule = "has no linear layer that can be quantised (convolutions cannot be)"
        raise ModelError(name, rule, type(plain).__name__, f"Leave {SETTING} out.")
    for _, layer in layers:
        layer.support_avx512bf16_for_cpu = False
    n_quantized = sum(size_of(layer.weight) for _, layer in layers)
    total = sum(map(size_of, plain.parameters()))
    because = (
        f"set in the recipe: {n_quantized:,} of {total:,} parameters, in {len(layers)} linear "
        "layers, take "
        f"{BYTES[spec.bits]:.2g} bytes each and stay as they are; the rest is float32"
    )
    notify(Decision(SETTING, str(spec), because))


def keep_fitting_kernels(model: nn.Module) -> None:
    """Use bitsandbytes' evaluation kernel only for layers whose shape it supports: it fails on
    others.

    A reloaded model then computes what plain libraries compute from the same folder.
    """
    for _, layer in quantized_layers(model):
        if layer.out_features % KERNEL_ROWS or layer.in_features % KERNEL_COLUMNS:
            layer.support_avx512bf16_for_cpu = False


def compute_in(network: Weights, precision: str) -> None:
    """Set the precision of products with 4-bit layers to ``float32`` or ``bfloat16``; 8-bit layers
    have a fixed precision."""
    for _, layer in quantized_layers(network):
        layer.compute_dtype = getattr(torch, precision)


def quantized_layers(network: Weights) -> Iterator[tuple[str, Any]]:
    """Every bitsandbytes layer, with its name; PEFT's wrappers have the same names."""
    for name, module in network.named_modules():
        if type(module).__name__ in CLASSES and type(module).__module__.startswith("bitsandbytes."):
            yield name, module


def quantizable(plain: Any) -> list[Tensor]:
    """The weights that would be quantised: those of linear layers, except the last layer and those
    that the architecture keeps precise (T5's second feed-forward layers)."""
    full_precision = set(getattr(plain, "_keep_in_fp32_modules", None) or ())
    head = plain.get_output_embeddings()
    return [
        module.weight
        for name, module in plain.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and module is not head
        and not full_precision & set(name.split("."))
    ]


def is_quantized(network: Weights) -> bool:
    """Whether any layer is."""
    return next(quantized_layers(network), None) is not None


def size_of(parameter: Tensor) -> int:
    """The number of weights in a parameter: a 4-bit one holds two in each byte."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def weight_bytes(network: Weights) -> int:
    """Bytes of all weights as they are held, the scales of quantised ones included."""
    scales = [scale for _, layer in quantized_layers(network) for scale in scales_of(layer)]
    return sum(t.numel() * t.element_size() for t in [*network.parameters(), *scales])


def scales_of(layer: Any) -> list[Tensor]:
    """The scale tensors of a quantised layer, wherever bitsandbytes stores them."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return [layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB]
    inner = [state.state2.absmax, state.state2.code] if state.nested else []
    return [state.absmax, state.code, *inner]


def frozen_tensors(network: Weights) -> Iterator[Tensor]:
    """Every tensor that training must not change: frozen weights, and scales. Biases of quantised
    layers are left out: bitsandbytes casts them to the precision of its input."""
    layers = [layer for _, layer in quantized_layers(network)]
    biases = {id(layer.bias) for layer in layers if layer.bias is not None}
    for parameter in network.parameters():
        if not parameter.requires_grad and id(parameter) not in biases:
            yield parameter.detach().as_subclass(Tensor)
    for layer in layers:
        yield from scales_of(layer)


def plain_layer(layer: Any) -> nn.Linear:
    """A quantised layer as a plain float32 layer in main memory."""
    packed: Any = importlib.import_module("bitsandbytes.functional")
    weight = layer.weight
    if getattr(weight, "quant_state", None) is not None:
        value = packed.dequantize_4bit(weight.data, weight.quant_state)
    else:
        value = packed.int8_vectorwise_dequant(weight.data, scales_of(layer)[0])
    # The weights are copied in below, so none are drawn.
    make: Any = nn.utils.skip_init
    plain: nn.Linear = make(
        nn.Linear, layer.in_features, layer.out_features, bias=layer.bias is not None
    )
    with torch.no_grad():
        plain.weight.copy_(value)
        if layer.bias is not None:
            plain.bias.copy_(layer.bias)
    return plain


def plain_tensors(layer: nn.Module, plain: nn.Linear) -> dict[str, Tensor]:
    """The weights of ``plain``, a dequantised ``layer``, in the layout of the unquantised model:
    GPT-2's are transposed."""
    state = {name: value.detach() for name, value in plain.state_dict().items()}
    if getattr(getattr(layer, "source_cls", None), "__name__", "") == "Conv1D":
        state["weight"] = state["weight"].t().contiguous()
    return state


def config_of(config: PretrainedConfig) -> dict[str, Any] | None:
    """The quantisation of a model with this configuration, as ``BitsAndBytesConfig`` takes it;
    ``None`` without one."""
    quantization = getattr(config, "quantization_config", None)
    if quantization is None:
        return None
    plain = quantization.to_dict()
    names = ["load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant"]
    if plain.get("load_in_8bit"):
        names = ["load_in_8bit"]
    names += ["llm_int8_skip_modules"] if plain.get("llm_int8_skip_modules") else []
    return {name: plain[name] for name in names}


def remove_quantization(config: PretrainedConfig) -> Any:
    """``config`` without its quantisation entry, for a model that is no longer quantised."""
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config
    return config


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
