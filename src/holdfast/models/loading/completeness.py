"""Whether what was loaded is what its folder holds.

Transformers and PEFT draw a weight at random where a file lacks it, leave one out where the
configuration has no place for it, and make an empty tokenizer where its file is gone. Each is told
in a log line at most, and each gives other answers. Here they are errors.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import nn

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from holdfast.models.base import ModelFactory

# They are counted or computed, not learned, and a plain folder may lack them.
COMPUTED = (
    "num_batches_tracked",
    "relative_position_index",
    "relative_coords_table",
    "position_ids",
)
# What to do about a folder that is not one of a run.
SAVED = "Name the model folder of a finished run."
WEIGHTS = "Its config.json does not describe its weights file; use a complete copy."


class LoadingInfo(TypedDict):
    """What Transformers says of the weights that it loaded, by name; of mismatched ones their
    shapes too."""

    missing_keys: Collection[str]
    unexpected_keys: Collection[str]
    mismatched_keys: Collection[tuple[str, *tuple[object, ...]]]


def check_saved(folder: Path, model: nn.Module, info: LoadingInfo) -> None:
    """Raise ``ModelError`` unless the weights in a saved ``folder`` are exactly those of ``model``.

    ``info`` is what Transformers' ``output_loading_info`` gives. Of a folder that somebody brings
    as a pretrained model less is asked: it may lack a head, and have one that is not used.
    """
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    absent = _learned([*info["missing_keys"], *mismatched])
    if absent:
        raise ModelError(
            str(folder),
            f"lacks {len(absent)} of the weights that its config.json asks for",
            absent[0],
            WEIGHTS,
        )
    unused = _learned(info["unexpected_keys"])
    if unused:
        raise ModelError(
            str(folder),
            f"holds {len(unused)} weights that its config.json has no place for",
            unused[0],
            WEIGHTS,
        )
    check_finite(str(folder), model)


def read_saved(make: ModelFactory, folder: Path) -> Any:
    """What ``make.from_pretrained`` gives for a saved folder, without remote code, from safetensors
    and in float32, where it is whole. Raises ``ModelError`` where it is not, and whatever
    Transformers raises where the folder cannot be read at all."""
    model, info = make.from_pretrained(
        folder,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    check_saved(folder, model, info)
    return model


def check_finite(what: str, model: nn.Module) -> None:
    """Raise ``ModelError`` where a weight is not a finite number.

    A sum is the quickest look at a tensor: it is finite only where every weight is, and where it
    is not (it may overflow), each weight is looked at.
    """
    for name, weight in model.state_dict().items():
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            continue
        if weight.is_meta or torch.isfinite(weight.sum()):
            continue
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise ModelError(
                what,
                f"has weights that are no finite numbers: {bad:,} of {weight.numel():,} in {name}",
                None,
                "Its training diverged, or the file is damaged; use another.",
            )


def check_tokenizer(
    what: str, tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig
) -> None:
    """Raise ``ModelError`` where a tokenizer knows no words, or more than the model has embeddings
    for. Fewer are usual: tables are padded to round sizes."""
    vocabulary = tokenizer.get_vocab()
    special = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    if not set(vocabulary) - special:
        raise ModelError(
            what,
            "has a tokenizer that knows no words",
            len(vocabulary),
            "A file of the tokenizer is missing or empty; use a complete copy.",
        )
    size = getattr(config.get_text_config(), "vocab_size", None)
    highest = max(vocabulary.values())
    if isinstance(size, int) and highest >= size:
        raise ModelError(
            what,
            f"has {size} word embeddings, and its tokenizer gives a token the number {highest}",
            None,
            "The tokenizer belongs to another model.",
        )


def check_adapter(folder: Path, weights: Path, model: PeftModel) -> None:
    """Raise ``ModelError`` unless the file of an adapter holds exactly what PEFT put onto
    ``model``."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with (
        door(str(weights), ModelError, remedy="Use a complete copy."),
        safe_open(weights, framework="pt") as file,
    ):
        stored = set(file.keys())
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    for rule, names in (("lacks", wanted - stored), ("holds", stored - wanted)):
        if names:
            tail = " that its adapter_config.json " + (
                "asks for" if rule == "lacks" else "has no place for"
            )
            raise ModelError(
                str(folder),
                f"{rule} {len(names)} weights of an adapter{tail}",
                min(names),
                "Use a complete copy.",
            )
    check_finite(str(folder), model)


def _learned(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if not name.endswith(COMPUTED))
