"""The estimator is one that scikit-learn accepts, and the same training as the command's."""

from __future__ import annotations

import datetime
import enum
import json
import pickle
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import holdfast
from holdfast import TextClassifier
from holdfast.core.errors import DataError, ModelError, RecipeError, RunError
from holdfast.training.machine.signals import StopSignals

SHORT = {"train.max_steps": 6, "train.threads": 1, "methods.contrast": False}


def texts_and_labels(count: int = 60) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(count) % 2)
    marks = ("bad", "good")
    texts = [
        " ".join([*(f"w{k}" for k in rng.choice(40, 6, replace=False)), marks[label]])
        for label in labels
    ]
    return texts, np.array([10, 9])[labels]


@pytest.fixture(scope="module")
def fitted(tiny_model: Path) -> TextClassifier:
    texts, labels = texts_and_labels()
    settings = {**SHORT, "train.max_steps": 40, "train.learning_rate": 3e-3}
    return TextClassifier(str(tiny_model), settings).fit(texts, labels)


def test_an_interrupt_ends_a_search_of_scikit_learn(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``GridSearchCV`` takes every ``Exception`` for one failed fit, and goes on."""
    fits, entered = [], StopSignals.__enter__

    def interrupted(signals: StopSignals) -> StopSignals:
        fits.append(entered(signals))
        signal.raise_signal(signal.SIGINT)
        return signals

    monkeypatch.setattr(StopSignals, "__enter__", interrupted)
    texts, labels = texts_and_labels()
    search = GridSearchCV(
        TextClassifier(str(tiny_model), SHORT), {"learning_rate": [1e-3, 1e-2]}, cv=2
    )
    with pytest.raises(KeyboardInterrupt):
        search.fit(texts, labels)
    assert len(fits) == 1


@pytest.mark.parametrize("verbose", [True, False])
def test_a_fit_prints_its_evaluations_only_if_verbose(
    tiny_model: Path, verbose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    TextClassifier(str(tiny_model), SHORT, verbose=verbose).fit(*texts_and_labels())
    shown = capsys.readouterr()
    assert ("validation" in shown.err) == verbose
    assert (shown.err == "") != verbose
    assert shown.out == ""


def test_scikit_learns_own_checks_pass() -> None:
    """scikit-learn runs its numeric checks only on estimators of numeric arrays, and says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Can't test estimator TextClassifier")
        results = check_estimator(TextClassifier(), on_fail=None)
    assert results
    assert {result["status"] for result in results} == {"passed"}


def test_classes_keep_the_labels_type_and_order(fitted: TextClassifier) -> None:
    assert fitted.classes_.tolist() == [9, 10]
    texts, labels = texts_and_labels()
    assert set(fitted.predict(texts)) <= {9, 10}
    assert fitted.score(texts, labels) > 0.8


@pytest.mark.slow
def test_a_column_of_probabilities_is_that_of_its_class(tiny_model: Path) -> None:
    """Of more than ten classes, whose names as texts would stand otherwise: 10 before 2."""
    texts, _ = texts_and_labels(66)
    labels = np.arange(66) % 11
    some = TextClassifier(str(tiny_model), {**SHORT, "train.max_steps": 2}).fit(texts, labels)
    batch = some.tokenizer_(texts[:4], return_tensors="pt", padding=True)
    with torch.inference_mode():
        chances = (some.network_(**batch) / some.temperature_).double().softmax(1).numpy()
    for column, label in enumerate(some.classes_):
        place = some.network_.classes.index(str(label))
        np.testing.assert_allclose(
            some.predict_proba(texts[:4])[:, column], chances[:, place], atol=1e-6
        )


def test_probabilities_follow_classes_and_sum_to_one(fitted: TextClassifier) -> None:
    texts, _ = texts_and_labels()
    probabilities = fitted.predict_proba(texts)
    assert probabilities.shape == (len(texts), 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_array_equal(
        fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(texts)
    )


def test_one_text_has_one_answer_and_not_one_a_letter(fitted: TextClassifier) -> None:
    texts, _ = texts_and_labels()
    assert fitted.predict(texts[0]).tolist() == fitted.predict(texts[:1]).tolist()


def test_a_pickled_estimator_answers_the_same(fitted: TextClassifier) -> None:
    texts, _ = texts_and_labels()
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(texts), fitted.predict_proba(texts))


def test_a_fit_that_fails_leaves_the_earlier_one(fitted: TextClassifier) -> None:
    """Not the earlier model under the later labels, which would be false answers."""
    texts, _ = texts_and_labels()
    again = pickle.loads(pickle.dumps(fitted))
    pairs = [(text, text) for text in texts]
    with pytest.raises(DataError, match="has 1 independent unit"):
        again.fit(pairs, ["up", *["down"] * (len(texts) - 2), "other"])
    assert (again.classes_.tolist(), again.pairs_, again.text_columns_) == ([9, 10], False, None)
    np.testing.assert_array_equal(again.predict(texts), fitted.predict(texts))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_estimator(tiny_model: Path) -> None:
    texts, labels = texts_and_labels(40)
    first = TextClassifier(str(tiny_model), SHORT).fit(texts, labels).predict_proba(texts)
    second = TextClassifier(str(tiny_model), SHORT).fit(texts, labels).predict_proba(texts)
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_it_works_inside_cross_validation_and_search(tiny_model: Path) -> None:
    texts, labels = texts_and_labels(40)
    scores = cross_val_score(TextClassifier(str(tiny_model), SHORT), texts, labels, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(TextClassifier(str(tiny_model), SHORT), {"random_state": [0, 1]}, cv=2)
    assert search.fit(texts, labels).best_params_["random_state"] in (0, 1)


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, None),
        ({"batch_size": 8}, None),
        ({"learning_rate": 1e-3}, "stop"),
        ({"epochs": 2}, "stop"),
        ({"settings": {"train.schedule": "constant"}}, "stop"),
        ({"epochs": 2, "settings": {"control.policy": "adapt"}}, "adapt"),
    ],
    ids=str,
)
def test_settings_of_the_plan_are_not_replaced_by_the_default_plan(
    given: dict[str, Any], policy: str | None
) -> None:
    assert TextClassifier(**given)._recipe().control.policy == policy


@pytest.mark.slow
def test_the_usual_parameters_are_searched_under_their_usual_names(tiny_model: Path) -> None:
    texts, labels = texts_and_labels(40)
    base = TextClassifier(str(tiny_model), {"train.threads": 1, "methods.contrast": False})
    space = {"learning_rate": [1e-4, 3e-3], "epochs": [1], "batch_size": [8], "max_length": [16]}
    search = GridSearchCV(base, space, cv=2, n_jobs=1).fit(texts, labels)
    assert set(search.best_params_) == set(space)
    assert search.best_estimator_.max_length_ == 16
    rates = {rate: clone(base).set_params(learning_rate=rate) for rate in (1e-4, 3e-3)}
    slow, fast = (one.fit(texts, labels).history_ for one in rates.values())
    reached = [max(look.learning_rate for look in looks) for looks in (slow, fast)]
    assert reached[1] == pytest.approx(30 * reached[0])
    twice = TextClassifier(str(tiny_model), {"train.epochs": 2}, epochs=3)
    with pytest.raises(RecipeError, match="epochs="):
        twice.fit(texts, labels)


def test_what_is_not_fitted_says_so() -> None:
    with pytest.raises(NotFittedError):
        TextClassifier().predict(["a text"])


def test_numbers_are_refused_as_texts(tiny_model: Path) -> None:
    with pytest.raises(DataError, match="is not a text"):
        TextClassifier(str(tiny_model)).fit(np.ones((4, 2)), [0, 1, 0, 1])


def test_a_clone_has_the_parameters_and_nothing_learned(fitted: TextClassifier) -> None:
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "network_")


@pytest.mark.slow
def test_a_data_frame_has_one_answer_a_row(fitted: TextClassifier) -> None:
    pd = pytest.importorskip("pandas")
    texts, labels = texts_and_labels()
    frame = pd.DataFrame({"text": texts[:5]})
    told = fitted.predict(texts[:5]).tolist()
    assert fitted.predict(frame).tolist() == told
    assert fitted.predict(frame["text"]).tolist() == told
    with pytest.raises(DataError, match="X\\['text'\\]"):
        fitted.predict(pd.DataFrame({"a": texts[:5], "b": texts[:5]}))
    whole = pd.DataFrame({"id": range(len(texts)), "text": texts})
    model = str(fitted.model)
    again = TextClassifier(model, fitted.settings).fit(whole, pd.DataFrame({"y": labels})["y"])
    assert again.text_columns_ == ("text",)
    assert again.predict(whole[:5]).tolist() == told
    assert again.predict(texts[:5]).tolist() == told
    with pytest.raises(DataError, match="X: has no column text, from which fit took its texts"):
        again.predict(pd.DataFrame({"id": range(5)}))


@pytest.mark.slow
def test_more_than_ten_classes_keep_their_order_when_saved(
    tiny_model: Path, tmp_path: Path
) -> None:
    """As texts, the number 10 stands before 2."""
    texts, _ = texts_and_labels(48)
    labels = [f"class {n % 12:02d}" for n in range(48)]
    kept = TextClassifier(str(tiny_model), SHORT).fit(texts, labels)
    kept.save(tmp_path / "kept")
    loaded = TextClassifier.load(tmp_path / "kept")
    np.testing.assert_allclose(loaded.predict_proba(texts), kept.predict_proba(texts), atol=1e-5)


def test_a_saved_estimator_answers_the_same(fitted: TextClassifier, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    texts, _ = texts_and_labels()
    fitted.save(tmp_path / "kept")
    loaded = TextClassifier.load(tmp_path / "kept")
    assert loaded.classes_.tolist() == [9, 10]
    assert loaded.get_params() == fitted.get_params()
    assert loaded.verdict_ == fitted.verdict_
    assert loaded.best_step_ == fitted.best_step_
    np.testing.assert_allclose(loaded.predict_proba(texts), fitted.predict_proba(texts), atol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kept")
    assert set(plain.config.id2label.values()) == {"9", "10"}
    loaded.save(tmp_path / "again")
    again = TextClassifier.load(tmp_path / "again")
    np.testing.assert_array_equal(again.predict(texts), loaded.predict(texts))
    with pytest.raises(RunError, match="is not empty"):
        fitted.save(tmp_path / "kept")
    with pytest.raises(ModelError, match="no saved TextClassifier"):
        TextClassifier.load(tmp_path)


def test_a_saved_estimator_that_was_damaged_is_refused(
    fitted: TextClassifier, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "kept")
    facts, weights = tmp_path / "kept" / "text_classifier.json", tmp_path / "kept" / "config.json"
    sound, told = facts.read_text("utf-8"), weights.read_text("utf-8")
    weights.write_text(told.replace('"0": "9"', '"0": "8"'))
    with pytest.raises(RunError, match=r"config\.json: was changed since it was saved"):
        TextClassifier.load(tmp_path / "kept")
    weights.write_text(told)
    for odd in (
        "",
        "[]",
        "{}",
        sound.replace('"classes": [', '"classes": [8, '),
        sound.replace('"max_length": ', '"max_length": 1e99'),
        "[" * 100_000,
    ):
        facts.write_text(odd)
        with pytest.raises(ModelError, match=r"text_classifier\.json"):
            TextClassifier.load(tmp_path / "kept")
    bare = json.loads(sound)
    del bare["files"]
    facts.write_text(json.dumps(bare))
    with pytest.warns(UserWarning, match="was not checked"):
        TextClassifier.load(tmp_path / "kept")


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan")])
def test_missing_labels_are_no_class(tiny_model: Path, missing: Any) -> None:
    with pytest.raises(DataError, match="lacks 2 of 6 labels, the first at index 1"):
        TextClassifier(str(tiny_model)).fit(list("abcdef"), ["x", missing, "y", "x", missing, "y"])


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_texts_are_refused(fitted: TextClassifier, missing: Any) -> None:
    """In a list, a series or a frame, in fit and in predict; an empty text can be predicted."""
    pd = pytest.importorskip("pandas")
    texts, labels = texts_and_labels()
    lacking = [missing, *texts[1:]]
    for given in (lacking, pd.Series(lacking), pd.DataFrame({"text": lacking})):
        with pytest.raises(DataError, match=r"X: lacks 1 of 60 texts.*the first at index 0"):
            clone(fitted).fit(given, labels)
        with pytest.raises(DataError, match=r"X: lacks 1 of 60 texts.*the first at index 0"):
            fitted.predict(given)
    with pytest.raises(DataError, match=r"X: lacks 1 of 60 texts.*the first at index 1"):
        clone(fitted).fit([texts[0], " ", *texts[2:]], labels)
    assert fitted.predict_proba([""]).sum() == pytest.approx(1)


@pytest.mark.slow
def test_labels_of_any_type_are_returned_as_that_type(tiny_model: Path) -> None:
    pd = pytest.importorskip("pandas")
    texts, numbers = texts_and_labels()
    given = {
        "frame": (pd.DataFrame({"y": numbers}), [9, 10]),
        "nullable": (pd.Series(numbers, dtype="Int64"), [9, 10]),
        "category": (pd.Series(numbers.astype(str), dtype="category"), ["10", "9"]),
        "bool": (numbers == 9, [False, True]),
        "bytes": (numbers.astype(bytes), [b"10", b"9"]),
    }
    for name, (labels, classes) in given.items():
        own = TextClassifier(str(tiny_model), {**SHORT, "train.max_steps": 1}).fit(texts, labels)
        assert own.classes_.tolist() == classes, name
        assert set(own.predict(texts[:4]).tolist()) <= set(classes), name


def test_what_a_choice_of_models_is_made_by_is_refused_where_there_is_none(
    tiny_model: Path,
) -> None:
    texts, labels = texts_and_labels()
    with pytest.raises(RecipeError, match=r"model\.candidates: needs model\.name=auto"):
        TextClassifier(settings={"model.candidates": [str(tiny_model)]}).fit(texts, labels)
    with pytest.raises(ModelError, match="is neither a folder"):
        TextClassifier("auto", {"model.candidates": ["/nonexistent"]}).fit(texts, labels)


def test_labels_of_an_object_array_have_their_own_type(fitted: TextClassifier) -> None:
    texts, labels = texts_and_labels()
    as_objects = labels.astype(object)
    classifier = clone(fitted).set_params(settings={**SHORT, "train.max_steps": 1})
    classifier.fit(texts, as_objects)
    assert classifier.classes_.dtype == labels.dtype
    assert classifier.predict(texts).dtype == labels.dtype
    assert classifier.score(texts, as_objects) == classifier.score(texts, labels)
    assert fitted.score(texts, labels) == np.mean(fitted.predict(texts) == labels)


class Mood(enum.Enum):
    GOOD = 1
    BAD = 2


@pytest.mark.parametrize(
    "pair",
    [(0.5, 1.5), (Mood.GOOD, Mood.BAD), (b"a", b"b"), (datetime.date.min, datetime.date.max)],
)
def test_labels_that_could_not_be_scored_are_refused(fitted: TextClassifier, pair: Any) -> None:
    for labels in ([*pair] * 30, np.array([*pair] * 30, dtype=object)):
        with pytest.raises(DataError, match=r"y: holds labels that scikit-learn does not score"):
            clone(fitted).fit(texts_and_labels()[0], labels)


def test_pairs_are_no_single_texts(fitted: TextClassifier) -> None:
    with pytest.raises(DataError, match="X: holds pairs of texts, but fit was given single texts"):
        fitted.predict([("a text", "another")])


def test_labels_of_two_types_are_refused(tiny_model: Path) -> None:
    """NumPy makes texts of all of them, and a prediction would equal no number."""
    texts, labels = texts_and_labels()
    mixed = ["nine" if label == 9 else 10 for label in labels]
    with pytest.raises(DataError, match="y: must be a list of labels"):
        TextClassifier(str(tiny_model)).fit(texts, None)
    with pytest.raises(DataError, match="y: mixes strings with other label types"):
        TextClassifier(str(tiny_model)).fit(texts, mixed)


def test_rows_without_a_group_are_groups_of_their_own(tiny_model: Path) -> None:
    texts, labels = texts_and_labels()
    settings = {**SHORT, "train.max_steps": 1}
    plain = TextClassifier(str(tiny_model), settings).fit(texts, labels)
    none = TextClassifier(str(tiny_model), settings).fit(texts, labels, [None] * len(texts))
    np.testing.assert_array_equal(plain.predict_proba(texts), none.predict_proba(texts))
    with pytest.raises(DataError, match="independent unit"):
        clone(plain).fit(texts, labels, ["one"] * len(texts))


def test_errors_name_labels_and_what_helps_here(tiny_model: Path) -> None:
    """Not the numbers that the rows inside have, and no setting that the estimator refuses."""
    texts, _ = texts_and_labels()
    few = ["good", *["bad"] * 58, "fine"]
    with pytest.raises(DataError, match="the class 'fine': has 1 independent unit") as error:
        TextClassifier(str(tiny_model)).fit(texts, few)
    assert error.value.remedy == "Add texts, or leave the rows of a small class out of X and y."
    with pytest.raises(DataError, match=r"y: has one class, .*'bad'"):
        TextClassifier(str(tiny_model)).fit(texts, ["bad"] * 60)
    with pytest.raises(DataError, match="X: must be a list"):
        TextClassifier(str(tiny_model)).fit("hello world", ["bad"])
    for seed in (None, -1, 0.5):
        with pytest.raises(RecipeError, match="random_state: must be a non-negative integer"):
            TextClassifier(str(tiny_model), random_state=seed).fit(texts, few)  # type: ignore[arg-type]


def test_a_model_may_be_a_path(tiny_model: Path) -> None:
    recipe = TextClassifier(tiny_model)._recipe()  # type: ignore[arg-type]
    assert recipe.model.name == str(tiny_model)


@pytest.mark.parametrize(
    "given",
    [
        {"data.features": ["text.length"]},
        {"data.unlabelled": "more.csv"},
        {"data.split.by": "topic"},
        {"data.split.valid": 0.3, "data.split.train": 0.55},
        {"data.rare": "drop"},
        {"data.label_kind": "number"},
        {"data.mix": [{"path": "a.csv"}]},
        {"treat": {"space": True}},
    ],
)
def test_what_is_for_the_rows_of_a_table_is_refused(
    tiny_model: Path, given: dict[str, Any]
) -> None:
    """It was passed over in silence."""
    texts, labels = texts_and_labels()
    with pytest.raises(RecipeError, match="takes only texts and labels"):
        TextClassifier(str(tiny_model), {**SHORT, **given}).fit(texts, labels)


@pytest.mark.slow
def test_classes_are_called_by_their_labels(tiny_model: Path) -> None:
    """As they are given: a table of the command would merge their spellings."""
    texts, numbers = texts_and_labels()
    labels = np.where(numbers == 9, "very_good", "bad")
    spaced = np.array(["n/a", "n/a "])[numbers - 9]
    own = TextClassifier(str(tiny_model), SHORT).fit(texts, spaced)
    assert own.classes_.tolist() == ["n/a", "n/a "]
    assert own.network_.classes == ("n/a", "n/a ")
    target = {"methods.balance": {"by": "none", "target": {"bad": 0.9, "very_good": 0.1}}}
    asked = {"data.names": {"bad": "no use", "very_good": "of use"}}
    moved = TextClassifier(str(tiny_model), {**SHORT, **asked, **target}).fit(texts, labels)
    plain = TextClassifier(str(tiny_model), {**SHORT, **asked}).fit(texts, labels)
    assert (moved.predict_proba(texts)[:, 0] > plain.predict_proba(texts)[:, 0]).all()
    TextClassifier(str(tiny_model), {**SHORT, "data.names": True}).fit(texts, labels)
    for key in ({"data.names": {"nine": "x"}}, {"methods.balance": {"target": {"nine": 1}}}):
        with pytest.raises(RecipeError, match=r"no row has|unknown class"):
            TextClassifier(str(tiny_model), {**SHORT, **key}).fit(texts, labels)


@pytest.mark.parametrize(
    "given", [pytest.param({}, marks=pytest.mark.slow), {"train.folds": 2, "train.max_steps": 6}]
)
def test_few_texts_are_learned_from_as_the_command_does(
    tiny_model: Path, tmp_path: Path, given: dict[str, Any]
) -> None:
    """All of them, cross-fitted: by default up to 400, and wherever folds are asked for."""
    texts, labels = texts_and_labels(60)
    settings = {"train.threads": 1, **given}
    own = TextClassifier(str(tiny_model), settings).fit(texts[:40], labels[:40])
    theirs = holdfast.train(
        texts[:40],
        [str(label) for label in labels[:40]],
        test={"text": texts[40:], "label": [str(label) for label in labels[40:]]},
        model=tiny_model,
        out=tmp_path / "run",
        settings=settings,
        quiet=True,
    )
    assert [*theirs.classes] == [str(label) for label in own.classes_]
    expected = theirs.predict_proba(texts[40:])
    np.testing.assert_allclose(own.predict_proba(texts[40:]), expected, atol=1e-5)
    alone = TextClassifier(str(tiny_model), {**settings, "train.folds": 0})
    apart = alone.fit(texts[:40], labels[:40]).predict_proba(texts[40:])
    assert np.abs(apart - expected).max() > 1e-3
