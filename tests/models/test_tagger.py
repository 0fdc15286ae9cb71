"""Taggers of every architecture: the saved folder is the trained function in plain Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from holdfast.core.errors import ModelError
from holdfast.models.base import AdapterSpec
from holdfast.models.encoders.checkpoint import load_saved_tagger
from holdfast.models.encoders.classifier import load_classifier, load_tagger
from holdfast.models.loading.options import LoadOptions

TAGS = ("O", "B-X", "I-X")


def moved(network: torch.nn.Module) -> None:
    """Every weight elsewhere than where it began."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def real(inputs: dict[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """Logits of the tokens that are no padding."""
    return logits[:, -inputs["attention_mask"].shape[1] :][inputs["attention_mask"].bool()]


def gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_plain_reload_gives_the_logits_of_every_token(
    architecture: str, temperature: float, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    loaded = load_tagger(str(make_model(architecture)), TAGS, LoadOptions(seed=1))
    inputs = batch(loaded.tokenizer)
    moved(loaded.network)
    with torch.inference_mode():
        wanted = real(inputs, loaded.network(**inputs)) / temperature
    loaded.network.save(tmp_path / "saved", loaded.tokenizer, temperature)
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved").eval()
    again = batch(AutoTokenizer.from_pretrained(tmp_path / "saved"))
    with torch.inference_mode():
        found = real(again, plain(**again).logits)
    assert wanted.std(dim=0).min() > 0.01, "tokens must give unlike logits"
    assert gap(found, wanted) <= 1e-4
    assert plain.config.id2label == dict(enumerate(TAGS))
    assert load_saved_tagger(tmp_path / "saved").classes == TAGS


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_an_adapter_is_a_peft_folder_with_the_same_logits(
    kind: str, make_model: Any, batch: Any, tmp_path: Path
) -> None:
    spec = AdapterSpec(kind, rank=2)
    loaded = load_tagger(str(make_model("bert")), TAGS, LoadOptions(seed=1, adapter=spec))
    assert loaded.network.head.weight.requires_grad
    inputs = batch(loaded.tokenizer)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in loaded.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
        wanted = real(inputs, loaded.network(**inputs))
    loaded.network.save(tmp_path / "saved", loaded.tokenizer)
    with torch.inference_mode():
        found = real(inputs, load_saved_tagger(tmp_path / "saved").network(**inputs))
    assert gap(found, wanted) <= 1e-4


def test_a_classifier_that_carries_its_mean_can_become_a_tagger(
    make_model: Any, batch: Any, tmp_path: Path
) -> None:
    """The block that carries the mean is taken off: what is tagged are the model's own states."""
    classifier = load_classifier(str(make_model("bert")), ("yes", "no"), pooling="mean")
    classifier.network.save(tmp_path / "classifier", classifier.tokenizer)
    tagger = load_tagger(str(tmp_path / "classifier"), TAGS)
    inputs = batch(tagger.tokenizer)
    with torch.inference_mode():
        wanted = real(inputs, classifier.network.hidden(**inputs))
        found = real(inputs, tagger.network.hidden(**inputs))
    assert gap(found, wanted) <= 1e-4


def test_a_tokenizer_that_does_not_tell_its_words_is_refused(
    make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = make_model("bert")
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(ModelError, match="does not map tokens to words"):
        load_tagger(str(folder), TAGS)
