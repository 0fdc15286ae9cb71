"""Adapters: a few new weights learn, the pretrained ones stay. PEFT makes and names them.

| kind | what it adds | per adapted layer [out, in] |
|---|---|---|
| ``lora`` | W + (α ÷ r) · B A (2106.09685) | r · (out + in) |
| ``rslora`` | the same with α ÷ √r, steady in r (2312.03732) | the same |
| ``dora`` | LoRA on the direction, a magnitude beside it (2402.09353) | and out more |
| ``lora+`` | LoRA whose B learns ``rate_ratio`` times as fast (2402.12354) | as ``lora`` |
| ``ia3`` | one factor per key, value and inner unit (2205.05638) | out, or in |
| ``prompt`` | ``rank`` learnt vectors before the text (2104.08691) | none |

A model with an adapter, as it is without it: the model that it began from, held in memory
once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from holdfast.core.errors import MachineError, ModelError, RecipeError
from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed
from holdfast.models.adapters.prompt import add_prompt
from holdfast.models.adapters.quantize import size_of
from holdfast.models.adapters.targets import Targets, find_targets
from holdfast.models.base import Adapter, AdapterSpec, Network, Weights
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("lora", "rslora", "dora", "lora+", "ia3", "prompt")
LOW_RANK = ("lora", "rslora", "dora", "lora+")
RANK, PROMPT_VECTORS, DROPOUT, RATE_RATIO = 8, 20, 0.05, 16.0
# PEFT's names of what an encoder's outputs mean, where it is not one answer a text.
PEFT_TASKS = {"token_classification": "TOKEN_CLS"}


def attach(
    network: Network, spec: AdapterSpec, *, base: str, commit: str | None = None, seed: int = 0
) -> tuple[Decision, ...]:
    """Put an adapter into ``network.plain``, or ``network.backbone`` where there is none, and keep
    it as ``network.adapter``. The pretrained weights stop learning; what is outside (a head)
    goes on. ``base`` is the pretrained model's name or folder, ``commit`` the hub's. The global
    generator stays as it is.

    Raises
    ------
    MachineError : PEFT is not installed.
    RecipeError : a setting that this kind does not have, or an unknown target.
    ModelError : the model has nothing that this kind fits.
    """
    _need_peft()
    home: Any = home_of(network)
    held = frozenset(id(parameter) for parameter in home.parameters())
    task = task_type(network, home)
    if spec.kind == "prompt":
        spec, chosen = resolve_spec(spec)
        config, where = _prompt(home, spec, task, seed), "before every text"
    else:
        targets = find_targets(home, spec.kind, spec.targets)
        spec, chosen = resolve_spec(_without_dropout(spec, targets))
        config, where = _inject(home, spec, targets, task, seed)
    # What PEFT adds is in training mode whatever its home is in.
    home.train(home.training)
    for parameter in home.parameters():
        new = id(parameter) not in held
        parameter.requires_grad_(new)
        if new and parameter.dtype == torch.bfloat16:
            # PEFT makes it like its home; a small update of a half of its digits would be lost.
            parameter.data = parameter.data.float()
    fast = frozenset(id(p) for n, p in home.named_parameters() if "lora_B" in n)
    if spec.kind != "lora+":
        fast = frozenset()
    network.adapter = Adapter(spec, home, config, held, fast, base, commit)
    total, learns = _sizes(network)
    counted = (
        f"{learns:,} of {total:,} parameters learn ({learns / total:.2%}): the adapter's "
        "and the head's; the pretrained ones stay"
    )
    return (
        Decision("model.adapter", chosen, counted),
        Decision("model.adapter.targets", ", ".join(_targets(spec)) or "the input", where),
    )


def home_of(network: Network) -> nn.Module:
    """The module that an adapter is put into: a plain model of Transformers where the network holds
    one, else its backbone."""
    home: nn.Module | None = getattr(network, "plain", None)
    return network.backbone if home is None else home


def resolve_spec(spec: AdapterSpec) -> tuple[AdapterSpec, str]:
    """The spec with its open values filled in, and how it is shown."""
    low = spec.kind in LOW_RANK
    for name in ("rank", "alpha", "dropout", "rate_ratio"):
        fits = {"rank": low or spec.kind == "prompt", "rate_ratio": spec.kind == "lora+"}
        if getattr(spec, name) is not None and not fits.get(name, low):
            raise RecipeError(
                f"model.adapter.{name}",
                f"is no setting of {spec.kind}",
                getattr(spec, name),
                "Leave it out, or choose model.adapter.kind=lora.",
            )
    if spec.kind == "prompt" and (spec.merge or spec.targets):
        raise RecipeError(
            "model.adapter",
            "prompt cannot be merged and has no targets: it is read, not added to weights",
            None,
            "Leave merge and targets out, or choose model.adapter.kind=lora.",
        )
    rank = spec.rank or (RANK if low else PROMPT_VECTORS if spec.kind == "prompt" else None)
    spec = replace(
        spec,
        rank=rank,
        alpha=(spec.alpha or 2.0 * (rank or 0)) if low else None,
        dropout=(DROPOUT if spec.dropout is None else spec.dropout) if low else None,
        rate_ratio=(spec.rate_ratio or RATE_RATIO) if spec.kind == "lora+" else None,
    )
    shown = [
        f"{name} {getattr(spec, name):g}"
        for name in ("rank", "alpha", "dropout")
        if getattr(spec, name) is not None
    ]
    return spec, ", ".join([spec.kind, *shown])


def task_type(network: Network, home: PreTrainedModel) -> str | None:
    """PEFT's name for what the plain model does; ``None`` where it has none (images)."""
    if type(home).__name__.endswith("ForImageClassification"):
        return None
    if hasattr(network, "family"):
        return PEFT_TASKS.get(getattr(network, "problem", ""), "SEQ_CLS")
    if home.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return "CAUSAL_LM" if type(home).__name__.endswith(("ForCausalLM", "LMHeadModel")) else None


def layers_with_adapter(home: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every adapted layer of PEFT's, with its name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in home.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


def _without_dropout(spec: AdapterSpec, targets: Targets) -> AdapterSpec:
    """PEFT has no dropout on experts, which are no layers of their own."""
    if not targets.stacks or spec.kind not in LOW_RANK:
        return spec
    if spec.dropout:
        raise RecipeError(
            "model.adapter.dropout",
            "is not possible on a mixture of experts",
            spec.dropout,
            "Leave it out.",
        )
    return replace(spec, dropout=0.0)


def _inject(
    home: PreTrainedModel, spec: AdapterSpec, targets: Targets, task: str | None, seed: int
) -> tuple[Any, str]:
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    experts = targets.stacks if spec.kind != "dora" else ()
    # GPT-2's linear layers keep their weights the other way round.
    turned = any(type(module).__name__ == "Conv1D" for module in home.modules())
    if spec.kind == "ia3":
        config: Any = IA3Config(
            task_type=task,
            target_modules=targets.pattern,
            feedforward_modules=targets.input_pattern,
            fan_in_fan_out=turned,
        )
    else:
        make: Any = LoraConfig
        config = make(
            task_type=task,
            r=spec.rank,
            lora_alpha=spec.alpha,
            lora_dropout=spec.dropout,
            target_parameters=list(experts) or None,
            use_rslora=spec.kind == "rslora",
            use_dora=spec.kind == "dora",
            target_modules=targets.pattern,
            fan_in_fan_out=turned,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "adapter"))
        try:
            inject_adapter_in_model(config, home)
        except ValueError as error:
            raise ModelError(
                type(home).__name__,
                f"cannot carry {spec.kind}",
                str(error),
                "Use --set model.adapter.kind=lora, or name other model.adapter.targets.",
            ) from error
    return config, _reason(home, spec, targets)


def _reason(home: PreTrainedModel, spec: AdapterSpec, targets: Targets) -> str:
    count = sum(1 for _ in layers_with_adapter(home))
    family = str(getattr(home.config, "model_type", type(home).__name__))
    names = ", ".join((*targets.names, *targets.stacks))
    if spec.targets:
        why = "set by you"
    elif spec.kind == "ia3":
        why = "keys, values and the feed-forward part, as its authors did"
    else:
        why = "every linear layer of every block: on attention alone it learns less (2305.14314)"
    return f"{count} layers of {family} ({names}): {why}"


def _prompt(home: PreTrainedModel, spec: AdapterSpec, task: str | None, seed: int) -> Any:
    from peft import PromptTuningConfig

    assert spec.rank is not None
    if task is None or home.config.is_encoder_decoder:
        raise ModelError(
            type(home).__name__,
            "cannot be tuned by a prompt here",
            spec.kind,
            "Use --set model.adapter.kind=lora.",
        )
    vectors = add_prompt(home, spec.rank, seed)
    return PromptTuningConfig(
        task_type=task,
        num_virtual_tokens=spec.rank,
        token_dim=vectors.embedding_dim,
        num_transformer_submodules=1,
        num_layers=home.config.num_hidden_layers,
        num_attention_heads=home.config.num_attention_heads,
    )


def _targets(spec: AdapterSpec) -> tuple[str, ...]:
    if spec.kind == "prompt":
        return ()
    return spec.targets or (("keys, values, feed-forward",) if spec.kind == "ia3" else ("linear",))


def _sizes(network: Weights) -> tuple[int, int]:
    sizes = [(size_of(p), p.requires_grad) for p in network.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def _need_peft() -> None:
    try:
        with quiet_transformers():
            import peft  # noqa: F401
    except ImportError as error:
        raise MachineError(
            "model.adapter", "needs the package peft", None, "pip install 'holdfast[adapters]'"
        ) from error


def has_switch(plain: nn.Module) -> bool:
    """Whether PEFT's layers are in the model, which can be switched off. One whose adapter was
    merged into its weights has none."""
    return any(True for _ in _layers(plain))


def below_prompt(plain: Any) -> Any | None:
    """The model that a learnt prompt stands before; ``None`` where there is no such prompt."""
    learnt = getattr(plain, "active_peft_config", None)
    return plain.get_base_model() if learnt and learnt.is_prompt_learning else None


@contextlib.contextmanager
def adapter_off(plain: nn.Module) -> Iterator[None]:
    """Switch the adapter's layers off for the length of the block."""
    layers = list(_layers(plain))
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _layers(plain: nn.Module) -> Iterator[Any]:
    from importlib.util import find_spec

    if find_spec("peft") is None:
        return

    yield from (layer for _, layer in layers_with_adapter(plain))
