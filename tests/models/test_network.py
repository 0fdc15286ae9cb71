"""Pooling, inputs, seeds, dropout: what the network computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import ModelError, RecipeError
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.encoders.network import MeanPool, masked_mean
from holdfast.models.loading.options import LoadOptions

CLASSES = ("a", "b", "c")


def mean_by_hand(hidden: torch.Tensor, mask: torch.Tensor) -> np.ndarray[Any, Any]:
    """One text, one token at a time, in float64."""
    rows = []
    for states, real in zip(hidden.double().numpy(), mask.numpy(), strict=True):
        total = np.zeros(states.shape[1])
        for state, is_real in zip(states, real, strict=True):
            total += state if is_real else 0
        rows.append(total / real.sum())
    return np.stack(rows)


def test_embed_is_the_mean_over_the_real_tokens(
    architecture: str, make_model: Any, batch: Any
) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES)
    inputs = batch(loaded.tokenizer)
    with torch.inference_mode():
        hidden = loaded.network.hidden(**inputs)
        found = loaded.network.embed(**inputs).numpy()
    np.testing.assert_allclose(
        found, mean_by_hand(hidden, inputs["attention_mask"]), rtol=1e-4, atol=1e-5
    )


def test_mean_features_are_the_normed_mean(make_model: Any, batch: Any) -> None:
    loaded = load_classifier(str(make_model("roberta")), CLASSES)
    inputs = batch(loaded.tokenizer)
    with torch.inference_mode():
        hidden = loaded.network.hidden(**inputs)
        found = loaded.network.features(**inputs).numpy()
    mean = mean_by_hand(hidden, inputs["attention_mask"])
    wanted = (mean - mean.mean(axis=1, keepdims=True)) / mean.std(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_logits_are_the_head_of_the_features(
    architecture: str, make_model: Any, batch: Any
) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES, pooling="own")
    inputs = batch(loaded.tokenizer)
    with torch.inference_mode():
        features = loaded.network.features(**inputs)
        wanted = features @ loaded.network.head.weight.T + loaded.network.head.bias
        torch.testing.assert_close(loaded.network(**inputs), wanted)


def test_padding_does_not_change_a_mean() -> None:
    hidden = torch.randn(2, 3, 4)
    padded = torch.cat([hidden, torch.full((2, 5, 4), 1e4)], dim=1)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0]] * 2)
    torch.testing.assert_close(masked_mean(padded, mask), hidden.mean(dim=1))
    torch.testing.assert_close(MeanPool()(hidden, None), MeanPool()(padded, mask))


def test_a_row_without_tokens_is_not_a_number() -> None:
    assert torch.isnan(masked_mean(torch.ones(1, 2, 3), torch.zeros(1, 2))).all()


def test_a_mean_of_bfloat16_is_taken_in_float32() -> None:
    hidden = torch.ones(1, 1000, 2, dtype=torch.bfloat16)
    assert masked_mean(hidden, torch.ones(1, 1000)).tolist() == [[1.0, 1.0]]


def test_automatic_pooling_is_the_mean_wherever_it_can_be_carried(
    architecture: str, make_model: Any
) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES)
    (reason,) = [d for d in loaded.decisions if d.what == "model.pooling"]
    assert loaded.network.pooling == reason.chosen == loaded.facts["pooling"]
    assert reason.chosen == ("own" if architecture == "albert" else "mean")
    assert reason.because


def test_albert_says_why_it_cannot_take_the_mean(make_model: Any) -> None:
    folder = str(make_model("albert"))
    with pytest.raises(ModelError, match="share one set of weights"):
        load_classifier(folder, CLASSES, pooling="mean")


def test_inputs_that_a_model_does_not_take_are_left_out(
    architecture: str, make_model: Any, batch: Any
) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES)
    inputs = batch(loaded.tokenizer)
    extra = {"token_type_ids": torch.ones_like(inputs["input_ids"]), "labels": torch.zeros(4)}
    takes_segments = architecture in ("bert", "albert", "electra")
    assert ("token_type_ids" in inputs) == takes_segments
    with torch.inference_mode():
        same = torch.equal(loaded.network(**inputs), loaded.network(**(inputs | extra)))
    assert same != takes_segments


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(make_model: Any) -> None:
    folder = str(make_model("roberta"))
    one, two, other = (
        load_classifier(folder, CLASSES, LoadOptions(seed=seed), pooling="own").network
        for seed in (1, 1, 2)
    )
    for (name, left), right in zip(
        one.state_dict().items(), two.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), name
    assert not torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.pool.dense.weight, other.pool.dense.weight)
    assert 0.01 < float(one.head.weight.detach().std()) < 0.03
    assert not one.head.bias.any()


def test_loading_leaves_the_global_generator_alone(make_model: Any) -> None:
    folder = str(make_model("roberta"))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    load_classifier(folder, CLASSES, LoadOptions(seed=9))
    assert torch.equal(torch.rand(3), wanted)


def rates(network: torch.nn.Module) -> set[float]:
    return {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)}


@pytest.mark.parametrize("pooling", ["own", "auto"])
def test_a_dropout_rate_is_everywhere(architecture: str, pooling: str, make_model: Any) -> None:
    folder = str(make_model(architecture))
    network = load_classifier(folder, CLASSES, LoadOptions(dropout=0.25), pooling=pooling).network
    # ALBERT and the mean have no dropout before their pooling layer.
    inner = {0.0} if architecture in ("albert", "bert", "distilbert", "modernbert") else set()
    if architecture == "modernbert":
        assert all(layer.attn.attention_dropout == 0.25 for layer in network.backbone.layers)
    assert rates(network) - inner == {0.25}


def test_no_dropout_makes_training_mode_deterministic(
    architecture: str, make_model: Any, batch: Any
) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES, LoadOptions(dropout=0.0))
    inputs = batch(loaded.tokenizer)
    with torch.inference_mode():
        calm = loaded.network(**inputs)
        torch.testing.assert_close(loaded.network.train()(**inputs), calm, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "model.dropout"),
        ({"dropout": -0.1}, "model.dropout"),
        ({"max_length": 3}, "model.max_length"),
        ({"max_length": 65}, "64 positions"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, Any], message: str, make_model: Any
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_classifier(str(make_model("bert")), CLASSES, LoadOptions(**settings))


def test_an_unknown_pooling_is_refused(make_model: Any) -> None:
    with pytest.raises(RecipeError, match=r"model\.pooling"):
        load_classifier(str(make_model("bert")), CLASSES, pooling="max")


@pytest.mark.parametrize("classes", [(), ("one",), ("same", "same")])
def test_fewer_than_two_different_classes_are_refused(classes: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="two different"):
        load_classifier("embedded", classes)


def test_every_weight_gets_a_gradient(architecture: str, make_model: Any, batch: Any) -> None:
    loaded = load_classifier(str(make_model(architecture)), CLASSES)
    loaded.network(**batch(loaded.tokenizer)).square().sum().backward()
    without = [n for n, p in loaded.network.named_parameters() if p.grad is None]
    assert not without


def test_the_embedded_model_tells_like_from_unlike(batch: Any) -> None:
    loaded = load_classifier("embedded", CLASSES)
    texts = ["A wonderful movie.", "What a great film!", "The invoice is due on Friday."]
    with torch.inference_mode():
        rows = loaded.network.embed(**batch(loaded.tokenizer, texts))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(rows[0], rows[1], dim=0) > cosine(rows[0], rows[2], dim=0) + 0.3
    assert loaded.max_length == 256
    assert loaded.facts["parameters"] == 22_565_376 + 3 * 385 - 384 * 385 + 147_840
