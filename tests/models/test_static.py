"""A static classifier: its table, its phrases, and its function against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import erf
from transformers import AutoModelForSequenceClassification

from holdfast.models.encoders.checkpoint import load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.encoders.static import (
    frequent_phrases,
    static_classifier,
    token_table,
    token_weights,
)

CLASSES = ("bad", "fine", "good")
TEXTS = ["w1 w2 w3 w4", "w5 w1 w2 w6 w7 w8 w9", "w2", "w1 w2", "w3 w3 w1"]


@pytest.fixture
def static(tiny_model: Path) -> Any:
    return static_classifier(load_classifier(str(tiny_model), CLASSES), TEXTS, seed=0, blocks=0)


def forward(folder: Path, ids: list[list[int]], eps: float) -> np.ndarray:
    """The logits of texts of these ids by the stored weights alone."""
    weights = load_file(folder / "model.safetensors")
    table, gain = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
    logits = []
    for one in ids:
        vectors = table[one].astype(np.float64)
        vectors = gain * vectors / np.sqrt((vectors**2).mean(axis=1, keepdims=True) + eps)
        hidden = weights["dense.weight"] @ vectors.mean(axis=0) + weights["dense.bias"]
        hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
        logits.append(weights["classifier.weight"] @ hidden + weights["classifier.bias"])
    return np.array(logits)


def test_a_saved_one_computes_what_numpy_does_of_its_weights(static: Any, tmp_path: Path) -> None:
    static.network.save(tmp_path, static.tokenizer, temperature=2.0)
    saved = load_saved(tmp_path)
    batch = saved.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = saved.network(**batch).numpy()
        trained = static.network(**batch).numpy() / 2
    ids = [saved.tokenizer(text)["input_ids"] for text in TEXTS]
    np.testing.assert_allclose(found, forward(tmp_path, ids, 1.0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found, trained, rtol=1e-5, atol=1e-7)


def test_the_order_of_words_counts_only_within_phrases(static: Any) -> None:
    def logits(text: str) -> Any:
        with torch.inference_mode():
            return static.network(**static.tokenizer(text, return_tensors="pt")).numpy()

    np.testing.assert_allclose(logits("w3 w4 w5"), logits("w5 w3 w4"), rtol=1e-5)
    assert "w1 w2" in static.tokenizer.get_vocab()
    assert not np.allclose(logits("w1 w2 w3"), logits("w2 w1 w3"), rtol=1e-3)


def test_a_block_begins_as_the_identity_and_learns_the_order_of_words(
    static: Any, tiny_model: Path, tmp_path: Path
) -> None:
    made = static_classifier(load_classifier(str(tiny_model), CLASSES), TEXTS, seed=0)
    batch = made.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        begun, bare = (one.network.features(**batch) for one in (made, static))
    torch.testing.assert_close(begun, bare)
    assert made.network.backbone.config.num_hidden_layers == 1
    drawn = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in made.network.state_dict().values():
            weight += 0.5 * torch.randn(weight.shape, generator=drawn)
    made.network.save(tmp_path, made.tokenizer)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        # A text's logits are the same beside a longer text.
        alone = [made.network(**made.tokenizer(one, return_tensors="pt")) for one in TEXTS]
        torch.testing.assert_close(torch.cat(alone), made.network(**batch), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.cat(alone), plain(**batch).logits, rtol=1e-4, atol=1e-5)
        first, second = (
            made.network(**made.tokenizer(one, return_tensors="pt")) for one in ("w3 w4", "w4 w3")
        )
    assert not torch.allclose(first, second, rtol=1e-3)


def test_phrases_are_those_that_are_seen_three_times(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_classifier(str(tiny_model), CLASSES).tokenizer
    texts = ["w1 w2 w3", "w1 w2 w4", "w5 w1 w2", "w6 w7, w8", "w6 w7 w8", "w6 w7 w8"]
    # A word of one token needs no other, and no phrase spans a comma.
    assert [(one.token, one.count) for one in frequent_phrases(tokenizer, texts)] == [("w1 w2", 3)]
    both = frequent_phrases(tokenizer, [*texts, *texts])
    assert [one.token for one in both[:2]] == ["w1 w2", "w6 w7"]
    assert frequent_phrases(tokenizer, []) == []
    monkeypatch.setattr("holdfast.models.encoders.static.MAX_PHRASES", 2)
    assert frequent_phrases(tokenizer, [*texts, *texts]) == both[:2]


def test_a_table_is_its_principal_components_with_weights() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 8)) * np.arange(1, 9) + 3
    weights = token_weights(60)
    table = token_table(features.astype(np.float32), weights, 3)
    centred = features - features.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (u * s)[:, :3] * weights[:, None]
    expected /= np.sqrt((expected**2).mean()) * 2
    # Up to the sign of each axis.
    np.testing.assert_allclose(np.abs(table), np.abs(expected), rtol=1e-3, atol=1e-5)
    assert np.sqrt((table**2).mean()) == pytest.approx(0.5, rel=1e-5)


def test_frequent_tokens_count_less() -> None:
    weights = token_weights(1000)
    chances = 1 / np.arange(1, 1001) / sum(1 / k for k in range(1, 1001))
    np.testing.assert_allclose(weights, 1e-4 / (1e-4 + chances), rtol=1e-5)
    assert (np.diff(weights) > 0).all()


def test_it_begins_the_same_for_a_seed_and_draws_from_no_generator(tiny_model: Path) -> None:
    loaded = load_classifier(str(tiny_model), CLASSES)
    before = torch.get_rng_state()
    first, second = (static_classifier(loaded, TEXTS, seed=1) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(
        first.network.state_dict().values(), second.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    assert len(first.tokenizer) > len(loaded.tokenizer)
