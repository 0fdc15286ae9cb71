"""The saved folder is the trained function, read by plain classes alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from holdfast.core.errors import Defect, MachineError, ModelError
from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import LoadedClassifier, load_classifier
from holdfast.models.loading.options import LoadOptions

CLASSES = ("yes", "no", "it's “complicated”")
TOLERANCE = 1e-4


def train_a_little(loaded: LoadedClassifier, inputs: dict[str, torch.Tensor]) -> None:
    """Move every weight, the head most of all, so that nothing is at its initial value."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * 0.02)
        head = loaded.network.head
        head.weight.add_(torch.randn(head.weight.shape, generator=generator))
        head.bias.add_(torch.randn(head.bias.shape, generator=generator))


def plain_logits(folder: Path, texts: dict[str, torch.Tensor]) -> torch.Tensor:
    """What anybody gets, with nothing of Holdfast in between."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
    with torch.inference_mode():
        return model.eval()(**texts).logits


def relative_difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("pooling", ["auto", "own"])
def test_plain_reload_gives_the_logits_of_the_trained_network(
    architecture: str, pooling: str, temperature: float, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(
        str(make_model(architecture)), CLASSES, LoadOptions(seed=1), pooling=pooling
    )
    inputs = batch(loaded.tokenizer)
    assert inputs["attention_mask"].min() == 0, "the batch must hold padding"
    train_a_little(loaded, inputs)
    with torch.inference_mode():
        wanted = loaded.network(**inputs) / temperature
    loaded.network.save(tmp_path / "saved", loaded.tokenizer, temperature)
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    found = plain_logits(tmp_path / "saved", batch(again))
    assert wanted.std(dim=0).min() > 0.01, "texts must give unlike logits"
    assert relative_difference(found, wanted) <= TOLERANCE
    assert load_saved(tmp_path / "saved").classes == CLASSES


@pytest.mark.slow
def test_a_reloaded_tokenizer_reads_pairs_of_texts_as_in_training(
    architecture: str, make_model: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    pairs = (["the film", "a"], ["was it good ?", "not very"])
    wanted = loaded.tokenizer(*pairs, padding=True, return_tensors="pt")
    found = again(*pairs, padding=True, return_tensors="pt")
    assert set(found) == set(wanted) == set(loaded.network.accepts)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    if "token_type_ids" in wanted:
        assert wanted["token_type_ids"].max() == 1, "the second text must be marked"
    with torch.inference_mode():
        logits = loaded.network(**wanted)
    assert relative_difference(plain_logits(tmp_path / "saved", dict(found)), logits) <= TOLERANCE


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "deberta-v2", "roberta"])
def test_a_batch_of_one_and_a_batch_of_many_give_the_same_saved_logits(
    kind: str, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model(kind)), CLASSES)
    train_a_little(loaded, batch(loaded.tokenizer))
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    saved = load_saved(tmp_path / "saved")
    with torch.inference_mode():
        together = saved.network(**batch(saved.tokenizer, ["a", "the film was very long"]))
        alone = saved.network(**batch(saved.tokenizer, ["a"]))
    assert relative_difference(together[:1], alone) <= TOLERANCE


def test_a_saved_mean_pooling_model_can_be_trained_again(
    carrying: str, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    first = load_classifier(str(make_model(carrying)), CLASSES)
    inputs = batch(first.tokenizer)
    first.network.save(tmp_path / "saved", first.tokenizer)
    second = load_classifier(str(tmp_path / "saved"), ("x", "y"))
    assert len(second.network.layers()) == len(first.network.layers())
    with torch.inference_mode():
        torch.testing.assert_close(
            second.network.embed(**inputs), first.network.embed(**inputs), rtol=1e-4, atol=1e-5
        )


def test_two_classes_more_than_the_head_can_hold_twice_use_the_own_head(make_model: Any) -> None:
    classes = [f"class {index}" for index in range(17)]
    loaded = load_classifier(str(make_model("distilbert")), classes)
    assert loaded.network.pooling == "own"
    assert any("17 classes twice" in decision.because for decision in loaded.decisions)


def test_many_classes_fit_a_tanh_pooler(make_model: Any, batch: Any, tmp_path: Path) -> None:
    classes = [f"class {index}" for index in range(40)]
    loaded = load_classifier(str(make_model("bert")), classes)
    inputs = batch(loaded.tokenizer)
    train_a_little(loaded, inputs)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    with torch.inference_mode():
        wanted = loaded.network(**inputs)
    assert loaded.network.pooling == "mean"
    assert relative_difference(plain_logits(tmp_path / "saved", inputs), wanted) <= TOLERANCE


def test_a_deberta_with_a_convolution_after_its_only_block_carries_the_mean(
    make_model: Any, batch: Any, tmp_path: Path
) -> None:
    folder = make_model("deberta-v2", num_hidden_layers=1, conv_kernel_size=3)
    loaded = load_classifier(str(folder), CLASSES)
    inputs = batch(loaded.tokenizer)
    train_a_little(loaded, inputs)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    with torch.inference_mode():
        wanted = loaded.network(**inputs)
    assert relative_difference(plain_logits(tmp_path / "saved", inputs), wanted) <= TOLERANCE


def test_a_half_precision_reload_is_still_the_model(
    make_model: Any, batch: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES)
    inputs = batch(loaded.tokenizer)
    train_a_little(loaded, inputs)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    half = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", dtype=torch.float16
    )
    with torch.inference_mode():
        found, wanted = half.eval()(**inputs).logits.float(), loaded.network(**inputs)
    assert relative_difference(found, wanted) < 0.02


def test_the_saved_tokenizer_neither_cuts_nor_pads_by_itself(
    make_model: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES, LoadOptions(max_length=20))
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    loaded.tokenizer(["a", "the film"], padding=True, truncation=True, max_length=5)
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    long = "the film was very " * 3
    assert len(again(long)["input_ids"]) == 14
    assert len(again("a")["input_ids"]) == 3
    assert len(again(long * 9, truncation=True)["input_ids"]) == 20
    assert load_saved(tmp_path / "saved").max_length == 20


def test_saving_after_a_padded_call_writes_no_padding(make_model: Any, tmp_path: Path) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES)
    loaded.tokenizer(["a", "the film"], padding="max_length", truncation=True, max_length=5)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    inner = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    assert inner["truncation"] is None
    assert inner["padding"] is None


def test_the_saved_folder_is_float32_safetensors_without_code(
    make_model: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model("roberta")), CLASSES)
    loaded.network.to(torch.bfloat16)
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["RobertaForSequenceClassification"]
    assert config["dtype"] == "float32"
    assert config["id2label"] == {"0": "yes", "1": "no", "2": "it's “complicated”"}
    assert "auto_map" not in config
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}


def test_saving_changes_nothing_in_the_network(
    carrying: str, make_model: Any, batch: Callable[..., Any], tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model(carrying)), CLASSES)
    before = {name: value.clone() for name, value in loaded.network.state_dict().items()}
    loaded.network.save(tmp_path / "one", loaded.tokenizer, 3.0)
    loaded.network.save(tmp_path / "two", loaded.tokenizer, 3.0)
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_no_positive_number_is_a_defect(
    temperature: float, make_model: Any, tmp_path: Path
) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES)
    with pytest.raises(Defect, match="temperature"):
        loaded.network.save(tmp_path / "saved", loaded.tokenizer, temperature)


def test_an_unwritable_place_is_one_clear_error(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_classifier(str(make_model("bert")), CLASSES)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loaded.tokenizer, "save_pretrained", refuse)
    with pytest.raises(MachineError, match="could not be written"):
        loaded.network.save(tmp_path / "saved", loaded.tokenizer)


def test_a_folder_that_is_no_saved_classifier_is_refused(make_model: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_saved(tmp_path / "nothing")
    with pytest.raises(ModelError, match="names no classes"):
        load_saved(make_model("bert"))


@pytest.mark.slow
def test_the_embedded_model_is_saved_as_it_was(batch: Any, tmp_path: Path) -> None:
    loaded = load_classifier("embedded", CLASSES)
    with torch.no_grad():
        loaded.network.head.weight.mul_(50)
    texts = ["A touching, funny film.", "Where is Mount Everest?", "Dull! " * 60, "😀 naïve café"]
    inputs = batch(loaded.tokenizer, texts)
    with torch.inference_mode():
        wanted = loaded.network(**inputs) / 0.7
    loaded.network.save(tmp_path / "saved", loaded.tokenizer, 0.7)
    found = plain_logits(
        tmp_path / "saved", batch(AutoTokenizer.from_pretrained(tmp_path / "saved"), texts)
    )
    assert relative_difference(found, wanted) <= TOLERANCE
