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
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.decisions import notify
from holdfast.core.errors import ModelError, RecipeError
from holdfast.core.packages import need_packages
from holdfast.core.records import Decision
from holdfast.core.seeds import derive_seed
from holdfast.core.wording import percent_phrase
from holdfast.models.adapters.targets import Targets, find_targets
from holdfast.models.base import Adapter, AdapterSpec, Network
from holdfast.models.layers import count_parameters
from holdfast.models.loading.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The module of a soft prompt's vectors, by its name in the model that reads it.
PROMPT = "prompt_vectors"
LOW_RANK = ("lora", "rslora", "dora", "lora+")
RANK, PROMPT_VECTORS, DROPOUT, RATE_RATIO = 8, 20, 0.05, 16.0
# PEFT's names of what an encoder's outputs mean, where it is not one answer a text.
PEFT_TASKS = {"token_classification": "TOKEN_CLS"}


def attach(
    network: Network, spec: AdapterSpec, *, base: str, commit: str | None = None, seed: int = 0
) -> None:
    """Put an adapter into ``network.plain``, or ``network.backbone`` if there is none, and store it
    as ``network.adapter``. The pretrained weights are frozen; modules outside (a head) are still
    trained. ``base`` is the pretrained model's name or folder, ``commit`` the hub's. The global
    generator is unchanged.

    Raises
    ------
    MachineError : PEFT is not installed.
    RecipeError : a setting that this kind does not have, or an unknown target.
    ModelError : the model has nothing that this kind fits.
    """
    need_packages("model.adapter", "peft", install="'holdfast[lora]'")
    # The first import of PEFT logs warnings about optional packages.
    with quiet_transformers():
        import peft  # noqa: F401
    home: Any = home_of(network)
    frozen_ids = frozenset(id(parameter) for parameter in home.parameters())
    task = task_type(network, home)
    if spec.kind == "prompt":
        spec, settings = resolve_spec(spec)
        config = _prompt(home, spec, task, seed)
        target_names, reason = "the input", "before every text"
    else:
        targets = find_targets(home, spec.kind, spec.targets)
        if targets.stacks and spec.kind in LOW_RANK:
            if spec.dropout:
                rule = "does not support mixture-of-experts models"
                raise RecipeError("model.adapter.dropout", rule, spec.dropout, "Leave it out.")
            # PEFT has no dropout on experts, which are no layers of their own.
            spec = replace(spec, dropout=0.0)
        spec, settings = resolve_spec(spec)
        config = _inject(home, spec, targets, task, seed)
        usual = "keys, values, feed-forward" if spec.kind == "ia3" else "linear"
        target_names, reason = ", ".join(spec.targets or (usual,)), _reason(home, spec, targets)
    # What PEFT adds is in training mode whatever its home is in.
    home.train(home.training)
    for parameter in home.parameters():
        new = id(parameter) not in frozen_ids
        parameter.requires_grad_(new)
        if new and parameter.dtype == torch.bfloat16:
            # PEFT makes it like its home; a small update of a half of its digits would be lost.
            parameter.data = parameter.data.float()
    is_lora_plus = spec.kind == "lora+"
    fast_ids = frozenset(
        id(p) for n, p in home.named_parameters() if is_lora_plus and "lora_B" in n
    )
    network.adapter = Adapter(spec, home, config, frozen_ids, fast_ids, base, commit)
    total, trainable = count_parameters(network)
    counted = (
        f"{trainable:,} of {total:,} parameters are trained "
        f"({percent_phrase(trainable / total, 2)}): only new "
        "ones; the pretrained weights are frozen"
    )
    notify(
        Decision("model.adapter", settings, counted),
        Decision("model.adapter.targets", target_names, reason),
    )


def home_of(network: Network) -> nn.Module:
    """The module that receives an adapter: the Transformers model if the network holds one, else
    its backbone."""
    home: nn.Module | None = getattr(network, "plain", None)
    return network.backbone if home is None else home


def resolve_spec(spec: AdapterSpec) -> tuple[AdapterSpec, str]:
    """The spec with its open values filled in, and its description."""
    low_rank = spec.kind in LOW_RANK
    for name in ("rank", "alpha", "dropout", "rate_ratio"):
        allowed = {"rank": low_rank or spec.kind == "prompt", "rate_ratio": spec.kind == "lora+"}
        if getattr(spec, name) is not None and not allowed.get(name, low_rank):
            rule = f"is not a setting of {spec.kind}"
            remedy = "Remove it, or choose model.adapter.kind=lora."
            raise RecipeError(f"model.adapter.{name}", rule, getattr(spec, name), remedy)
    if spec.kind == "prompt" and (spec.merge or spec.targets):
        rule = "prompt cannot be merged and has no targets: it is an input, not a change of weights"
        remedy = "Remove merge and targets, or choose model.adapter.kind=lora."
        raise RecipeError("model.adapter", rule, None, remedy)
    rank = spec.rank or (RANK if low_rank else PROMPT_VECTORS if spec.kind == "prompt" else None)
    spec = replace(
        spec,
        rank=rank,
        alpha=(spec.alpha or 2.0 * (rank or 0)) if low_rank else None,
        dropout=(DROPOUT if spec.dropout is None else spec.dropout) if low_rank else None,
        rate_ratio=(spec.rate_ratio or RATE_RATIO) if spec.kind == "lora+" else None,
    )
    shown = [
        f"{name} {getattr(spec, name):g}"
        for name in ("rank", "alpha", "dropout")
        if getattr(spec, name) is not None
    ]
    return spec, ", ".join([spec.kind, *shown])


def task_type(network: Network, home: PreTrainedModel) -> str | None:
    """PEFT's name for the model's task; ``None`` if it has none (images)."""
    if type(home).__name__.endswith("ForImageClassification"):
        return None
    if hasattr(network, "problem"):
        return PEFT_TASKS.get(getattr(network, "problem", ""), "SEQ_CLS")
    if home.config.is_encoder_decoder:
        return "SEQ_2_SEQ_LM"
    return "CAUSAL_LM" if type(home).__name__.endswith(("ForCausalLM", "LMHeadModel")) else None


def layers_with_adapter(home: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every layer that PEFT adapted, with its name; none if PEFT is not installed."""
    if find_spec("peft") is None:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in home.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


def _inject(
    home: PreTrainedModel, spec: AdapterSpec, targets: Targets, task: str | None, seed: int
) -> Any:
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    experts = targets.stacks if spec.kind != "dora" else ()
    # GPT-2's linear layers keep their weights the other way round.
    transposed = any(type(module).__name__ == "Conv1D" for module in home.modules())
    if spec.kind == "ia3":
        config: Any = IA3Config(
            task_type=task,
            target_modules=targets.pattern,
            feedforward_modules=targets.input_pattern,
            fan_in_fan_out=transposed,
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
            fan_in_fan_out=transposed,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "adapter"))
        try:
            inject_adapter_in_model(config, home)
        except ValueError as error:
            rule = f"does not support {spec.kind} adapters"
            remedy = "Use --set model.adapter.kind=lora, or name other model.adapter.targets."
            raise ModelError(type(home).__name__, rule, str(error), remedy) from error
    return config


def _reason(home: PreTrainedModel, spec: AdapterSpec, targets: Targets) -> str:
    count = sum(1 for _ in layers_with_adapter(home))
    family = str(getattr(home.config, "model_type", type(home).__name__))
    names = ", ".join((*targets.names, *targets.stacks))
    if spec.targets:
        why = "named in the recipe, or adapted in the adapter that is trained further"
    elif spec.kind == "ia3":
        why = "keys, values and the feed-forward part, as in the paper"
    else:
        why = "every linear layer of every block: on attention only it learns less (2305.14314)"
    return f"{count} layers of {family} ({names}): {why}"


def _prompt(home: PreTrainedModel, spec: AdapterSpec, task: str | None, seed: int) -> Any:
    from peft import PromptTuningConfig

    assert spec.rank is not None
    if task is None or home.config.is_encoder_decoder:
        rule = "does not support prompt tuning here"
        raise ModelError(type(home).__name__, rule, spec.kind, "Use --set model.adapter.kind=lora.")
    vectors = add_prompt(home, spec.rank, seed)
    return PromptTuningConfig(
        task_type=task,
        num_virtual_tokens=spec.rank,
        token_dim=vectors.embedding_dim,
        num_transformer_submodules=1,
        num_layers=home.config.num_hidden_layers,
        num_attention_heads=home.config.num_attention_heads,
    )


def add_prompt(module: nn.Module, count: int, seed: int) -> nn.Embedding:
    """Make ``module`` read ``count`` learned vectors before every text, as PEFT does (Lester and
    others 2021, 2104.08691).

    They start as the embeddings of randomly drawn words, which the paper found better than noise.
    The output includes the vectors' positions: ``hidden`` states [B, count + T, H]; logits of every
    token are cut back to [B, T, V].
    """
    words: nn.Embedding = module.get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(derive_seed(seed, "adapter"))
    word_ids = torch.randint(0, words.num_embeddings, (count,), generator=generator)
    make: Any = nn.utils.skip_init
    # Without drawing: the global generator stays as it is.
    vectors: nn.Embedding = make(nn.Embedding, count, words.embedding_dim)
    with torch.no_grad():
        vectors.weight.copy_(words.weight[word_ids])
    module.add_module(PROMPT, vectors)
    module.register_forward_pre_hook(_prepend_prompt, with_kwargs=True)
    module.register_forward_hook(_cut_logits)
    return vectors


def extend_mask(mask: Tensor, count: int) -> Tensor:
    """A mask [B, T] with ``count`` real positions before it."""
    return torch.cat([mask.new_ones(len(mask), count), mask], dim=1)


def _prepend_prompt(
    module: PreTrainedModel, args: tuple[object, ...], kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    if kwargs.get("input_ids") is None:
        return args, kwargs
    ids = kwargs["input_ids"]
    vectors = getattr(module, PROMPT).weight
    mask = kwargs.get("attention_mask")
    # A prompt that is only now put before the text needs a mask over its places.
    if mask is not None or not _cached_tokens(kwargs):
        kwargs["attention_mask"] = extend_mask(
            torch.ones_like(ids) if mask is None else mask, len(vectors)
        )
    # Places are counted again, the vectors' among them, as PEFT does.
    kwargs.pop("position_ids", None)
    kwargs.pop("cache_position", None)
    if _cached_tokens(kwargs):
        return args, kwargs
    texts = module.get_input_embeddings()(kwargs.pop("input_ids"))
    kwargs["inputs_embeds"] = torch.cat(
        [vectors.to(texts.dtype).expand(len(ids), -1, -1), texts], dim=1
    )
    types = kwargs.get("token_type_ids")
    if types is not None:
        kwargs["token_type_ids"] = torch.cat(
            [types.new_zeros(len(types), len(vectors)), types], dim=1
        )
    return args, kwargs


def _cached_tokens(kwargs: dict[str, Any]) -> int:
    """Positions in the generation cache, which includes the vectors by then."""
    cache = kwargs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0


def _cut_logits(module: nn.Module, args: tuple[object, ...], output: Any) -> None:
    """Only a decoder's logits cover the positions of the vectors."""
    logits = getattr(output, "logits", None)
    count = getattr(module, PROMPT).num_embeddings
    if logits is not None and logits.ndim == 3 and logits.shape[1] > count:
        output.logits = logits[:, count:]


def has_adapter_layers(plain: nn.Module) -> bool:
    """Whether the model holds PEFT layers, which can be switched off. A model with a merged adapter
    holds none."""
    return any(True for _ in layers_with_adapter(plain))


def below_prompt(plain: Any) -> Any | None:
    """The model behind a soft prompt; ``None`` if there is no such prompt."""
    learnt = getattr(plain, "active_peft_config", None)
    return plain.get_base_model() if learnt and learnt.is_prompt_learning else None


@contextlib.contextmanager
def adapter_off(plain: nn.Module) -> Iterator[None]:
    """Switch the adapter's layers off inside the block."""
    layers = [layer for _, layer in layers_with_adapter(plain)]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
