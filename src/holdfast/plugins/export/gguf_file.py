"""Llama-like language models as one GGUF file for llama.cpp and Ollama: weights in float32 or
Q8_0, the tokenizer and its chat template inside.

Names and layout are those of llama.cpp's own converter: in the ``llama`` architecture the rows of
query and key of each head are reordered from halves into pairs, since it rotates pairs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast.core.errors import ModelError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Floats

# gguf.TokenType, llama.cpp's numbering.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
OTHER_CONVERTER = (
    "llama.cpp's own converter supports more tokenizers: convert_hf_to_gguf.py RUN/model."
)
# Numbers in a block of Q8_0.
Q8_BLOCK = 32
# The special tokens that have a name in GGUF.
NAMED_TOKENS = ("bos", "eos", "unk", "pad")
# llama.cpp's names for how a byte-level tokenizer splits a text, by the regular expression.
PRE_TOKENIZERS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
# The supported architectures, with GGUF's names for them.
DECODERS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def check_decoder(config: Any) -> str:
    """GGUF's name of the architecture.

    Raises ``ModelError`` for another architecture, or for one with unsupported parts.
    """
    architecture = str(config.model_type)
    if architecture not in DECODERS:
        raise ModelError(
            "the model's architecture",
            "cannot be written as GGUF here",
            architecture,
            f"Supported are: {', '.join(DECODERS)}. llama.cpp's own converter "
            "supports more: convert_hf_to_gguf.py RUN/model.",
        )
    rope = dict(getattr(config, "rope_parameters", None) or {})
    unsupported = {
        "rope_type": rope.get("rope_type", "default") not in ("default", None),
        "sliding_window": bool(getattr(config, "sliding_window", None))
        and getattr(config, "use_sliding_window", architecture == "mistral"),
        "hidden_act": config.hidden_act not in ("silu", "swish"),
        "mlp_bias": bool(getattr(config, "mlp_bias", False)),
    }
    for name, present in unsupported.items():
        if present:
            value = rope.get(name) if name == "rope_type" else getattr(config, name)
            rule = f"cannot be written as GGUF here for a {architecture}"
            remedy = "Use llama.cpp's own converter: convert_hf_to_gguf.py RUN/model."
            raise ModelError(f"the model's {name}", rule, value, remedy)
    return DECODERS[architecture]


def write_gguf(
    model: Any, tokenizer: Any, path: Path, name: str, *, int8: bool = False
) -> GgufTokenizer:
    """Write a plain causal language model (its adapter merged) and its tokenizer; returns the
    converted tokenizer. With ``int8`` the matrices are in Q8_0 where their rows allow it.

    Raises ``ModelError`` where either cannot be written.
    """
    import gguf

    config = model.config
    architecture = check_decoder(config)
    gguf_tokenizer = gguf_tokenizer_of(tokenizer, int(config.vocab_size))
    with reading_errors("the model", ModelError, "cannot be written as GGUF"):
        writer = gguf.GGUFWriter(str(path), architecture)
        writer.add_name(name)
        file_type = gguf.LlamaFileType
        writer.add_file_type(file_type.MOSTLY_Q8_0 if int8 else file_type.ALL_F32)
        if int8:
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, number in _hyperparameters(config).items():
            getattr(writer, f"add_{key}")(number)
        gguf_tokenizer.write(writer)
        tensor_names = gguf.MODEL_ARCH[architecture.upper()]
        names = gguf.get_tensor_name_map(tensor_names, config.num_hidden_layers)
        for key, value in _tensors(model, architecture):
            tensor_name = names.get_name(key, try_suffixes=(".weight", ".bias"))
            if tensor_name is None:
                raise ModelError(
                    "the model", "has a weight that GGUF has no name for", key, "Use another."
                )
            if int8 and _fits_q8(value):
                q8 = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(tensor_name, gguf.quantize(value, q8), raw_dtype=q8)
            else:
                writer.add_tensor(tensor_name, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return gguf_tokenizer


def _fits_q8(value: Floats) -> bool:
    """Whether the rows are whole blocks; vectors (norms and biases) stay float32, as in
    llama.cpp."""
    return value.ndim == 2 and value.shape[1] % Q8_BLOCK == 0


def round_to_q8(model: Any) -> Any:
    """A copy of the model with the weights that its Q8_0 file has: in each block of 32 numbers of a
    row round(x ÷ d) · d, where d is the block's largest magnitude ÷ 127, in float16."""
    import gguf

    rounded, q8 = copy.deepcopy(model), gguf.GGMLQuantizationType.Q8_0
    with torch.no_grad():
        for parameter in rounded.parameters():
            value = parameter.detach().to("cpu", torch.float32).numpy()
            if _fits_q8(value):
                blocks = gguf.dequantize(gguf.quantize(value, q8), q8)
                parameter.copy_(torch.from_numpy(blocks))
    return rounded


def _hyperparameters(config: Any) -> dict[str, int | float]:
    """GGUF's hyperparameters of an architecture, by the names of its writer."""
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    rope = dict(getattr(config, "rope_parameters", None) or {})
    return {
        "context_length": int(config.max_position_embeddings),
        "embedding_length": int(config.hidden_size),
        "block_count": int(config.num_hidden_layers),
        "feed_forward_length": int(config.intermediate_size),
        "head_count": heads,
        "head_count_kv": _key_heads(config),
        "layer_norm_rms_eps": float(config.rms_norm_eps),
        "rope_dimension_count": width,
        "key_length": width,
        "value_length": width,
        "rope_freq_base": float(rope.get("rope_theta", 10000.0)),
        "vocab_size": int(config.vocab_size),
    }


def _key_heads(config: Any) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _tensors(model: Any, architecture: str) -> Iterator[tuple[str, Floats]]:
    """Each weight once, float32; a tied output layer is left out, which marks it as tied."""
    config = model.config
    heads = {".q_proj.": int(config.num_attention_heads), ".k_proj.": _key_heads(config)}
    for key, value in model.state_dict().items():
        tied = config.tie_word_embeddings and key == "lm_head.weight"
        if key.endswith("rotary_emb.inv_freq") or tied:
            continue
        array = value.detach().to("cpu", torch.float32).numpy()
        for part, count in heads.items():
            if architecture == "llama" and part in key:
                array = permute_heads(array, count)
        yield key, np.ascontiguousarray(array)


def permute_heads(rows: Floats, heads: int) -> Floats:
    """Rows [heads · width, …] of query or key, in each head from (x₀ … x_h, y₀ … y_h), which are
    rotated with one another, to (x₀, y₀, x₁, y₁, …)."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@dataclass(frozen=True)
class GgufTokenizer:
    """A tokenizer in GGUF's form: ``model`` is ``gpt2`` (byte-level) or ``llama``
    (SentencePiece's), ``pre_tokenizer`` llama.cpp's name of how texts are split, ``special`` the
    ids of the named tokens.
    """

    model: str
    pre_tokenizer: str
    tokens: tuple[str, ...]
    token_types: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    adds_bos: bool
    adds_eos: bool
    template: str | None

    def write(self, writer: Any) -> None:
        """Add everything to a ``gguf.GGUFWriter``."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre_tokenizer)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.token_types))
        if self.model == "llama":
            # Merges are ranked by the score of their result, in the order of the vocabulary.
            writer.add_token_scores([-float(i) for i in range(len(self.tokens))])
        writer.add_token_merges(list(self.merges))
        for name, number in self.special.items():
            getattr(writer, f"add_{name}_token_id")(number)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        if self.template:
            writer.add_chat_template(self.template)


def gguf_tokenizer_of(tokenizer: Any, size: int) -> GgufTokenizer:
    """Convert a tokenizer, filled up to the ``size`` of the model's table with unused tokens.

    Raises ``ModelError`` for a tokenizer that llama.cpp would read differently.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "the tokenizer", "is not a fast tokenizer", type(tokenizer).__name__, OTHER_CONVERTER
        )
    backend_json = json.loads(backend.to_str())
    model, added = (
        backend_json["model"],
        {int(one["id"]): one for one in backend_json.get("added_tokens", ())},
    )
    if model["type"] != "BPE":
        raise ModelError("the tokenizer", "is not a BPE tokenizer", model["type"], OTHER_CONVERTER)
    if not model["merges"]:
        rule = "has no merges, and llama.cpp cannot read a tokenizer without them"
        raise ModelError("the tokenizer", rule, 0, OTHER_CONVERTER)
    is_sentencepiece = bool(model.get("byte_fallback"))
    pre_tokenizer = "default" if is_sentencepiece else _pre_tokenizer_name(backend_json)
    token_of_id = {number: token for token, number in model["vocab"].items()}
    token_of_id |= {number: one["content"] for number, one in added.items()}
    unknown = tokenizer.unk_token_id if is_sentencepiece else None
    numbers = range(max(size, max(token_of_id) + 1))
    ids = tokenizer("a")["input_ids"]
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in NAMED_TOKENS}
    return GgufTokenizer(
        "llama" if is_sentencepiece else "gpt2",
        pre_tokenizer,
        tuple(token_of_id.get(number, f"[PAD{number}]") for number in numbers),
        tuple(_token_type(number, token_of_id, added, unknown) for number in numbers),
        tuple(one if isinstance(one, str) else " ".join(one) for one in model["merges"]),
        {name: int(number) for name, number in special.items() if number is not None},
        bool(ids) and ids[0] == tokenizer.bos_token_id,
        bool(ids) and ids[-1] == tokenizer.eos_token_id,
        _template(tokenizer.chat_template),
    )


def _token_type(
    number: int, token_of_id: Mapping[int, str], added: Mapping[int, Any], unknown: int | None
) -> int:
    if number not in token_of_id:
        return UNUSED
    if number == unknown:
        return UNKNOWN
    if number in added:
        return CONTROL if added[number]["special"] else USER
    token = token_of_id[number]
    is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
    return BYTE if is_byte else NORMAL


def _pre_tokenizer_name(backend_json: Mapping[str, Any]) -> str:
    """llama.cpp's name of how a byte-level tokenizer splits texts."""
    root = backend_json.get("pre_tokenizer") or {}
    steps = root.get("pretokenizers", [root])
    step_types = [str(one.get("type")) for one in steps]
    if step_types == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if step_types == ["Digits", "ByteLevel"] and steps[1].get("use_regex", True):
        return "smollm"
    if step_types == ["Split", "ByteLevel"]:
        pre_tokenizer = PRE_TOKENIZERS.get(str((steps[0].get("pattern") or {}).get("Regex")))
        if pre_tokenizer:
            return pre_tokenizer
    rule = "splits texts in a way that llama.cpp has no name for"
    raise ModelError("the tokenizer", rule, step_types, OTHER_CONVERTER)


def _template(chat_template: Any) -> str | None:
    # Some tokenizers have several templates by name.
    template = chat_template.get("default") if isinstance(chat_template, dict) else chat_template
    return str(template) if template else None
