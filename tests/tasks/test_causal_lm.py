"""The loss of a causal language model: against Transformers' own, packed and not, on the answers
alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from holdfast.core.errors import RecipeError
from holdfast.data.chats.chat import chats_from_prompts, load_chats
from holdfast.data.chats.turns import NAMED_TEMPLATES
from holdfast.models.generators.causal import CausalNetwork, isolates_packed_examples
from holdfast.models.loading.quiet import quiet_transformers
from holdfast.recipe import Recipe, override
from holdfast.tasks.lm.chat_tokens import answers_in, blocks_of, chat_tokens, text_tokens
from holdfast.tasks.lm.generation import stop_tokens
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens, encode
from holdfast.tasks.lm.task import choose_samples, show_example
from holdfast.training.task import losses_by_row

WORDS = 97
SHAPE: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WHOLE = {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"}
EXPERTS = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaConfig(**SHAPE),
    "mistral": lambda: hf.MistralConfig(**SHAPE, sliding_window=8),
    "qwen2": lambda: hf.Qwen2Config(**SHAPE),
    "qwen3": lambda: hf.Qwen3Config(**SHAPE, head_dim=8),
    "gemma": lambda: hf.GemmaConfig(**SHAPE, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**SHAPE, head_dim=8, sliding_window=8),
    "phi": lambda: hf.PhiConfig(**WHOLE),
    "phi3": lambda: hf.Phi3Config(**SHAPE),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=WORDS,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**WHOLE),
    "smollm3": lambda: hf.SmolLM3Config(**SHAPE),
    "olmo2": lambda: hf.Olmo2Config(**SHAPE),
    "mixtral": lambda: hf.MixtralConfig(**SHAPE, num_local_experts=4),
    "deepseek_v2": lambda: hf.DeepseekV2Config(**SHAPE | EXPERTS | {"num_key_value_heads": 4}),
    "deepseek_v3": lambda: hf.DeepseekV3Config(**SHAPE | EXPERTS | {"num_key_value_heads": 4}),
}


def decoder(name: str, words: int = WORDS) -> Any:
    config = FAMILIES[name]()
    config.vocab_size = words
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        return hf.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def examples() -> EncodedTokens:
    """Six examples of unlike length, a random half of whose tokens are targets."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum([9, 4, 14, 6, 3, 11])])
    targets = rng.random(offsets[-1]) < 0.5
    targets[offsets[1:] - 1], targets[offsets[:-1]] = True, False
    ids = rng.integers(3, WORDS, offsets[-1]).astype(np.int32)
    return EncodedTokens(
        ids, targets, offsets, np.arange(6), np.arange(6), np.zeros(6, bool), np.arange(6)
    )


def loss_of(task: CausalLM, network: CausalNetwork, examples: EncodedTokens, rows: Any) -> Any:
    batch = task.collate(examples, rows)
    return task.losses(task.forward(network, batch), batch)


def own_loss(model: Any, examples: EncodedTokens, row: int) -> Any:
    """Transformers' loss of one example alone, with the other tokens masked by hand."""
    start, stop = examples.offsets[row : row + 2]
    ids = torch.from_numpy(examples.ids[start:stop].astype(np.int64))[None]
    masked = torch.from_numpy(np.where(examples.targets[start:stop], ids[0].numpy(), -100))[None]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=masked).loss


def gradients(model: Any, loss: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_loss_and_gradients_are_those_of_transformers(
    name: str, pack: bool, examples: EncodedTokens
) -> None:
    model = decoder(name)
    network = CausalNetwork(model)
    assert isolates_packed_examples(network)
    task = CausalLM(pack=pack)
    weights = torch.from_numpy(task.weights(examples, range(6))).float()
    edges = list(zip(examples.offsets, examples.offsets[1:], strict=False))
    assert weights.tolist() == [examples.targets[a:b].sum() for a, b in edges]
    losses = loss_of(task, network, examples, range(6))
    expected = torch.stack([own_loss(model, examples, row) for row in range(6)])
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    ours = gradients(model, (losses * weights).sum() / weights.sum())
    theirs = gradients(model, (expected * weights).sum() / weights.sum())
    assert ours.keys() == theirs.keys()
    for key, gradient in theirs.items():
        torch.testing.assert_close(ours[key], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_weight_is_in_exactly_one_layer(name: str) -> None:
    network = CausalNetwork(decoder(name))
    layers = network.layers()
    assert [layer.name for layer in layers] == ["embeddings", "block.0", "block.1", "head"]
    found = [id(p) for layer in layers for p in layer.parameters()]
    assert sorted(found) == sorted(id(p) for p in network.parameters())
    assert id(network.word_embeddings.weight) in [id(p) for p in layers[0].parameters()]


def test_a_model_that_lets_examples_read_each_other_is_known() -> None:
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        model = hf.OPTForCausalLM(
            hf.OPTConfig(
                vocab_size=WORDS,
                hidden_size=32,
                ffn_dim=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=64,
                word_embed_proj_dim=32,
                init_std=0.2,
            )
        )
    assert not isolates_packed_examples(CausalNetwork(model))


def test_capped_logits_are_not_taken_short(examples: EncodedTokens) -> None:
    assert not CausalNetwork(decoder("gemma2")).direct
    assert CausalNetwork(decoder("llama")).direct


def test_packing_takes_fewer_tokens_and_no_longer_lines(examples: EncodedTokens) -> None:
    plain, packed = (CausalLM(pack=p).collate(examples, range(6)) for p in (False, True))
    assert packed["input_ids"].shape == (4, 14)
    assert plain["input_ids"].shape == (6, 14)
    assert packed["expected"].tolist() == plain["expected"].tolist()
    shared = packed["position_ids"]
    assert (shared == 0).sum() >= 6


def test_a_large_batch_and_its_accumulated_pieces_have_one_gradient(
    examples: EncodedTokens,
) -> None:
    model = decoder("llama")
    network, task = CausalNetwork(model), CausalLM()
    weights = torch.from_numpy(task.weights(examples, range(6))).float()
    whole = gradients(model, (loss_of(task, network, examples, range(6)) * weights).sum())
    model.zero_grad()
    for piece in ([0, 1], [2], [3, 4, 5]):
        (loss_of(task, network, examples, piece) * weights[piece]).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole[name], rtol=1e-4, atol=1e-5)


def test_numbers_of_a_snapshot(examples: EncodedTokens) -> None:
    task = CausalLM()
    losses, kept = np.array([1.0, 2.0]), np.array([[1, 1], [3, 0]])
    seen = task.measure(losses, kept, examples, [0, 1])
    assert seen.metrics["token_loss"] == pytest.approx(7 / 4)
    assert seen.metrics["perplexity"] == pytest.approx(np.exp(7 / 4))
    assert seen.metrics["token_accuracy"] == 0.25
    assert seen.refined_loss == 7 / 4
    assert seen.tokens is not None
    assert seen.tokens.tolist() == [1, 3]
    assert np.isnan(task.measure(losses[:0], kept[:0], examples, []).metrics["perplexity"])


def test_what_a_model_knows_of_texts_is_not_when_it_ends_them(tokenizer: Any) -> None:
    texts = ["The moon shows us one face, every night of the year.", "Ice floats on water " * 30]
    table = chats_from_prompts(texts, "text")
    examples = encode(table, tokenizer, 64)
    probe = examples.as_probe(tokenizer.eos_token_id, 8)
    model = decoder("llama", len(tokenizer))
    network, task = CausalNetwork(model), CausalLM()
    everything = np.arange(len(probe))
    losses = loss_of(task, network, probe, everything).detach().double().numpy()
    means, tokens = losses_by_row(losses, probe.target_counts, probe.rows)
    # By Transformers: each whole text in windows that overlap by a token, its first 8 passed over.
    for text, mean, count in zip(texts, means, tokens, strict=True):
        ids = tokenizer(text)["input_ids"]
        told = []
        for start in range(0, len(ids) - 1, 63):
            window = torch.tensor([ids[start : start + 64]])
            logits = model(window).logits[0, :-1]
            each = torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="none")
            told += each.tolist()
        assert count == len(told) - 7
        assert mean == pytest.approx(np.mean(told[7:]), abs=1e-4)
    # A model to which the end has become likely knows its texts less, and is seen to.
    with torch.no_grad():
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(tokenizer)))
        model.lm_head.bias[tokenizer.eos_token_id] = 5.0
    after = loss_of(task, network, probe, everything).detach().double().numpy()
    assert (after > losses).all()


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return hf.AutoTokenizer.from_pretrained(tiny_llama)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why, Ünal?"},
    {"role": "assistant", "content": "Because 東."},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "So."},
]
ENDS = {
    "plain": "</s>",
    "chatml": "<|im_end|>",
    "llama2": " </s>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "zephyr": "</s>",
}


@pytest.mark.parametrize("name", sorted(NAMED_TEMPLATES))
def test_the_loss_is_on_the_answers_and_what_ends_them(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = NAMED_TEMPLATES[name]
    ids, inside = chat_tokens(tokenizer, CHAT)
    whole = tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=True)["input_ids"]
    assert ids.tolist() == whole
    assert ids.tolist().count(tokenizer.bos_token_id) == whole.count(tokenizer.bos_token_id) <= 2
    told = tokenizer.decode(ids[inside]).strip()
    space = " " if name == "llama2" else ""
    assert told == f"Because 東.{ENDS[name]}{space}So.{ENDS[name]}"


@pytest.mark.parametrize("name", sorted(NAMED_TEMPLATES))
def test_the_loss_leaves_out_an_answer_of_weight_0(name: str, tokenizer: Any) -> None:
    tokenizer.chat_template = NAMED_TEMPLATES[name]
    first = next(at for at, turn in enumerate(CHAT) if turn["role"] == "assistant")
    chat = [turn | {"weight": 0} if at == first else turn for at, turn in enumerate(CHAT)]
    ids, inside = chat_tokens(tokenizer, chat)
    assert ids.tolist() == chat_tokens(tokenizer, CHAT)[0].tolist()
    assert tokenizer.decode(ids[inside]).strip() == f"So.{ENDS[name]}"
    # Of the examples before it none is trained, whatever its weight.
    assert chat_tokens(tokenizer, chat, given=1)[1].tolist() == inside.tolist()


def test_a_text_begins_once_and_ends_once(tokenizer: Any) -> None:
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    for text in ("ab", "<s>ab"):
        ids = text_tokens(tokenizer, text).tolist()
        assert (ids[0], ids[-1], ids.count(start), ids.count(end)) == (start, end, 1, 1)


def test_what_ends_an_answer_is_listed_once_and_ascending(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    assert stop_tokens(tokenizer, "</s>", [9, 4]) == sorted([end, 4, 9])
    assert stop_tokens(tokenizer, "x", [end]) == sorted([end, *tokenizer("x")["input_ids"][1:]])
    assert stop_tokens(tokenizer, "of several tokens", None) == [end]


@pytest.mark.parametrize("length", [2, 3, 5, 50])
@pytest.mark.parametrize("n", [2, 3, 9, 10, 11])
def test_blocks_predict_every_token_of_a_text_once(n: int, length: int) -> None:
    ids = np.arange(n, dtype=np.int32)
    blocks = blocks_of(ids, length)
    assert max(map(len, blocks)) <= length
    assert np.concatenate([block[1:] for block in blocks]).tolist() == ids[1:].tolist()


def test_a_row_whose_answer_is_cut_off_is_left_out_and_counted(
    tmp_path: Path, tokenizer: Any
) -> None:
    tokenizer.chat_template = NAMED_TEMPLATES["plain"]
    rows = [{"prompt": "x" * n, "completion": "yes"} for n in (5, 300, 20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = encode(load_chats(path), tokenizer, 70)
    assert made.left_out == (1,)
    assert made.rows.tolist() == [0, 2]
    assert made.cut.sum() == 1
    assert made.target_counts.tolist() == [4, 4]


def test_an_example_shows_what_the_loss_covers(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.chat_template = NAMED_TEMPLATES["chatml"]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": CHAT}))
    loaded: Any = SimpleNamespace(tokenizer=tokenizer)
    (shown,) = show_example(encode(load_chats(path), tokenizer, 1000), loaded)
    outside, *parts = shown.chosen.split("⟦")
    covered, between = zip(*(part.split("⟧") for part in parts), strict=True)
    assert covered == ("Because 東.<|im_end|>", "So.<|im_end|>")
    whole = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert "".join(shown.chosen.split("⟦")).replace("⟧", "").replace("↵", "\n") == whole
    assert outside.endswith("<|im_start|>assistant↵")
    assert "user↵And?" in between[0]
    text = tmp_path / "long.txt"
    text.write_text("a" * 300 + " middle " + "b" * 300)
    (shown,) = show_example(encode(load_chats(text), tokenizer, 1000), loaded)
    assert " … " in shown.chosen
    assert "middle" not in shown.chosen
    assert (
        show_example(encode(load_chats(text), tokenizer, 1000).take(np.array([], int)), loaded)
        == ()
    )


def test_a_template_that_rewrites_what_was_said_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(RecipeError, match="cannot locate the answers"):
        answers_in(tokenizer, CHAT)


def test_a_template_that_refuses_a_row_says_so(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system turn, please') }}"
    with pytest.raises(RecipeError, match="no system turn, please"):
        answers_in(tokenizer, CHAT)


def test_the_real_gpt2_tokenizer_masks_the_same_answers(shared_data: Path) -> None:
    folder = shared_data.parent / "models" / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip("needs the real gpt2 tokenizer beside the data")
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = NAMED_TEMPLATES["plain"]
    chat = [
        {"role": "user", "content": "Say hello\nin two lines"},
        {"role": "assistant", "content": " Hello\n\nthere,  world "},
    ]
    ids, inside = chat_tokens(tokenizer, chat)
    told = tokenizer.decode(ids[inside], clean_up_tokenization_spaces=False)
    assert told == " Hello\n\nthere,  world <|endoftext|>"
    assert chats_from_prompts(["a"], "text").column("turns") == ["[]"]


@pytest.mark.parametrize("setting", ["generate.watch=true", "train.metric=rouge_l"])
def test_what_needs_texts_of_a_learned_prompt_is_named(setting: str) -> None:
    named = "train.metric=refined_loss" if setting.startswith("generate") else setting
    recipe = override(Recipe(), ["model.adapter.kind=prompt", named, setting])
    nothing: Any = None
    with pytest.raises(RecipeError, match=f"{setting.partition('=')[0]}: needs generated texts"):
        choose_samples(nothing, nothing, recipe, 0)
