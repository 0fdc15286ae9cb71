"""Saving an adapter as a plain PEFT folder or as merged weights; loading such a folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from holdfast.core.discovery import user_path
from holdfast.core.errors import ModelError
from holdfast.core.files import disk_errors
from holdfast.core.input_errors import first_line, reading_errors
from holdfast.core.packaged_models import PACKAGED_MODELS
from holdfast.models.adapters.adapter import PROMPT, layers_with_adapter
from holdfast.models.adapters.quantize import (
    config_of,
    keep_fitting_kernels,
    load_settings,
    plain_layer,
    plain_tensors,
    quantized_layers,
    remove_quantization,
)
from holdfast.models.base import Adapter, Network
from holdfast.models.loading.adapter_folder import (
    ADAPTER_CONFIG,
    ADAPTER_FACTS,
    ADAPTER_WEIGHTS,
    adapter_base,
    is_adapter_folder,
    read_config,
    read_facts,
)
from holdfast.models.loading.packaged import packaged_folder
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.models.loading.source import plain_folder
from holdfast.models.loading.weights import check_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from holdfast.models.base import ModelFactory, Preprocessor

# What a LoRA adapter may have in PEFT that is not made alike here.
UNSUPPORTED = (
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
    "layers_to_transform",
    "layer_replication",
    "alora_invocation_tokens",
    "lora_bias",
    "megatron_config",
)
PLAIN_STARTS = ("gaussian", "orthogonal")
MOST = 1_000_000
PLAIN, PROMPTED = "base_model.model.", "base_model."


def save_adapter(
    adapter: Adapter,
    folder: Path,
    tokenizer: Preprocessor,
    *,
    prefix: str = "",
    extra: Mapping[str, Tensor] | None = None,
    modules: Sequence[str] = (),
    classes: Sequence[str] | None = None,
) -> None:
    """Write ``adapter_config.json``, ``adapter_model.safetensors`` and the tokenizer.

    ``prefix`` is where the adapter's home stands in the plain model; ``extra`` are whole tensors
    saved beside the adapter, under the plain model's names, that belong to its ``modules``;
    ``classes`` go into a small file of our own, since PEFT has no place for them, and so does how
    the model is to be quantised.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    home, path = adapter.home, user_path(adapter.base)
    config: Any = copy.deepcopy(adapter.config)
    # What PEFT loads the pretrained model by: a folder, or a name on the hub.
    if adapter.base in PACKAGED_MODELS:
        config.base_model_name_or_path = str(packaged_folder(adapter.base))
    else:
        config.base_model_name_or_path = str(path.resolve()) if path.is_dir() else adapter.base
    config.revision = adapter.commit
    config.modules_to_save = list(modules) or None
    config.inference_mode = True
    # PEFT puts a prompt around the plain model itself, other adapters around a tuner's model.
    if adapter.spec.kind == "prompt":
        prefix_of_names, tensors_by_name = (
            PROMPTED,
            {"prompt_embeddings": getattr(home, PROMPT).weight},
        )
    else:
        prefix_of_names, state = PLAIN, get_peft_model_state_dict(home, save_embedding_layers=False)
        tensors_by_name = {f"{PLAIN}{prefix}{name}": value for name, value in state.items()}
    tensors_by_name |= {prefix_of_names + name: value for name, value in (extra or {}).items()}
    tensors = {name: plain_tensor(value) for name, value in tensors_by_name.items()}
    facts = {
        "model": adapter.base,
        "classes": list(classes) if classes else None,
        "quantization": config_of(home.config),
    }
    if getattr(home, "dtype", None) == torch.bfloat16:
        facts["dtype"] = "bfloat16"
    with disk_errors(folder), quiet_transformers():
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        tokenizer.save_pretrained(folder)
        (folder / ADAPTER_FACTS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def save_model(
    plain: PreTrainedModel, adapter: Adapter | None, folder: Path, tokenizer: Preprocessor
) -> None:
    """Write a complete plain model as its adapter asks: a plain PEFT folder, or a plain model with
    the adapter, if any, merged in."""
    if adapter is not None and not adapter.spec.merge:
        save_adapter(adapter, folder, tokenizer)
        return
    with disk_errors(folder), quiet_transformers():
        folder.mkdir(parents=True, exist_ok=True)
        model = plain
        if adapter is not None:
            # On the meta device, so that no weights are drawn.
            with torch.device("meta"):
                model = type(plain)(remove_quantization(copy.deepcopy(plain.config)))
            model.load_state_dict(merged_state(plain), strict=False, assign=True)
            model.tie_weights()
            model.generation_config = plain.generation_config
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def merged_state(home: nn.Module) -> dict[str, Tensor]:
    """The weights of the pretrained model with the adapter merged in, under their plain names, in
    float32 in main memory; ``home`` is not changed. Quantised weights are dequantised, merged and
    not quantised again."""
    packed = dict(quantized_layers(home))
    inside = tuple(f"{name}." for name in packed)
    state = {n: plain_tensor(v) for n, v in home.state_dict().items() if not n.startswith(inside)}
    done: list[str] = []
    for name, layer in layers_with_adapter(home):
        # Experts lie in one another: a layer for each of their weights, around the same module.
        if any(name.startswith(f"{outer}.") for outer in done):
            continue
        done.append(name)
        state = {n: v for n, v in state.items() if not n.startswith(f"{name}.")}
        base = packed.pop(f"{name}.base_layer", None)
        layer_copy = (
            copy.deepcopy(layer).cpu().float()
            if base is None
            else _dequantized_layer(home, layer, base)
        )
        for _, inner in layers_with_adapter(layer_copy):
            # In a copy first, and refused where the sum is no finite number.
            inner.merge(safe_merge=True)
        merged = layer_copy.get_base_layer()
        tensors = merged.state_dict() if base is None else plain_tensors(base, merged)
        state |= {f"{name}.{part}": plain_tensor(value) for part, value in tensors.items()}
    for name, layer in packed.items():
        tensors = plain_tensors(layer, plain_layer(layer))
        state |= {f"{name}.{part}": plain_tensor(value) for part, value in tensors.items()}
    return state


def _dequantized_layer(home: Any, layer: Any, base: nn.Module) -> Any:
    """PEFT's adapted ``layer`` around a plain copy of its quantised ``base``: PEFT's own merge of a
    quantised layer would round again."""
    from peft import inject_adapter_in_model

    config = copy.deepcopy(home.peft_config["default"])
    config.target_modules, config.fan_in_fan_out = ["layer"], False
    if hasattr(config, "feedforward_modules"):
        config.feedforward_modules = ["layer"] if layer.is_feedforward else []
    holder = nn.ModuleDict({"layer": plain_layer(base)})
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, holder)
    plain_adapted: Any = holder["layer"]
    adapter_state = {n: v for n, v in layer.state_dict().items() if not n.startswith("base_layer.")}
    plain_adapted.load_state_dict(adapter_state, strict=False)
    return plain_adapted


def merges(network: Network) -> bool:
    """Whether the network is saved as a plain model: it has no adapter, or merges it."""
    return network.adapter is None or network.adapter.spec.merge


def load_adapted(folder: Path, make: ModelFactory, **settings: object) -> Any:
    """The pretrained model from ``make.from_pretrained`` with the adapter of ``folder``, through
    plain PEFT, in evaluation mode; in float32, or quantised as in training.

    Raises
    ------
    ModelError : the pretrained model is missing, or the folder cannot be read.
    MachineError : it is quantised, and this machine does not support that.
    """
    facts = read_facts(folder)
    settings |= load_settings(facts.get("quantization"))
    try:
        with quiet_transformers():
            from peft import PeftConfig, PeftModel

            config = PeftConfig.from_pretrained(str(folder))
            base = plain_folder(adapter_base(folder).name, config.revision)
            model = make.from_pretrained(
                base,
                dtype=getattr(torch, facts.get("dtype", "float32")),
                trust_remote_code=False,
                **settings,
            )
            keep_fitting_kernels(model)
            adapted: Any = PeftModel.from_pretrained(model, str(folder)).eval()
    except Exception as error:
        rule = "holds an adapter that cannot be put on its model"
        remedy = "The model that it was trained on must be where adapter_config.json says."
        raise ModelError(str(folder), rule, first_line(error), remedy) from error
    check_adapter(folder, folder / ADAPTER_WEIGHTS, adapted)
    return adapted


def base_folder(folder: Path) -> Path | None:
    """The folder of an adapter's pretrained model; ``None`` if the saved ``folder`` is a complete
    model, or if its base is a hub model, which its commit identifies."""
    if not is_adapter_folder(folder):
        return None
    name = adapter_base(folder).name
    base = packaged_folder(name) if name in PACKAGED_MODELS else Path(name)
    return base if base.is_dir() else None


def saved_settings(folder: Path) -> dict[str, Any]:
    """The settings of ``model.adapter`` that make an adapter like the saved one: ``kind``,
    ``rank``, ``alpha``, and as ``targets`` the names of the adapted layers.

    Raises ``ModelError`` for a kind other than ``lora``, ``rslora`` and ``dora``.
    """
    from safetensors import safe_open

    config, weights = read_config(folder), folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        raise ModelError(str(weights), "is not a file", None, "Use a complete copy.")
    with (
        reading_errors(str(weights), ModelError, remedy="Use a complete copy."),
        safe_open(weights, "pt") as file,
    ):
        names = list(file.keys())
    other = [key for key in UNSUPPORTED if config.get(key)]
    # Such a beginning changes the pretrained weights too, which only PEFT knows.
    start = config.get("init_lora_weights")
    other += ["init_lora_weights"] if isinstance(start, str) and start not in PLAIN_STARTS else []
    other += ["use_dora, use_rslora"] if config.get("use_dora") and config.get("use_rslora") else []
    if config.get("peft_type") != "LORA" or other:
        raise ModelError(
            str(folder),
            "holds an adapter of a kind that Holdfast does not train further",
            ", ".join(other) or config.get("peft_type"),
            "Merge it into its model first: holdfast export RUN --to merged.",
        )
    layers = {name.partition(".lora_")[0].rpartition(".")[2] for name in names if ".lora_" in name}
    numbers = {key: config.get(key) for key in ("r", "lora_alpha")}
    for key, value in numbers.items():
        if not isinstance(value, (int, float)) or not 0 < value < MOST:
            rule = f"has no {key} that is a number above 0"
            raise ModelError(str(folder / ADAPTER_CONFIG), rule, value, "Use a complete copy.")
    kind = "dora" if config.get("use_dora") else "rslora" if config.get("use_rslora") else "lora"
    return {
        "kind": kind,
        "rank": int(config["r"]),
        "alpha": float(config["lora_alpha"]),
        "targets": tuple(sorted(layers)),
    }


def load_weights(network: Network, folder: Path) -> None:
    """Put the saved weights of the adapter in ``folder`` into the network's, which was made alike.

    Raises ``ModelError`` where they do not fit.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    assert network.adapter is not None
    home = network.adapter.home
    with reading_errors(str(folder / ADAPTER_WEIGHTS), ModelError, remedy="Use a complete copy."):
        found = {n.removeprefix(PLAIN): v for n, v in load_file(folder / ADAPTER_WEIGHTS).items()}
    wanted = get_peft_model_state_dict(home, save_embedding_layers=False)
    differing = sorted(
        name
        for name in {**found, **wanted}
        if name not in found or name not in wanted or found[name].shape != wanted[name].shape
    )
    if differing:
        raise ModelError(
            str(folder),
            "holds an adapter that Holdfast cannot train further: its weights are not those that "
            "its adapter_config.json describes",
            differing[0],
            "Merge it into its model with PEFT's merge_and_unload, and name the merged folder.",
        )
    broken = [n for n, v in found.items() if not v.is_floating_point() or not v.isfinite().all()]
    if broken:
        rule = "holds a weight that is no finite number"
        raise ModelError(str(folder), rule, broken[0], "Use another checkpoint of it.")
    set_peft_model_state_dict(home, found)


def plain_tensor(value: Tensor) -> Tensor:
    """A float32 copy in main memory."""
    return value.detach().to("cpu", torch.float32, copy=True).contiguous()
