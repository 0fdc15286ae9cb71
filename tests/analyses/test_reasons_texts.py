"""Texts, sentences and pictures with parts taken away, through real (tiny) models: against
Transformers asked by hand, and captum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients

from holdfast.analyses.explain.classifiers import (
    TextQuery,
    class_cases,
    label_cases,
    number_cases,
    read_row,
)
from holdfast.analyses.explain.explanation import reason_of
from holdfast.analyses.explain.masking import STEPS, integrated_gradients, leave_one_out
from holdfast.models.encoders.checkpoint import SavedClassifier, load_saved
from holdfast.models.encoders.classifier import load_classifier
from holdfast.models.loading.options import LoadOptions

TEXT = "w1 good w2 w3 bad w4"


@pytest.fixture(scope="module")
def saved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> SavedClassifier:
    loaded = load_classifier(str(tiny_model), ["no", "yes", "so"], LoadOptions(seed=3))
    folder = tmp_path_factory.mktemp("saved") / "model"
    with torch.no_grad():
        loaded.network.head.weight.mul_(20)
    loaded.network.save(folder, loaded.tokenizer)
    return load_saved(folder)


def _logits(saved: SavedClassifier, *texts: str) -> torch.Tensor:
    with torch.no_grad():
        return saved.network.model(**saved.tokenizer(*texts, return_tensors="pt")).logits[0]


def _odds(logits: torch.Tensor, place: int) -> float:
    chance = logits.double().softmax(dim=-1)[place]
    return float((chance / (1 - chance)).log())


def _case(saved: SavedClassifier, *texts: str) -> tuple[Any, TextQuery]:
    asked = TextQuery(saved, read_row(saved, texts))
    return class_cases(asked)[0], asked


def test_leave_one_out_is_the_text_with_a_mask_in_place_of_each_word(
    saved: SavedClassifier,
) -> None:
    case, asked = _case(saved, TEXT)
    place = int(_logits(saved, TEXT).argmax())
    assert case.target == saved.classes[place]
    words = TEXT.split()
    assert asked.read.row_units.words([TEXT]) == tuple(words)
    whole = _odds(_logits(saved, TEXT), place)
    assert case.masked_score.full == pytest.approx(whole, abs=1e-5)
    for unit, value in enumerate(leave_one_out(case.masked_score)):
        masked = " ".join("[MASK]" if i == unit else word for i, word in enumerate(words))
        assert value == pytest.approx(whole - _odds(_logits(saved, masked), place), abs=1e-5)


def test_without_a_mask_token_words_are_left_out(saved: SavedClassifier) -> None:
    tokenizer = saved.tokenizer
    mask, tokenizer.mask_token = tokenizer.mask_token, None
    try:
        case, _ = _case(saved, TEXT)
        found = leave_one_out(case.masked_score)
        # Texts of unlike length are padded to the longest.
        several = case.masked_score(np.tri(6, dtype=bool))
    finally:
        tokenizer.mask_token = mask
    words, place = TEXT.split(), saved.classes.index(case.target)
    whole = _odds(_logits(saved, TEXT), place)
    for unit, value in enumerate(found):
        rest = " ".join(words[:unit] + words[unit + 1 :])
        assert value == pytest.approx(whole - _odds(_logits(saved, rest), place), abs=1e-5)
    for count, value in enumerate(several, 1):
        short = " ".join(words[:count])
        assert value == pytest.approx(_odds(_logits(saved, short), place), abs=1e-5)


@pytest.mark.parametrize("start", ["all", "one"])
def test_integrated_gradients_are_captums(saved: SavedClassifier, start: str) -> None:
    """From all words masked; and from one, whose sum is then what leaving it out changes: a step of
    sequential integrated gradients."""
    case, asked = _case(saved, TEXT)
    place, model = saved.classes.index(case.target), saved.network.model
    ids = torch.from_numpy(asked.read.ids)[None]
    owner = asked.read.row_units.owner
    gone = owner >= 0 if start == "all" else owner == 1

    def score(ids: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids).logits.double()
        others = torch.cat([logits[:, :place], logits[:, place + 1 :]], dim=1)
        return logits[:, place] - torch.logsumexp(others, dim=1)

    oracle = LayerIntegratedGradients(score, model.get_input_embeddings())
    base = torch.where(torch.from_numpy(gone)[None], saved.tokenizer.mask_token_id, ids)
    theirs = oracle.attribute(ids, base, n_steps=STEPS, method="gausslegendre")[0].sum(dim=-1)
    by_word = np.bincount(owner[owner >= 0], weights=theirs.detach().numpy()[owner >= 0])
    if start == "all":
        found = case.gradients()
        np.testing.assert_allclose(found.values, by_word, atol=1e-5)
        whole = case.masked_score.full - case.masked_score.empty
        assert found.values.sum() - whole == pytest.approx(found.gap, abs=1e-4)
    else:
        assert by_word[1] == pytest.approx(leave_one_out(case.masked_score)[1], abs=0.02)


def test_gradients_of_pixels_are_captums() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(4 * 16, 3)
    )
    picture = torch.randn(1, 3, 6, 6)

    def score(pixels: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = net(pixels)[:, 1]
        return found

    ours = integrated_gradients(score, torch.zeros_like(picture), picture)
    theirs = IntegratedGradients(score).attribute(
        picture, torch.zeros_like(picture), n_steps=STEPS, method="gausslegendre"
    )
    np.testing.assert_allclose(ours.values.numpy(), theirs.detach().numpy(), atol=1e-6)
    assert abs(ours.gap) < 1e-5


def test_a_row_is_explained_alike_whatever_was_asked_before(saved: SavedClassifier) -> None:
    first = reason_of(_case(saved, TEXT)[0], TEXT).to_json()
    reason_of(_case(saved, "w9 w8")[0], "w9 w8")
    assert reason_of(_case(saved, TEXT)[0], TEXT).to_json() == first


def test_a_pair_has_the_words_of_both_texts(saved: SavedClassifier) -> None:
    texts = ("w1 good", "bad w2 w3")
    case, asked = _case(saved, *texts)
    assert asked.read.row_units.words(texts) == ("w1", "good", "bad", "w2", "w3")
    place = saved.classes.index(case.target)
    values = leave_one_out(case.masked_score)
    masked = _odds(_logits(saved, "w1 good", "[MASK] w2 w3"), place)
    assert values[2] == pytest.approx(case.masked_score.full - masked, abs=1e-5)


def test_labels_and_numbers_are_outputs_by_themselves(saved: SavedClassifier) -> None:
    asked = TextQuery(saved, read_row(saved, [TEXT]))
    logits = _logits(saved, TEXT).double().numpy()
    given = [place for place in np.argsort(-logits) if logits[place] > 0]
    cases = label_cases(asked)
    names = [saved.classes[place] for place in given] or [saved.classes[logits.argmax()]]
    assert [one.target for one in cases] == names
    assert cases[0].masked_score.full == pytest.approx(logits.max(), abs=1e-5)
    (number,) = number_cases(asked)
    assert number.masked_score.full == pytest.approx(logits[0], abs=1e-5)
    assert number.to_probability is None
    masked = _logits(saved, TEXT.replace("good", "[MASK]"))
    assert leave_one_out(number.masked_score)[1] == pytest.approx(
        logits[0] - float(masked[0]), abs=1e-5
    )


def test_what_stands_beside_a_text_is_part_of_its_score(saved: SavedClassifier) -> None:
    layer: Callable[[Any], Any] = lambda logits: 0.5 * logits + np.array([1.0, 2.0, -1.0])  # noqa: E731
    plain = TextQuery(saved, read_row(saved, [TEXT]))
    both = TextQuery(saved, read_row(saved, [TEXT]), layer)
    masks = np.ones((1, 6), dtype=bool)
    np.testing.assert_allclose(both.outputs(masks), layer(plain.outputs(masks)))
    assert class_cases(both)[0].gradients is None
