"""The recipe's adapter, as the model's loader takes it, and what it changes in the defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.models.adapters.adapter import attach
from holdfast.models.adapters.quantize import SETTING, QuantizeSpec
from holdfast.models.base import AdapterSpec, LoadedModel, Network, decisions_in
from holdfast.models.loading.options import LoadOptions
from holdfast.recipe import Recipe

# Times the rate of a full fine-tune. LoRA's best rate is about ten times that of a full
# fine-tune, whatever the model (thinkingmachines.ai, "LoRA without regret", 2025); LoRA+ has its
# own higher rate for half of the weights (2402.12354); IA³ and prompts have few weights and learn
# at 3e-3 (2205.05638) and more (2104.08691).
RATE_FACTORS = {
    "lora": 10.0,
    "rslora": 10.0,
    "dora": 10.0,
    "lora+": 3.0,
    "ia3": 50.0,
    "prompt": 100.0,
}
# The loaders of these tasks hold pretrained weights in fewer bits.
QUANTIZABLE_TASKS = tuple(sorted(GENERATIVE_TASKS))
# Adapters that leave pretrained weights as they are and read nothing off them.
HALF_PRECISION_ADAPTERS = ("lora", "rslora", "lora+")

L = TypeVar("L", bound=LoadedModel)


def adapter_spec(recipe: Recipe) -> AdapterSpec | None:
    """What the loader is asked for; ``None`` where the recipe has no adapter."""
    part = recipe.model.adapter
    return AdapterSpec(**part.model_dump()) if part.kind else None


def resolve_quantize(recipe: Recipe) -> Recipe:
    """The recipe with the open settings of ``model.quantize`` filled in.

    Raises ``RecipeError`` where the task cannot be trained so, or where nothing would learn.
    """
    model = recipe.model
    for key in ("quant_type", "double_quant"):
        if getattr(model, key) is not None and model.quantize != "4bit":
            raise RecipeError(
                f"model.{key}",
                f"is a setting of 4 bits, and {SETTING} is {model.quantize}",
                getattr(model, key),
                f"Leave it out, or add --set {SETTING}=4bit.",
            )
    if model.quantize == "none":
        return recipe
    if recipe.task not in QUANTIZABLE_TASKS:
        raise RecipeError(
            SETTING,
            f"is not built for {recipe.task}",
            model.quantize,
            f"Leave it out; it is there for {' and '.join(QUANTIZABLE_TASKS)}.",
        )
    if model.adapter.kind is None:
        raise RecipeError(
            SETTING,
            "freezes the weights that it quantises, and no adapter learns in their place",
            model.quantize,
            "Add --set model.adapter.kind=lora, or leave model.quantize out.",
        )
    if model.quantize == "8bit":
        return recipe
    double = model.double_quant is not False
    return recipe.with_changes(
        model={"quant_type": model.quant_type or "nf4", "double_quant": double}
    )


def resolve_dtype(recipe: Recipe) -> Recipe:
    """The recipe with the precision that weights held in ``model.dtype`` are multiplied in.

    Raises ``RecipeError`` where the task cannot be trained so, where they would learn, or where
    another setting says otherwise.
    """
    model, precision = recipe.model, recipe.train.precision
    if model.dtype == "float32":
        return recipe
    fault = None
    if recipe.task not in QUANTIZABLE_TASKS:
        fault = (
            f"is not built for {recipe.task}",
            f"It is there for {' and '.join(QUANTIZABLE_TASKS)}.",
        )
    elif model.adapter.kind not in HALF_PRECISION_ADAPTERS:
        rule = "is of weights that stay as they are: in so few digits small updates are lost"
        fault = (
            rule,
            f"Add --set model.adapter.kind={HALF_PRECISION_ADAPTERS[0]}, or leave model.dtype out.",
        )
    elif model.quantize != "none":
        fault = f"contradicts {SETTING}={model.quantize}", "Leave one of the two out."
    elif precision not in ("auto", "bfloat16"):
        fault = f"contradicts train.precision={precision}", "Leave train.precision out."
    if fault is not None:
        raise RecipeError("model.dtype", fault[0], model.dtype, fault[1])
    return recipe.with_changes(train={"precision": "bfloat16"})


def quantize_spec(recipe: Recipe) -> QuantizeSpec | None:
    """What the loader is asked for; ``None`` where nothing is quantised."""
    model = recipe.model
    if model.quantize == "none":
        return None
    if model.quantize == "8bit":
        return QuantizeSpec(8)
    return QuantizeSpec(4, model.quant_type or "nf4", model.double_quant is not False)


def load_options(recipe: Recipe) -> LoadOptions:
    """What every loader is asked."""
    model = recipe.model
    return LoadOptions(
        model.revision,
        model.trust_remote_code,
        model.max_length,
        model.dropout,
        recipe.seed,
        adapter_spec(recipe),
        quantize_spec(recipe),
        model.dtype,
    )


def with_adapter(loaded: L, recipe: Recipe) -> L:
    """What a loader gave, with the recipe's adapter in its network if it is not there yet."""
    spec = adapter_spec(recipe)
    if spec is None or loaded.network.adapter is not None:
        return loaded
    facts = loaded.facts
    with record_decisions() as log:
        attach(
            loaded.network, spec, base=facts["name"], commit=facts.get("commit"), seed=recipe.seed
        )
    loaded.network.eval()
    return replace(loaded, decisions=(*loaded.decisions, *decisions_in(log)))


def adapter_settings(network: Network) -> dict[str, Any]:
    """The adapter's settings with nothing left open, for the recipe that repeats the run."""
    adapter = network.adapter
    if adapter is None:
        return {}
    names = ("kind", "rank", "alpha", "dropout", "targets", "merge", "rate_ratio")
    return {"adapter": {name: getattr(adapter.spec, name) for name in names}}


def rate_factor(recipe: Recipe) -> float:
    """How many times the rate of a full fine-tune this recipe's weights learn at."""
    adapter_kind = recipe.model.adapter.kind
    return RATE_FACTORS[adapter_kind] if adapter_kind else 1.0
