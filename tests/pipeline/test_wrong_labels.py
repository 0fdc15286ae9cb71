"""Training labels that the other rows contradict: which rows a fit learns from, what it says."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.core.errors import RecipeError
from holdfast.core.run_facts import LabelNoise
from holdfast.core.updates import learned_rows, rows_drawn
from holdfast.data.memory.texts import table_from_texts
from holdfast.fits import cross_fitting
from holdfast.fits import wrong_labels as module
from holdfast.fits.compose import make_training_plan
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.fit import make_job
from holdfast.fits.run_facts import make_run_facts, with_probe
from holdfast.fits.wrong_labels import CHECK, KEY, NAME, WrongLabels
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.training.loop import fit as train
from holdfast.training.machine.machine import make_accelerator

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


def learned(plan: Any) -> np.ndarray:
    """The rows of the source that a fit learns from."""
    return np.asarray(plan.train.rows)[learned_rows(plan.train)]


def test_wrong_training_labels_are_not_learned_and_listed() -> None:
    classes, labels = wrong_labels()
    plan = make_training_plan(prepared_with(labels, f"{KEY}=true"), TRAIN, VALID)
    kept = learned(plan)
    dropped = np.setdiff1d(TRAIN, kept)
    wrong = labels != classes
    assert (plan.train.labels == labels[TRAIN]).all()
    assert wrong[kept].sum() <= 0.4 * wrong[TRAIN].sum()
    assert wrong[dropped].mean() > 0.6
    assert (plan.valid.labels == labels[VALID]).all()
    (finding,) = (one for one in plan.findings if one.check == CHECK)
    assert sorted(finding.rows) == dropped.tolist()
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    told = f"does not learn from {len(dropped)} of {len(TRAIN)} training rows"
    assert told in decision.because
    # The plan is that of all rows, and its updates have as many rows, each one that is kept.
    whole = make_training_plan(prepared_with(labels), TRAIN, VALID)
    assert plan.recipe.train == whole.recipe.train
    assert [one.steps for one in plan.plan.phases] == [one.steps for one in whole.plan.phases]
    for phase in plan.plan.phases:
        pool = phase.pool(plan.splits.training_examples, 0)
        drawn = [rows_drawn(phase.source, pool, step) for step in range(phase.steps)]
        assert set(TRAIN[np.concatenate(drawn)]) == set(kept)


def test_a_head_is_fitted_to_the_rows_that_are_left() -> None:
    """The linear probe is the one of a fit that never had the other rows."""
    _, labels = wrong_labels()
    settings = ["train.max_steps=1", "train.folds=0"]
    plan = make_training_plan(prepared_with(labels, f"{KEY}=true", *settings), TRAIN, VALID)
    without = make_training_plan(prepared_with(labels, *settings), learned(plan), VALID)
    heads = []
    for one in (plan, without):
        job, listeners = make_job(one, make_accelerator(one.recipe.train.precision))
        train(job)
        heads.append(next(listener.baseline for listener in listeners))
    assert len(plan.train) > len(without.train)
    for name, values in heads[0].items():
        torch.testing.assert_close(values, heads[1][name])


@pytest.mark.parametrize(
    ("settings", "drops"),
    [(("control.policy=adapt",), True), (("control.policy=adapt", f"{KEY}=false"), False)],
)
def test_the_policy_that_acts_leaves_them_out(settings: tuple[str, ...], drops: bool) -> None:
    _, labels = wrong_labels()
    plan = make_training_plan(prepared_with(labels, *settings), TRAIN, VALID)
    assert (len(learned(plan)) < len(TRAIN)) == drops
    # The stored recipe says so, and a fold of it, which has no policy, does the same.
    assert plan.recipe.methods[NAME] is drops
    assert cross_fitting.recipe_of_fold(plan).methods[NAME] is drops


def test_rows_that_are_contradicted_predict_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = wrong_labels()
    fitted: list[np.ndarray] = []
    real = module.cross_fit

    def predict(vectors: Any, texts: Any, given: np.ndarray, **more: Any) -> Any:
        fitted.append(given.copy())
        return real(vectors, texts, given, **more)

    monkeypatch.setattr(module, "cross_fit", predict)
    plan = make_training_plan(prepared_with(labels, f"{KEY}=true"), TRAIN, VALID)
    first, second = fitted
    assert (first == labels[TRAIN]).all()
    unlabelled = second == -1
    assert (second[~unlabelled] == labels[TRAIN][~unlabelled]).all()
    # About as many as are left out in the end, which the second round decides.
    assert 0 < unlabelled.sum() <= 2 * (len(TRAIN) - len(learned(plan)))


def test_a_class_loses_at_most_half_of_its_rows() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    wrong = WrongLabels(np.array([0.9, 0.8, 0.95, 0.1, 0.7, 0.6, 0.2, 0.2]), np.arange(8) != 3, 9.0)
    # Two of five, two of three were more than half: the most probable ones.
    assert wrong.dropped(labels).tolist() == [0, 2, 5]


@pytest.mark.parametrize("settings", [(), (f"{KEY}=false",)])
def test_without_the_method_labels_stay(settings: tuple[str, ...]) -> None:
    _, labels = wrong_labels()
    plan = make_training_plan(prepared_with(labels, *settings), TRAIN, VALID)
    assert (learned(plan) == TRAIN).all()


def test_right_labels_stay() -> None:
    classes, _ = wrong_labels()
    plan = make_training_plan(prepared_with(classes, f"{KEY}=true"), TRAIN, VALID)
    assert (plan.train.labels == classes[TRAIN]).all()
    assert (learned(plan) == TRAIN).all()
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    assert decision.chosen == "no rows excluded"


def test_cross_fitted_rows_are_all_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model learns from fewer rows than its evaluations have, and their vectors are computed
    once for all folds."""
    real, passes = module.last_layer_vectors, []
    monkeypatch.setattr(
        module, "last_layer_vectors", lambda *given: passes.append(1) or real(*given)
    )
    classes, labels = wrong_labels()
    prepared = prepared_with(labels, f"{KEY}=true", "train.max_steps=4")
    fitted = cross_fit(prepared, EVERYTHING, 2)
    assert passes == [1]
    # The labels that are left would give too low a share of wrong ones in the verdict.
    facts = make_run_facts(fitted.training_plan)
    curve = next(one.curve for one in fitted.listeners)
    assert curve.labels is None
    measured = SimpleNamespace(curve=replace(curve, labels=LabelNoise(0.1, 0.05, 0.2, 0.8, 0.3, 9)))
    known = [with_probe(one, [measured]) for one in (facts, replace(facts, findings=()))]
    assert [one.label_noise is None for one in known] == [True, False]
    kept = learned(fitted.training_plan)
    assert (labels != classes)[kept].sum() < 0.4 * (labels != classes).sum()
    assert (fitted.training_plan.valid.labels == labels).all()
    last = fitted.trained.history[-1]
    assert last.valid_losses.shape == (COUNT,)
    assert np.isfinite(last.valid_losses).all()
    right = last.valid_logits.argmax(axis=1) == labels
    assert (np.asarray(last.valid_correct, dtype=bool) == right).all()


@pytest.mark.slow
def test_folds_have_the_phases_of_a_fit_without_some_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten epochs are a phase more for all rows than for those of one fold."""
    monkeypatch.setattr(module, "EVIDENCE", -np.inf)
    monkeypatch.setattr(module, "LEAST_SHARE", 0.0)
    monkeypatch.setattr(WrongLabels, "dropped", lambda _, labels: np.arange(0, len(labels), 4))
    _, labels = wrong_labels()
    few = np.arange(170)
    prepared = prepared_with(labels, f"{KEY}=true", "train.epochs=10", "train.evaluations=1")
    fitted = cross_fit(prepared, few, 2)
    assert len(learned(fitted.training_plan)) < 0.8 * len(few)
    assert len(fitted.trained.history[-1].valid_losses) == len(few)


def test_many_rows_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = wrong_labels()
    monkeypatch.setattr(module, "MOST_ROWS", COUNT - 1)
    plan = make_training_plan(prepared_with(labels, f"{KEY}=true"), TRAIN, VALID)
    assert (learned(plan) == TRAIN).all()
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    assert "300 training and validation rows exceed 299" in decision.because


def test_rows_without_one_class_are_refused() -> None:
    texts, classes = texts_and_classes()
    recipe = override(Recipe(task="text-classification"), ["model.name=embedded", f"{KEY}=true"])
    pairs = table_from_texts(
        list(zip(texts, texts[::-1], strict=True)), [NAMES[k] for k in classes]
    )
    with pytest.raises(RecipeError, match="needs single texts with one class each"):
        make_training_plan(prepare(recipe, pairs), TRAIN, VALID)
