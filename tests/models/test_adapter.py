"""Adapters: only they and the head learn, merged is unmerged, plain PEFT gives the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.errors import ModelError, RecipeError
from holdfast.models.adapters.adapter import resolve_spec
from holdfast.models.base import AdapterSpec
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.layers import freeze, parameter_groups
from holdfast.models.loading.options import LoadOptions

CLASSES = ("a", "b", "c")
INSIDE = ("lora", "rslora", "dora", "lora+", "ia3")
ASIDE = ("head.", "pool.")
NEW = ("lora_", "ia3_", "prompt_vectors")


@pytest.fixture(params=["lora", "rslora", "dora", "lora+", "ia3", "prompt"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path, kind: str, **settings: Any) -> Any:
    return load_classifier(str(folder), CLASSES, LoadOptions(adapter=AdapterSpec(kind, **settings)))


def stir(network: Any, seed: int = 1) -> None:
    """Move everything that learns, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)


def logits(network: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = network(**inputs)
    return out


def far(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def test_only_the_adapter_and_what_is_new_learns(kind: str, make_model: Any) -> None:
    network = load(make_model("bert"), kind).network
    learns = [name for name, p in network.named_parameters() if p.requires_grad]
    assert all(name.startswith(ASIDE) or any(new in name for new in NEW) for name in learns)
    assert any(any(new in name for new in NEW) for name in learns)
    assert {"head.weight", "head.bias"} <= set(learns)


def test_three_steps_move_what_learns_and_nothing_else(
    kind: str, make_model: Any, batch: Any
) -> None:
    loaded = load(make_model("bert"), kind)
    network, inputs = loaded.network.train(), batch(loaded.tokenizer)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = torch.optim.AdamW(parameter_groups(network, 1e-2))
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(**inputs), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        optimizer.step()
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n, p in network.named_parameters() if p.requires_grad}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2", "distilbert"])
def test_plain_peft_on_the_plain_model_gives_the_same_logits(
    kind: str, architecture: str, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForSequenceClassification

    loaded = load(make_model(architecture), kind)
    stir(loaded.network)
    inputs = batch(loaded.tokenizer)
    loaded.network.save(tmp_path / "out", loaded.tokenizer, 2.0)
    plain = AutoPeftModelForSequenceClassification.from_pretrained(
        tmp_path / "out", num_labels=3
    ).eval()
    want = logits(loaded.network, inputs) / 2.0
    taken = {k: v for k, v in inputs.items() if k in loaded.network.accepts}
    assert far(plain(**taken).logits.detach(), want) <= 1e-4


@pytest.mark.slow
def test_our_own_reload_gives_the_same_and_the_classes(
    kind: str, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    loaded = load(make_model("bert"), kind)
    stir(loaded.network)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    saved = load_saved(tmp_path / "out")
    inputs = batch(loaded.tokenizer)
    assert far(logits(saved.network, inputs), logits(loaded.network, inputs)) <= 1e-4
    assert saved.classes == CLASSES
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # in PEFT
def test_a_saved_adapter_of_a_decoder_without_padding_token_reads_a_padded_batch(
    tiny_llama: Path, tmp_path: Path
) -> None:
    loaded = load(tiny_llama, "lora")
    stir(loaded.network)
    inputs = loaded.tokenizer(["a longer text", "short"], padding=True, return_tensors="pt")
    want = logits(loaded.network.eval(), inputs)
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    assert far(logits(load_saved(tmp_path / "out").network, inputs), want) <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", INSIDE)
def test_merged_is_unmerged(
    kind: str, carrying: str, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    loaded = load(make_model(carrying), kind, merge=True)
    stir(loaded.network)
    inputs = batch(loaded.tokenizer)
    want = logits(loaded.network, inputs)
    before = {name: p.detach().clone() for name, p in loaded.network.named_parameters()}
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    assert far(logits(load_saved(tmp_path / "out").network, inputs), want) <= 1e-4
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    assert all(torch.equal(p, before[n]) for n, p in loaded.network.named_parameters())


def test_merging_keeps_mean_pooling_and_an_adapter_folder_says_why_it_cannot(
    make_model: Any,
) -> None:
    folder = make_model("bert")
    assert load(folder, "lora", merge=True).network.pooling == "mean"
    loaded = load(folder, "lora")
    assert loaded.network.pooling == "own"
    (because,) = [d.because for d in loaded.decisions if d.what == "model.pooling"]
    assert "model.adapter.merge=true" in because
    with pytest.raises(ModelError, match="mean"):
        load_classifier(
            str(folder), CLASSES, LoadOptions(adapter=AdapterSpec("lora")), pooling="mean"
        )


def test_the_same_seed_draws_the_same_adapter_and_leaves_the_global_generator(
    make_model: Any,
) -> None:
    folder = make_model("bert")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (load(folder, "lora").network.state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_every_linear_layer_of_the_blocks_is_a_target_and_asking_for_others_is_obeyed(
    make_model: Any,
) -> None:
    folder = make_model("bert")
    everything = load(folder, "lora").network
    adapted = {n.split(".lora_A")[0] for n, _ in everything.named_parameters() if "lora_A" in n}
    assert len(adapted) == 2 * 6
    query = load(folder, "lora", targets=("query",)).network
    names = [n for n, _ in query.named_parameters() if "lora_A" in n]
    assert len(names) == 2
    assert all("attention.self.query" in name for name in names)
    with pytest.raises(RecipeError, match="quary"):
        load(folder, "lora", targets=("quary",))


def test_lora_plus_gives_its_second_matrices_a_higher_rate(make_model: Any) -> None:
    network = load(make_model("bert"), "lora+", rate_ratio=4.0).network
    names = {id(p): n for n, p in network.named_parameters()}
    rates = {names[id(p)]: g["lr"] for g in parameter_groups(network, 1.0) for p in g["params"]}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {4.0}
    assert {rate for name, rate in rates.items() if "lora_B" not in name} == {1.0}


def test_freezing_leaves_the_pretrained_weights_held_and_holds_the_first_adapters_too(
    make_model: Any,
) -> None:
    network = load(make_model("bert"), "lora").network
    freeze(network, 2)
    learns = {name for name, p in network.named_parameters() if p.requires_grad}
    assert not any("layer.0." in name for name in learns)
    assert all(name.startswith(ASIDE) or "lora_" in name for name in learns)


def test_alpha_over_the_rank_or_its_root_scales_the_update(make_model: Any) -> None:
    folder = make_model("bert")
    for kind, want in (("lora", 6.0 / 4), ("rslora", 6.0 / 2)):
        network = load(folder, kind, rank=4, alpha=6.0).network
        layer = network.backbone.encoder.layer[0].attention.self.query
        assert layer.scaling["default"] == pytest.approx(want)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("ia3", {"rank": 2}),
        ("lora", {"rate_ratio": 2.0}),
        ("prompt", {"alpha": 1.0}),
        ("prompt", {"merge": True}),
    ],
)
def test_a_setting_that_a_kind_does_not_have_is_refused(kind: str, setting: Any) -> None:
    with pytest.raises(RecipeError, match=kind):
        resolve_spec(replace(AdapterSpec(kind), **setting))


def test_a_model_that_carries_mean_pooling_asks_for_merging(
    make_model: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES)
    loaded.network.save(tmp_path / "first", loaded.tokenizer)
    with pytest.raises(ModelError, match=r"merge=true"):
        load(tmp_path / "first", "lora")
    assert load(tmp_path / "first", "lora", merge=True).network.pooling == "mean"


def test_a_prompt_leaves_the_text_fewer_places(make_model: Any) -> None:
    folder = make_model("bert")
    whole = load_classifier(str(folder), CLASSES).max_length
    assert load(folder, "prompt", rank=7).max_length == whole - 7


def test_a_moved_pretrained_model_is_named_in_the_error(make_model: Any, tmp_path: Path) -> None:
    loaded = load(make_model("bert"), "lora")
    loaded.network.save(tmp_path / "out", loaded.tokenizer)
    path = tmp_path / "out" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(ModelError, match="adapter_config"):
        load_saved(tmp_path / "out")
