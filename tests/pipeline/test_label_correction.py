"""Training labels that the other rows contradict: what a fit learns from, and what it says."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RecipeError
from holdfast.data.memory.texts import table_from_texts
from holdfast.fits.compose import make_training_plan
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.label_correction import CHECK, KEY
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override

WORDS = {
    "cooking": "oven flour butter onion sauce recipe garlic bake dish pepper soup cheese",
    "football": "goal striker referee match league penalty coach keeper stadium team",
    "banking": "loan interest account mortgage credit deposit rate branch transfer cash",
}
NAMES = sorted(WORDS)
COUNT = 300


def texts_and_classes() -> tuple[list[str], np.ndarray]:
    """Texts of which some use words of other classes: where every text were as certain as the
    others, wrong labels would look like doubt."""
    draw = random.Random(0)
    texts, classes = [], [place % 3 for place in range(COUNT)]
    for k in classes:
        share = draw.choice([0.5, 0.7, 1.0])
        own, others = WORDS[NAMES[k]].split(), " ".join(WORDS.values()).split()
        texts.append(
            " ".join(draw.choice(own if draw.random() < share else others) for _ in "12345")
        )
    return texts, np.array(classes)


def prepared_with(labels: np.ndarray, *settings: str) -> Any:
    texts, _ = texts_and_classes()
    recipe = override(
        Recipe(task="text-classification"),
        ["model.name=embedded", "train.threads=1", "train.matmul=default", *settings],
    )
    return prepare(recipe, table_from_texts(texts, [NAMES[k] for k in labels]))


def wrong_labels() -> tuple[np.ndarray, np.ndarray]:
    """The classes, and labels of which a quarter of one class is wrong."""
    _, classes = texts_and_classes()
    labels = classes.copy()
    of_one = np.flatnonzero(classes == 1)
    labels[of_one[::4]] = 2
    return classes, labels


EVERYTHING = np.arange(COUNT)
VALID = EVERYTHING[::6]
TRAIN = np.setdiff1d(EVERYTHING, VALID)


def test_training_labels_are_corrected_and_listed_and_others_stay() -> None:
    classes, labels = wrong_labels()
    plan = make_training_plan(prepared_with(labels, f"{KEY}=true"), TRAIN, VALID)
    wrong_before = (labels[TRAIN] != classes[TRAIN]).sum()
    assert (plan.train.labels != classes[TRAIN]).sum() <= 0.4 * wrong_before
    assert plan.train.weights.shape == TRAIN.shape
    assert (plan.train.weights > 1 / 3).all()
    assert plan.train.weights.mean() > 0.8
    assert (plan.valid.labels == labels[VALID]).all()
    (finding,) = (one for one in plan.findings if one.check == CHECK)
    changed = TRAIN[plan.train.labels != labels[TRAIN]]
    assert sorted(finding.rows) == changed.tolist()
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    assert f"of the {len(TRAIN)} training rows are wrong" in decision.because
    assert f"{len(changed)} rows whose label is probably wrong" in decision.because
    # The shared data are those of other fits, too.
    assert (plan.prepared.examples.labels == labels).all()


@pytest.mark.parametrize("settings", [(), (f"{KEY}=false",)])
def test_without_the_method_labels_stay(settings: tuple[str, ...]) -> None:
    _, labels = wrong_labels()
    plan = make_training_plan(prepared_with(labels, *settings), TRAIN, VALID)
    assert (plan.train.labels == labels[TRAIN]).all()
    assert plan.train.weights is None


def test_right_labels_stay() -> None:
    classes, _ = wrong_labels()
    plan = make_training_plan(prepared_with(classes, f"{KEY}=true"), TRAIN, VALID)
    assert (plan.train.labels == classes[TRAIN]).all()
    assert plan.train.weights is None
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    assert decision.chosen == "no label"


def test_cross_fitted_rows_are_evaluated_by_their_own_labels() -> None:
    """The model learns from corrected labels; its evaluations are by those of the file."""
    classes, labels = wrong_labels()
    prepared = prepared_with(labels, f"{KEY}=true", "train.max_steps=4")
    fitted = cross_fit(prepared, EVERYTHING, 2)
    assert (fitted.training_plan.train.labels != classes).sum() < 0.4 * (labels != classes).sum()
    assert (fitted.training_plan.valid.labels == labels).all()
    last = fitted.trained.history[-1]
    right = last.valid_logits.argmax(axis=1) == labels
    assert (np.asarray(last.valid_correct, dtype=bool) == right).all()


def test_rows_without_one_class_are_refused() -> None:
    texts, classes = texts_and_classes()
    recipe = override(Recipe(task="text-classification"), ["model.name=embedded", f"{KEY}=true"])
    pairs = table_from_texts(
        list(zip(texts, texts[::-1], strict=True)), [NAMES[k] for k in classes]
    )
    with pytest.raises(RecipeError, match="needs single texts with one class each"):
        make_training_plan(prepare(recipe, pairs), TRAIN, VALID)
