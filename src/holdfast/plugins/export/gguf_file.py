"""A Llama-like language model → one GGUF file, as llama.cpp and Ollama read it: weights in float32,
the tokenizer and its chat template inside.

Names and layout are those of llama.cpp's own converter: in the ``llama`` architecture the rows of
query and key of each head are put from halves into pairs, since it rotates pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import door
from holdfast.core.records import Floats
from holdfast.plugins.export.gguf_words import GgufTokenizer, words_of


@dataclass(frozen=True, slots=True)
class GgufArchitecture:
    """An architecture as GGUF names it; ``pairs`` whether query and key are put into pairs."""

    name: str
    pairs: bool


DECODERS = {
    "llama": GgufArchitecture("llama", True),
    "mistral": GgufArchitecture("llama", True),
    "qwen2": GgufArchitecture("qwen2", False),
    "qwen3": GgufArchitecture("qwen3", False),
}


def check_decoder(config: Any) -> GgufArchitecture:
    """How GGUF has the architecture. Raises ``ModelError`` for one that is no such decoder, or that
    has parts which are not written here."""
    kind = str(config.model_type)
    if kind not in DECODERS:
        raise ModelError(
            "the model's architecture",
            "cannot be written as GGUF here",
            kind,
            f"There are: {', '.join(DECODERS)}. llama.cpp's own converter knows more: "
            "convert_hf_to_gguf.py RUN/model.",
        )
    rope = dict(getattr(config, "rope_parameters", None) or {})
    odd = {
        "rope_type": rope.get("rope_type", "default") not in ("default", None),
        "sliding_window": bool(getattr(config, "sliding_window", None))
        and getattr(config, "use_sliding_window", kind == "mistral"),
        "hidden_act": config.hidden_act not in ("silu", "swish"),
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
    }
    for name, found in odd.items():
        if found:
            value = rope.get(name) if name == "rope_type" else getattr(config, name)
            raise ModelError(
                f"the model's {name}",
                f"cannot be written as GGUF here for a {kind}",
                value,
                "Use llama.cpp's own converter: convert_hf_to_gguf.py RUN/model.",
            )
    return DECODERS[kind]


def write_gguf(model: Any, tokenizer: Any, path: Path, name: str) -> GgufTokenizer:
    """Write a plain causal language model (no adapter beside it) and its tokenizer; what was made
    of the tokenizer. Raises ``ModelError`` where either cannot be written."""
    import gguf

    config = model.config
    decoder = check_decoder(config)
    words = words_of(tokenizer, int(config.vocab_size))
    with door("the model", ModelError, "cannot be written as GGUF"):
        writer = gguf.GGUFWriter(str(path), decoder.name)
        _describe(writer, config, name)
        words.write(writer)
        names = gguf.get_tensor_name_map(_architecture(decoder.name), config.num_hidden_layers)
        for key, value in _tensors(model, decoder):
            found = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if found is None:
                raise ModelError(
                    "the model", "has a weight that GGUF has no name for", key, "Use another."
                )
            writer.add_tensor(found, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return words


def _architecture(name: str) -> Any:
    import gguf

    return next(one for one, called in gguf.MODEL_ARCH_NAMES.items() if called == name)


def _describe(writer: Any, config: Any, name: str) -> None:
    import gguf

    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    rope = dict(getattr(config, "rope_parameters", None) or {})
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(int(config.max_position_embeddings))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_feed_forward_length(int(config.intermediate_size))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(getattr(config, "num_key_value_heads", None) or heads))
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_vocab_size(int(config.vocab_size))


def _tensors(model: Any, decoder: GgufArchitecture) -> Iterator[tuple[str, Floats]]:
    """Each weight once, float32: a tied output layer is left out, which says that it is tied."""
    config = model.config
    heads = int(config.num_attention_heads)
    few = int(getattr(config, "num_key_value_heads", None) or heads)
    tied = bool(config.tie_word_embeddings)
    for key, value in model.state_dict().items():
        if key.endswith("rotary_emb.inv_freq") or (tied and key == "lm_head.weight"):
            continue
        array = value.detach().to("cpu", torch.float32).numpy()
        if decoder.pairs and ".q_proj." in key:
            array = paired(array, heads)
        elif decoder.pairs and ".k_proj." in key:
            array = paired(array, few)
        yield key, np.ascontiguousarray(array)


def paired(rows: Floats, heads: int) -> Floats:
    """Rows [heads · width, …] of query or key, in each head from (x₀ … x_h, y₀ … y_h), which are
    rotated with one another, to (x₀, y₀, x₁, y₁, …)."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
