"""GGUF read back by Transformers, token for token, and the turns of a Modelfile."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import ModelError
from holdfast.data.chats.turns import NAMED_TEMPLATES
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.plugins.export import gguf_file
from holdfast.plugins.export.decoder import modelfile, read_back
from holdfast.plugins.export.gguf_file import check_decoder, write_gguf

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}


@pytest.fixture
def tokenizer(merging_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(merging_llama)


def decoder(kind: str, size: int, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **({"vocab_size": size} | SMALL | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {"rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 500.0}}),
        ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 128}),
    ],
)
def test_what_is_read_back_writes_the_same_tokens(
    kind: str, changes: dict[str, Any], tokenizer: Any, tmp_path: Path
) -> None:
    # A table that is larger than the tokenizer is filled up.
    model = decoder(kind, len(tokenizer) + 6, **changes)
    tokenizer.chat_template = NAMED_TEMPLATES["chatml"]
    words = write_gguf(model, tokenizer, tmp_path / "model.gguf", "a name")
    assert (words.model, words.pre_tokenizer, words.adds_bos, words.adds_eos) == (
        "gpt2",
        "gpt-2",
        True,
        False,
    )
    found = read_back(model, tokenizer, tmp_path / "model.gguf", ["one more text"])
    assert (found.texts, found.tokens) == (5, 100)
    assert found.gap <= 1e-4
    from transformers import AutoTokenizer

    with quiet_transformers():
        again = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert again.chat_template == NAMED_TEMPLATES["chatml"]


def test_rows_in_another_order_are_seen(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "permute_heads", lambda rows, heads: rows)
    model = decoder("llama", len(tokenizer))
    write_gguf(model, tokenizer, tmp_path / "model.gguf", "a name")
    with pytest.raises(ModelError, match="other tokens than the model"):
        read_back(model, tokenizer, tmp_path / "model.gguf")


def test_a_tokenizer_that_cuts_otherwise_is_seen(tokenizer: Any, tmp_path: Path) -> None:
    model = decoder("llama", len(tokenizer))
    write_gguf(model, tokenizer, tmp_path / "model.gguf", "a name")
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ModelError, match="tokenises a text differently"):
        read_back(model, tokenizer, tmp_path / "model.gguf")


def test_a_tokenizer_that_merges_nothing_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    bytes_alone = AutoTokenizer.from_pretrained(tiny_llama)
    with pytest.raises(ModelError, match="no merges"):
        write_gguf(decoder("llama", 300), bytes_alone, tmp_path / "model.gguf", "a name")


def test_other_architectures_and_parts_are_refused_by_name() -> None:
    from transformers import AutoConfig, LlamaConfig

    with pytest.raises(ModelError, match="gpt2") as refused:
        check_decoder(AutoConfig.for_model("gpt2"))
    assert "llama" in refused.value.remedy
    scaled = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
    with pytest.raises(ModelError, match=r"rope_type.*linear"):
        check_decoder(LlamaConfig(rope_parameters=scaled))


def filled(text: str, begin: str, prompt: str, system: str | None) -> str:
    """What Ollama makes of a Modelfile's template before the answer, by its own few rules."""
    found = re.search(r'TEMPLATE """(.*?)"""', text, re.DOTALL)
    assert found is not None
    body = found[1].partition("{{ .Response }}")[0]
    if system is None:
        body = re.sub(r"\{\{ if \.System \}\}.*?\{\{ end \}\}", "", body, flags=re.DOTALL)
    body = body.replace("{{ if .System }}", "").replace("{{ end }}", "")
    return begin + body.replace("{{ .System }}", system or "").replace("{{ .Prompt }}", prompt)


@pytest.mark.parametrize("name", sorted(NAMED_TEMPLATES))
@pytest.mark.parametrize("begins", [True, False])
def test_ollama_writes_turns_as_the_chat_template_does(
    name: str, begins: bool, tokenizer: Any
) -> None:
    template = NAMED_TEMPLATES[name]
    text = modelfile(tokenizer, template, "model.gguf", begins)
    assert text.startswith("FROM ./model.gguf\n")
    told = [{"role": "user", "content": "Who?"}]
    places = [None] if name == "llama2" else [None, "Be short."]
    for system in places:
        said = [{"role": "system", "content": system}] if system else []
        wanted = tokenizer.apply_chat_template(
            [*said, *told], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        begin = "<s>" if begins and wanted.startswith("<s>") else ""
        assert filled(text, begin, "Who?", system) == wanted
    assert 'PARAMETER stop "</s>"' in text


def test_a_template_with_words_of_a_system_of_its_own_takes_the_users_in_their_place(
    tokenizer: Any,
) -> None:
    template = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Ada<|im_end|>\n"
        "{% endif %}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text = modelfile(tokenizer, template, "model.gguf", False)
    assert '\nSYSTEM """You are Ada"""\n' in text
    told = [{"role": "user", "content": "Who?"}]
    for system in (None, "Be short."):
        said = [{"role": "system", "content": system}] if system else []
        wanted = tokenizer.apply_chat_template(
            [*said, *told], chat_template=template, tokenize=False, add_generation_prompt=True
        )
        # Ollama's own words of the system are those of the file, unless it is given others.
        assert filled(text, "", "Who?", system or "You are Ada") == wanted


def test_without_a_template_the_prompt_is_passed_on(tokenizer: Any) -> None:
    assert 'TEMPLATE """{{ .Prompt }}"""' in modelfile(tokenizer, None, "model.gguf", True)
    broken = "{{ raise_exception('no') }}"
    assert 'TEMPLATE """{{ .Prompt }}"""' in modelfile(tokenizer, broken, "model.gguf", True)


def test_8_bit_weights_are_blocks_of_32_with_one_scale(tokenizer: Any) -> None:
    model = decoder("llama", len(tokenizer))
    found = gguf_file.round_to_q8(model).state_dict()
    for name, weight in model.state_dict().items():
        value = weight.double().numpy()
        if value.ndim != 2 or value.shape[1] % 32:
            assert torch.equal(found[name], weight), name
            continue
        blocks = value.reshape(len(value), -1, 32)
        scale = np.abs(blocks).max(axis=-1, keepdims=True) / 127
        # Half a step, and the scale's own rounding to float16 (half of 2⁻¹⁰ of 127 steps).
        error = np.abs(found[name].double().numpy().reshape(blocks.shape) - blocks)
        assert (error <= scale * (0.5 + 127 * 2**-11 + 1e-3)).all(), name
        assert error.max() > 0.1 * scale.min(), name
