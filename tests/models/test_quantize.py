"""Weights in 4 and 8 bits: what they stand for and take, what learns, saving and reloading."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from holdfast.core.errors import MachineError, ModelError
from holdfast.models.adapters.adapter import attach
from holdfast.models.adapters.quantize import (
    QuantizeSpec,
    check_machine,
    plain_layer,
    prepare_quantized,
    quantizable,
    quantized_layers,
    scales_of,
    size_of,
    weight_bytes,
)
from holdfast.models.base import AdapterSpec
from holdfast.models.generators.causal import load_causal, load_saved_causal
from holdfast.models.layers import count_parameters
from holdfast.models.loading.options import LoadOptions
from holdfast.models.loading.quiet import quiet_transformers

pytest.importorskip("bitsandbytes")
pytest.importorskip("peft")
IDS = torch.arange(2, 26).view(2, 12)
FOUR, EIGHT = QuantizeSpec(4), QuantizeSpec(8)


def write(folder: Path, tokenizer: Path, config: Any) -> Path:
    """A decoder of this configuration, drawn at random, with that tokenizer."""
    shutil.copytree(tokenizer, folder, ignore=shutil.ignore_patterns("*.safetensors", "config*"))
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(3)
        hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a shape that every kernel of bitsandbytes takes."""
    config = hf.LlamaConfig(
        vocab_size=258,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
    )
    return write(tmp_path_factory.mktemp("fitting") / "llama", tiny_llama, config)


def adapted(folder: Path, spec: QuantizeSpec, kind: str = "lora", **settings: Any) -> Any:
    """Loaded in few bits, with an adapter that has been moved as training would."""
    loaded = load_causal(str(folder), LoadOptions(quantize=spec))
    attach(loaded.network, AdapterSpec(kind, **settings), base=str(folder))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    loaded.network.eval()
    return loaded


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = network(input_ids=IDS)
    return out


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


@pytest.mark.parametrize(("kind", "widest"), [("nf4", 0.152), ("fp4", 0.167)])
def test_four_bits_are_the_nearest_level_times_the_largest_of_64(
    llama: Path, kind: str, widest: float
) -> None:
    """The widest gap between levels is known: half of it times the block's largest is the error."""
    plain = load_causal(str(llama)).network.plain
    packed = load_causal(
        str(llama), LoadOptions(quantize=QuantizeSpec(4, kind, double=False))
    ).network.plain
    layers = list(quantized_layers(packed))
    assert len(layers) == 14
    for name, layer in layers:
        want = plain.get_submodule(name).weight.detach()
        blocks = (plain_layer(layer).weight.detach() - want).view(-1, 64)
        largest = want.view(-1, 64).abs().amax(dim=1)
        assert (blocks.abs().amax(dim=1) <= (widest + 1e-3) * largest).all()


def test_eight_bits_are_a_127th_of_the_rows_largest(llama: Path) -> None:
    """Half a step, and what float16 rounds, to which the row is brought first."""
    plain = load_causal(str(llama)).network.plain
    packed = load_causal(str(llama), LoadOptions(quantize=EIGHT)).network.plain
    for name, layer in quantized_layers(packed):
        want = plain.get_submodule(name).weight.detach()
        error = (plain_layer(layer).weight.detach() - want).abs().amax(dim=1)
        assert (error <= (0.5 / 127 + 2**-11) * want.abs().amax(dim=1)).all()


@pytest.mark.parametrize("spec", [FOUR, EIGHT], ids=str)
def test_packed_weights_are_counted_as_what_they_stand_for(llama: Path, spec: QuantizeSpec) -> None:
    whole, small = load_causal(str(llama)), load_causal(str(llama), LoadOptions(quantize=spec))
    assert count_parameters(small.network)[0] == count_parameters(whole.network)[0]
    assert small.facts["parameters"] == whole.facts["parameters"]
    linear = sum(size_of(layer.weight) for _, layer in quantized_layers(small.network))
    assert linear == sum(w.numel() for w in quantizable(whole.network.plain))
    (reason,) = [d for d in small.decisions if d.what == "model.quantize"]
    assert f"{linear:,} of {whole.facts['parameters']:,} parameters" in reason.because


def test_bytes_are_levels_scales_and_tables(llama: Path) -> None:
    """Half a byte a weight, a byte a block of 64, four a 256 of those, and two tables a layer."""
    network = load_causal(str(llama), LoadOptions(quantize=FOUR)).network
    packed = list(quantized_layers(network))
    sizes = [size_of(layer.weight) for _, layer in packed]
    tables = sum(4 * (16 + 256) + 4 * -(-size // 64 // 256) for size in sizes)
    rest = 4 * (count_parameters(network)[0] - sum(sizes))
    assert weight_bytes(network) == rest + sum(sizes) // 2 + sum(sizes) // 64 + tables


@pytest.mark.parametrize("spec", [FOUR, EIGHT], ids=str)
def test_gradients_are_the_same_before_and_after_an_evaluation(
    llama: Path, spec: QuantizeSpec
) -> None:
    network = adapted(llama, spec).network

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        network.train()
        torch.manual_seed(0)
        network(input_ids=IDS).logsumexp(-1).sum().backward()
        return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    first = gradients()
    packed = {n: layer.weight.detach().clone() for n, layer in quantized_layers(network)}
    network.eval()
    with torch.inference_mode():
        network(input_ids=IDS)
    again = gradients()
    assert first
    assert all("lora_" in name and grad.abs().sum() > 0 for name, grad in first.items())
    assert all(torch.equal(again[name], grad) for name, grad in first.items())
    for name, layer in quantized_layers(network):
        assert torch.equal(layer.weight, packed[name])


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3"])
def test_merged_gives_the_outputs_of_the_quantised_model_with_its_adapter(
    llama: Path, kind: str, tmp_path: Path
) -> None:
    loaded = adapted(llama, FOUR, kind, merge=True)
    want = logits(loaded.network)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    with quiet_transformers():
        plain: Any = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert getattr(plain.config, "quantization_config", None) is None
    assert far(plain(input_ids=IDS).logits.detach(), want) <= 1e-4
    assert torch.equal(logits(loaded.network), want)


def test_merged_in_eight_bits_is_the_dequantised_weight_and_the_update(
    llama: Path, tmp_path: Path
) -> None:
    loaded = adapted(llama, EIGHT, rank=2, alpha=6.0, merge=True)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    saved = load_saved_causal(tmp_path / "out")[0].plain.state_dict()
    for name, layer in quantized_layers(loaded.network.plain):
        outer = loaded.network.plain.get_submodule(name.removesuffix(".base_layer"))
        levels, scale = layer.weight.detach().float(), scales_of(layer)[0].view(-1, 1)
        update = 3.0 * outer.lora_B["default"].weight @ outer.lora_A["default"].weight
        got = saved[name.removesuffix(".base_layer") + ".weight"]
        torch.testing.assert_close(got, (levels * scale / 127 + update).detach())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
@pytest.mark.parametrize("spec", [FOUR, EIGHT], ids=str)
def test_plain_peft_on_the_quantised_model_gives_what_our_reload_gives(
    llama: Path, spec: QuantizeSpec, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    loaded = adapted(llama, spec)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    told = json.loads((tmp_path / "out" / "holdfast.json").read_text())["quantization"]
    assert told == spec.config
    make: Any = hf.BitsAndBytesConfig
    with quiet_transformers():
        plain: Any = AutoPeftModelForCausalLM.from_pretrained(
            tmp_path / "out", quantization_config=make(**told), dtype=torch.float32
        ).eval()
        plain.get_base_model()
    with torch.no_grad():
        theirs = plain(input_ids=IDS).logits
    ours = logits(load_saved_causal(tmp_path / "out")[0])
    assert far(ours, theirs) <= 1e-4
    # The kernel for evaluation rounds to bfloat16 where the processor has it, no more than that.
    assert far(ours, logits(loaded.network)) <= 0.03


def test_a_shape_that_the_evaluation_kernel_refuses_is_reloaded_and_computed(
    tiny_llama: Path, tmp_path: Path
) -> None:
    loaded = adapted(tiny_llama, FOUR)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    ours = logits(load_saved_causal(tmp_path / "out")[0])
    assert far(ours, logits(loaded.network)) <= 1e-4


def test_gpt2_keeps_its_weights_the_other_way_round_and_merges_all_the_same(
    tiny_llama: Path, tmp_path: Path
) -> None:
    config = hf.GPT2Config(vocab_size=258, n_embd=64, n_layer=1, n_head=2, n_positions=64)
    folder = write(tmp_path / "gpt2", tiny_llama, config)
    loaded = adapted(folder, FOUR, merge=True)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    again = load_saved_causal(tmp_path / "out")[0]
    assert far(logits(again), logits(loaded.network)) <= 1e-4


def test_the_sum_that_marks_frozen_weights_sees_a_changed_level_and_a_changed_scale(
    llama: Path,
) -> None:
    from holdfast.models.adapters.quantize import frozen_tensors

    def mark(network: Any) -> float:
        return sum(float(t.abs().sum(dtype=torch.float64)) for t in frozen_tensors(network))

    network = adapted(llama, FOUR).network
    first = mark(network)
    _, layer = next(quantized_layers(network))
    assert mark(adapted(llama, FOUR).network) == first
    layer.weight.data[0, 0] += 1 if layer.weight.data[0, 0] < 255 else -1
    second = mark(network)
    layer.weight.quant_state.state2.absmax[0] *= 2
    assert len({first, second, mark(network)}) == 3


def test_a_model_that_is_quantised_already_is_refused_by_name(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "packed")
    path = tmp_path / "packed" / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="already") as raised:
        load_causal(str(tmp_path / "packed"))
    assert "model.quantize=4bit" in str(raised.value)


def test_convolutions_are_refused() -> None:
    with pytest.raises(ModelError, match="convolutions"):
        prepare_quantized(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), FOUR, "resnet")


def test_without_the_package_the_install_command_is_named(
    monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MachineError, match=r"pip install 'holdfast\[quantize\]'"):
        load_causal(str(llama), LoadOptions(quantize=FOUR))


def test_what_bitsandbytes_says_of_a_machine_that_it_refuses_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import bitsandbytes.nn as bnb

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such back end")

    monkeypatch.setattr(bnb, "Linear4bit", refuse)
    with pytest.raises(MachineError, match="no such back end") as raised:
        check_machine(4)
    assert "8bit" in raised.value.remedy
    check_machine(8)
