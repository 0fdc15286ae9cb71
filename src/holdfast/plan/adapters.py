"""The recipe's adapter, as the model's loader takes it, and how it changes the defaults."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TypeVar

from holdfast.core.decisions import decisions_in, record_decisions
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS
from holdfast.models.adapters.adapter import attach
from holdfast.models.adapters.quantize import SETTING, QuantizeSpec
from holdfast.models.adapters.save import load_weights, saved_settings
from holdfast.models.base import AdapterSpec, LoadedModel, Network
from holdfast.models.layers import count_parameters
from holdfast.models.loading.adapter_folder import adapter_folder
from holdfast.models.loading.options import LoadOptions
from holdfast.recipe import Recipe

# Learning rates, as multiples of that of full fine-tuning. LoRA's best rate is about ten times that
# of full fine-tuning, for any model (thinkingmachines.ai, "LoRA without regret", 2025). LoRA+ has
# its own higher rate for half of the weights (2402.12354). IA³ and prompts have few weights and
# learn at 3e-3 (2205.05638) and more (2104.08691).
RATE_FACTORS = {
    "lora": 10.0,
    "rslora": 10.0,
    "dora": 10.0,
    "lora+": 3.0,
    "ia3": 50.0,
    "prompt": 100.0,
}
ADAPTER = "model.adapter.kind"
# Language models of at least so many parameters have LoRA by default.
LORA_PARAMETERS = 100_000_000
# The loaders of these tasks support quantised weights.
QUANTIZABLE_TASKS = tuple(sorted(GENERATIVE_TASKS))
# Adapters that neither change nor read pretrained weights.
HALF_PRECISION_ADAPTERS = ("lora", "rslora", "lora+")

L = TypeVar("L", bound=LoadedModel)


def adapter_spec(recipe: Recipe) -> AdapterSpec | None:
    """The adapter that the loader adds; ``None`` where the recipe has none."""
    part = recipe.model.adapter
    return AdapterSpec(**part.model_dump()) if part.method else None


def resolve_adapter(recipe: Recipe) -> Recipe:
    """The recipe with the adapter of ``model.name``, where that is a folder with one to train
    further.

    Raises ``RecipeError`` where the recipe states another adapter, and ``ModelError`` for a kind
    that Holdfast does not train further.
    """
    folder = adapter_folder(recipe.model.name)
    if folder is None:
        return recipe
    stated, changes = recipe.model.adapter, {}
    for name, saved in saved_settings(folder).items():
        wanted = getattr(stated, name)
        if wanted is not None and wanted != saved:
            rule = f"is {saved} in the adapter {recipe.model.name}, which is trained further"
            remedy = "Leave it out, or merge the adapter first: holdfast export RUN --to merged."
            raise RecipeError(f"model.adapter.{name}", rule, wanted, remedy)
        changes[name] = saved
    return recipe.with_changes(model={"adapter": {**stated.model_dump(), **changes}})


def default_adapter(loaded: L, recipe: Recipe) -> tuple[L, Recipe]:
    """The recipe with LoRA where it leaves the adapter open and the loaded model is a language
    model of at least ``LORA_PARAMETERS``, and the model with that decision."""
    total, _ = count_parameters(loaded.network)
    chosen = recipe.model.adapter.kind is not None or recipe.model.freeze is not None
    if recipe.task not in DECODER_TASKS or chosen or total < LORA_PARAMETERS:
        return loaded, recipe
    size = f"the default for a language model of {total:,} parameters"
    if find_spec("peft") is None:
        because = (
            f"lora is {size}, but PEFT is not installed, so all weights are trained; to use LoRA: "
            "pip install 'holdfast[lora]'"
        )
        decision = Decision(ADAPTER, "none", because, prominent=True)
    else:
        because = f"{size}; to train all of them: --set {ADAPTER}=none"
        decision = Decision(ADAPTER, "lora", because)
        recipe = recipe.with_changes(model={"adapter": {"kind": "lora"}})
    return replace(loaded, decisions=(*loaded.decisions, decision)), recipe


def resolve_quantize(recipe: Recipe) -> Recipe:
    """The recipe with the open settings of ``model.quantize`` filled in.

    Raises ``RecipeError`` where the task does not support it, or where no weights would be trained.
    """
    model = recipe.model
    for key in ("quant_type", "double_quant"):
        if getattr(model, key) is not None and model.quantize != "4bit":
            rule = f"only applies to 4 bits, but {SETTING} is {model.quantize}"
            remedy = f"Remove it, or add --set {SETTING}=4bit."
            raise RecipeError(f"model.{key}", rule, getattr(model, key), remedy)
    if model.quantize == "none":
        return recipe
    if recipe.task not in QUANTIZABLE_TASKS:
        remedy = f"Remove it; it is supported for {' and '.join(QUANTIZABLE_TASKS)}."
        raise RecipeError(SETTING, f"is not supported for {recipe.task}", model.quantize, remedy)
    if model.adapter.method is None:
        rule = "freezes the quantised weights, so without an adapter nothing would be trained"
        remedy = "Add --set model.adapter.kind=lora, or remove model.quantize."
        raise RecipeError(SETTING, rule, model.quantize, remedy)
    if model.quantize == "8bit":
        return recipe
    double = model.double_quant is not False
    return recipe.with_changes(
        model={"quant_type": model.quant_type or "nf4", "double_quant": double}
    )


def resolve_dtype(recipe: Recipe) -> Recipe:
    """The recipe with the training precision that fits weights stored in ``model.dtype``.

    Raises ``RecipeError`` where the task does not support it, where these weights would be trained,
    or where another setting contradicts it.
    """
    model, precision = recipe.model, recipe.train.precision
    if model.dtype == "float32":
        return recipe
    fault = None
    if recipe.task not in QUANTIZABLE_TASKS:
        fault = (
            f"is not supported for {recipe.task}",
            f"It is supported for {' and '.join(QUANTIZABLE_TASKS)}.",
        )
    elif model.adapter.method not in HALF_PRECISION_ADAPTERS:
        rule = "only works on frozen weights: at this precision small updates are lost"
        fault = (
            rule,
            f"Add --set model.adapter.kind={HALF_PRECISION_ADAPTERS[0]}, or remove model.dtype.",
        )
    elif model.quantize != "none":
        fault = f"contradicts {SETTING}={model.quantize}", "Remove one of the two settings."
    elif precision not in ("auto", "bfloat16"):
        fault = f"contradicts train.precision={precision}", "Remove train.precision."
    if fault is not None:
        raise RecipeError("model.dtype", fault[0], model.dtype, fault[1])
    return recipe.with_changes(train={"precision": "bfloat16"})


def quantize_spec(recipe: Recipe) -> QuantizeSpec | None:
    """The quantization for the loader; ``None`` where nothing is quantised."""
    model = recipe.model
    if model.quantize == "none":
        return None
    if model.quantize == "8bit":
        return QuantizeSpec(8)
    return QuantizeSpec(4, model.quant_type or "nf4", model.double_quant is not False)


def load_options(recipe: Recipe) -> LoadOptions:
    """The options for every loader."""
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
    """The loaded model with the recipe's adapter in its network, added if it is missing."""
    spec = adapter_spec(recipe)
    if spec is None or loaded.network.adapter is not None:
        return loaded
    facts, folder = loaded.facts, adapter_folder(recipe.model.name)
    with record_decisions() as log:
        attach(
            loaded.network, spec, base=facts["name"], commit=facts.get("commit"), seed=recipe.seed
        )
        if folder is not None:
            load_weights(loaded.network, folder)
    loaded.network.eval()
    return replace(loaded, decisions=(*loaded.decisions, *decisions_in(log)))


def adapter_settings(network: Network) -> dict[str, Any]:
    """The adapter's settings with every default filled in, for the recipe that repeats the run."""
    adapter = network.adapter
    if adapter is None:
        return {}
    names = ("kind", "rank", "alpha", "dropout", "targets", "merge", "rate_ratio")
    return {"adapter": {name: getattr(adapter.spec, name) for name in names}}


def rate_factor(recipe: Recipe) -> float:
    """The learning rate of this recipe's weights as a multiple of that of full fine-tuning."""
    adapter_kind = recipe.model.adapter.method
    return RATE_FACTORS[adapter_kind] if adapter_kind else 1.0
