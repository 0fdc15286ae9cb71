from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from holdfast.core.errors import Defect
from holdfast.tasks.generation.token_scores import (
    TokenOutputs,
    compare_tokens,
    score_tokens,
    token_chances,
)
from holdfast.tasks.lm.losses import CausalLM, EncodedTokens


def outputs(losses: list[float], tokens: list[int], correct: list[int], groups=None):
    n = len(losses)
    return TokenOutputs(
        np.arange(n), np.array(losses), np.array(tokens), np.array(correct, float), groups
    )


def test_loss_and_perplexity_are_over_tokens() -> None:
    made = outputs([1.0, 3.0], [3, 1], [2, 0])
    metrics = score_tokens(made).metrics
    assert made.loss == metrics["loss"].value == pytest.approx(1.5)
    assert metrics["token_loss"].value == pytest.approx(1.5)
    assert metrics["perplexity"].value == pytest.approx(math.exp(1.5))
    assert metrics["token_accuracy"].value == pytest.approx(0.5)


def test_the_interval_of_the_loss_is_near_the_t_interval() -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(2.0, 0.5, 400)
    found = score_tokens(outputs(losses.tolist(), [5] * 400, [2] * 400)).metrics["loss"]
    half = 1.96 * losses.std(ddof=1) / 20
    assert found.low == pytest.approx(losses.mean() - half, abs=0.01)
    assert found.high == pytest.approx(losses.mean() + half, abs=0.01)


def test_no_rows_and_infinite_losses_are_undefined() -> None:
    assert score_tokens(outputs([], [], [])).metrics["loss"].value is None
    infinite = score_tokens(outputs([1.0, math.inf], [1, 1], [0, 0])).metrics
    assert infinite["perplexity"].why == "a loss is not finite"


def test_a_better_model_is_said_with_its_gain() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(3.0, 1.0, 200)
    after = before - 0.5 + rng.normal(0, 0.1, 200)
    counts = [4] * 200
    first = outputs(after.tolist(), counts, counts)
    found = compare_tokens(first, outputs(before.tolist(), counts, counts))
    assert found["difference"].low < -0.45 < found["difference"].high + 0.1
    assert found["p_value"] < 0.01
    assert "the fine-tuned model is better by 0.5" in found["because"]


def test_a_difference_is_that_of_the_tokens_and_its_interval_of_the_rows() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, 60, 300)
    before = rng.normal(3.0, 1.0, 300)
    # Better by 0.4 on short answers, worse by 0.2 on long ones, which most tokens are in.
    after = before + np.where(tokens > 30, 0.2, -0.4) + rng.normal(0, 0.1, 300)
    first = outputs(after.tolist(), tokens.tolist(), tokens.tolist())
    second = outputs(before.tolist(), tokens.tolist(), tokens.tolist())
    found = compare_tokens(first, second)["difference"]
    whole = [np.average(one, weights=tokens) for one in (after, before)]
    assert found.value == pytest.approx(whole[0] - whole[1])
    assert found.value > 0 > (after - before).mean()

    # SciPy draws rows with their tokens.
    def ratio(top: np.ndarray, tokens: np.ndarray, axis: int) -> np.ndarray:
        return top.sum(axis=axis) / tokens.sum(axis=axis)

    oracle = stats.bootstrap(
        ((after - before) * tokens, tokens),
        ratio,
        paired=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found.low == pytest.approx(oracle.low, abs=0.004)
    assert found.high == pytest.approx(oracle.high, abs=0.004)


def test_the_same_model_cannot_be_told_from_itself() -> None:
    rng = np.random.default_rng(2)
    one = outputs(rng.normal(3, 1, 50).tolist(), [2] * 50, [1] * 50)
    other = outputs((one.losses + rng.normal(0, 1, 50)).tolist(), [2] * 50, [1] * 50)
    assert "no difference" in compare_tokens(one, other)["because"]
    same = compare_tokens(one, one)
    assert same["p_value"] is None
    assert same["because"] == "The difference cannot be tested: all differences are equal."


def test_other_rows_are_refused() -> None:
    with pytest.raises(Defect, match="same rows"):
        compare_tokens(outputs([1.0], [1], [1]), outputs([1.0, 2.0], [1, 1], [1, 1]))


def test_without_examples_no_token_has_a_chance() -> None:
    none = np.zeros(0, np.int64)
    examples = EncodedTokens(none, none > 0, np.zeros(1, np.int64), none, none, none > 0, none)
    networks: Any = [torch.nn.Identity(), torch.nn.Identity()]
    chances, owner = token_chances(networks, CausalLM(), examples, torch.device("cpu"))
    assert chances.shape == (0, 2)
    assert owner.tolist() == []


def test_one_row_has_no_interval() -> None:
    one = outputs([1.0], [1], [1])
    assert score_tokens(one).metrics["loss"].low is None
    assert compare_tokens(one, one)["difference"].low is None
