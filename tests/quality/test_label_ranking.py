"""Rows whose labels the others speak against: what is ranked, what is promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from holdfast.data.memory.texts import table_from_texts
from holdfast.duplicates.word_features import word_features
from holdfast.quality.checks.labels.doubtful_labels import label_problems
from holdfast.quality.fold_predictions import cross_fit, log_softmax, pool_weights
from holdfast.quality.label_ranking import rank_labels
from holdfast.quality.views import Embedded, TableRows

WIDTH, CLASSES = 16, 4


def rows(n: int = 600, noise: float = 0.1, spread: float = 0.25, seed: int = 0):
    """Vectors around the middles of four classes, words that lean to them, and labels of which
    some are exchanged."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, CLASSES, n)
    middles = rng.standard_normal((CLASSES, WIDTH)) / np.sqrt(WIDTH)
    vectors = middles[truth] + spread * rng.standard_normal((n, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [
        " ".join([f"w{rng.integers(300)}" for _ in range(8)] + [f"c{t}{rng.integers(12)}"] * 1)
        for t in truth
    ]
    flipped = np.zeros(n, dtype=bool)
    flipped[rng.permutation(n)[: round(noise * n)]] = True
    given = np.where(flipped, (truth + rng.integers(1, CLASSES, n)) % CLASSES, truth)
    return vectors.astype(np.float32), texts, given, truth, flipped


def view(vectors, texts, given) -> Embedded:
    table = table_from_texts(texts, [f"class {k}" for k in given], rare_below=1)
    return Embedded(TableRows(table), vectors, "toy", lambda _: vectors)


def test_words_and_pairs_of_two_texts_or_more_weigh_by_their_rarity() -> None:
    found = word_features(["One word, and", "AND word more", "another word", "one word"]).toarray()
    assert found.shape == (4, 4)  # "one", "word", "and", "one word"
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    assert found[0].argmin() == (found > 0).sum(axis=0).argmax()


def test_words_of_nothing_have_no_length() -> None:
    found = word_features(["", "a word", "a word"])
    assert found.shape == (3, 3)
    assert found[0].nnz == 0


def test_no_row_is_answered_by_a_fit_on_it() -> None:
    """Labels without any sense: who has seen them knows them, who has not is right by chance."""
    vectors, texts, _, _, _ = rows(200)
    senseless = np.random.default_rng(1).integers(0, CLASSES, 200)
    answers = cross_fit(vectors, texts, senseless, classes=CLASSES, seed=0)
    seen = LogisticRegression(C=1e4, max_iter=2000).fit(vectors, senseless)
    assert seen.score(vectors, senseless) > 0.4
    assert answers is not None
    assert answers.accuracy < 0.36


def test_the_pool_has_the_weights_of_a_regression_on_both() -> None:
    """Of two classes the pool is a logistic regression without an intercept on the two log odds."""
    rng = np.random.default_rng(0)
    odds = rng.standard_normal((400, 2)) * [2, 0.5]
    labels = (rng.random(400) < 1 / (1 + np.exp(-odds @ [0.8, 1.3]))).astype(int)
    sources = np.stack(
        [log_softmax(np.column_stack([np.zeros(400), odds[:, i]])) for i in range(2)]
    )
    wanted = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-9).fit(odds, labels).coef_[0]
    assert pool_weights(sources, labels) == pytest.approx(wanted, abs=1e-3)


def test_exchanged_labels_come_first_and_the_right_class_is_suggested() -> None:
    vectors, texts, given, truth, flipped = rows()
    ranking = rank_labels(view(vectors, texts, given).fold_predictions)
    places = np.argsort(ranking.order)
    assert len(ranking.order) == 600
    assert average_precision_score(flipped, ranking.score[places]) > 0.9
    first = ranking.order[:50]
    assert (ranking.suggested[:50] == truth[first]).mean() > 0.9
    assert (np.diff(ranking.score) <= 1e-12).all()
    assert (ranking.given == given[ranking.order]).all()


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, 0.25])
def test_the_promise_is_kept(noise: float) -> None:
    stated, true = [], []
    for seed in range(4):
        vectors, texts, given, _, flipped = rows(noise=noise, seed=seed)
        ranking = rank_labels(view(vectors, texts, given).fold_predictions)
        most = round(noise * 600)
        if ranking.precision(most) is not None:
            stated.append(ranking.precision(most))
            true.append(flipped[ranking.order[:most]].mean())
    assert len(stated) >= 3
    assert np.mean(stated) == pytest.approx(np.mean(true), abs=0.1)


def test_nothing_is_promised_of_rows_that_are_only_hard() -> None:
    vectors, texts, given, _, _ = rows(noise=0.0, spread=1.5)
    found = label_problems(view(vectors, texts, given))
    assert found is None or found.finding.severity == "info"
    assert rank_labels(view(vectors, texts, given).fold_predictions).precision(20) is None


def test_labels_that_are_confused_with_one_other_class_are_listed() -> None:
    """Every mistake is of the next class, and too few rows give one rate for all mistakes."""
    vectors, texts, _, truth, flipped = rows(300)
    given = np.where(flipped, (truth + 1) % CLASSES, truth)
    seen = view(vectors, texts, given)
    ranking = rank_labels(seen.fold_predictions)
    assert ranking.wrong is None
    assert ranking.mistakes.is_shown
    found = label_problems(seen)
    assert found is not None
    listed = list(found.finding.rows)
    assert 15 <= len(listed) <= 45
    assert flipped[listed].mean() > 0.9
    assert found.finding.severity == "info"
    assert "Vuong's test" in found.finding.because
    assert "may be correct" not in found.finding.because
    assert found.finding.score == pytest.approx(ranking.mistakes.share)
    assert ranking.mistakes.share == pytest.approx(0.1, abs=0.05)


def test_labels_as_they_are_show_no_confused_classes() -> None:
    for seed in range(3):
        vectors, texts, given, _, _ = rows(noise=0.0, seed=seed)
        assert not rank_labels(view(vectors, texts, given).fold_predictions).mistakes.is_shown


def test_the_finding_names_the_rows_and_says_what_is_expected() -> None:
    vectors, texts, given, _, flipped = rows()
    found = label_problems(view(vectors, texts, given))
    assert found is not None
    assert found.finding.severity == "warn"
    assert flipped[list(found.finding.rows)].mean() > 0.8
    assert "% of these labels are wrong" in found.finding.because
    assert found.examples[0].row == found.finding.rows[0]
    first = ", ".join(map(str, found.finding.rows[:8]))
    left = found.finding.count - 8
    assert f"(the most doubtful first: {first} and {left} more)" in found.finding.because


def test_clean_labels_are_left_alone() -> None:
    vectors, texts, given, _, _ = rows(noise=0.0)
    found = label_problems(view(vectors, texts, given))
    assert found is None or (found.finding.severity == "info" and found.finding.count < 6)


def test_two_wrong_labels_among_many_are_shown_with_their_probabilities() -> None:
    """Whatever the share of wrong labels is estimated to be."""
    vectors, texts, given, _, _ = rows(noise=0.0)
    given[[17, 230]] = (given[[17, 230]] + 1) % CLASSES
    seen = view(vectors, texts, given)
    found = label_problems(seen)
    assert found is not None
    assert found.finding.severity == "info"
    assert {17, 230} <= set(found.finding.rows)
    assert len(found.finding.rows) <= 3
    for row in (17, 230):
        p = np.exp(seen.fold_predictions.log_p[row, given[row]])
        assert (
            f"row {row}: given the other rows, its label 'class {given[row]}' has a probability of "
            f"{p:.2g}," in found.finding.because
        )
    assert "no more labels than uncertainty explains" in found.finding.because


def test_a_row_without_a_label_is_answered_and_not_ranked() -> None:
    vectors, texts, given, truth, _ = rows()
    hidden = given.copy()
    hidden[:100] = -1
    answers = cross_fit(vectors, texts, hidden, classes=CLASSES, seed=0)
    assert answers is not None
    assert (answers.log_p[:100].argmax(axis=1) == truth[:100]).mean() > 0.9
    assert np.isnan(answers.losses[:100]).all()
    assert set(rank_labels(answers).order) == set(range(100, 600))


def test_answers_of_a_tuned_model_join_the_pool() -> None:
    vectors, texts, given, truth, flipped = rows(spread=0.6)
    told = np.full((600, CLASSES), -3.0)
    told[np.arange(600), truth] = -0.1
    without = cross_fit(vectors, texts, given, classes=CLASSES, seed=0)
    joined = cross_fit(vectors, texts, given, classes=CLASSES, seed=0, tuned_log_p=told)
    assert joined.weights[2] > 0.5
    assert average_precision_score(flipped, joined.losses) > average_precision_score(
        flipped, without.losses
    )


def test_too_few_rows_say_nothing() -> None:
    vectors, texts, given, _, _ = rows(19)
    assert cross_fit(vectors, texts, given, classes=CLASSES, seed=0) is None
    assert label_problems(view(vectors, texts, given)) is None


@pytest.mark.slow
def test_the_audit_ranks_every_row_by_the_model_that_it_reads_with(tmp_path) -> None:
    import csv

    import holdfast

    rng = np.random.default_rng(0)
    good = ["I love this wonderful phone", "a great and happy choice", "works well, very pleased"]
    bad = ["awful, it broke at once", "terrible and sad waste", "I hate this horrible thing"]
    lines = [
        (f"{rng.choice(good if n % 2 else bad)} number {n}", ("bad", "good")[n % 2])
        for n in range(80)
    ]
    wrong = [5, 12, 33, 50]
    lines = [
        (text, {"bad": "good", "good": "bad"}[label] if n in wrong else label)
        for n, (text, label) in enumerate(lines)
    ]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *lines])
    found = holdfast.audit(path).to_json()["label_issues"]
    assert len(found) == 80
    assert sorted(issue["row"] for issue in found[:4]) == wrong
    assert all(issue["suggested"] != issue["given"] for issue in found[:4])
    assert all(0 <= issue["score"] <= 1 for issue in found)


@pytest.mark.parametrize("rows", [30, 120])
def test_a_probe_of_words_has_the_minimum_of_sklearn_in_either_coordinates(
    rows: int, monkeypatch: Any
) -> None:
    """Few rows are rotated to their own span; a limit of 0 rows fits all words."""
    from holdfast.quality import fold_predictions

    random = np.random.default_rng(0)
    y = np.arange(rows) % 3
    texts = []
    for label in y:
        words = [f"w{random.integers(400)}" for _ in range(30)]
        texts.append(" ".join([*words, f"c{label if random.random() < 0.6 else 'x'}"]))
    x = word_features([*texts[:-1], texts[0]])  # a row twice
    held_out, x, y = x[-10:], x[:-10], y[:-10]
    assert 4 * len(y) <= x.shape[1]
    logits = []
    for limit in (len(y), 0):
        monkeypatch.setattr(fold_predictions, "MOST_ROTATED_ROWS", limit)
        logits.append(fold_predictions.probe_logits(x, y, held_out, 3, 3.0))
    assert logits[0] == pytest.approx(logits[1], abs=1e-6)
    expected = LogisticRegression(C=3.0, tol=1e-6, max_iter=2000).fit(x, y)
    assert logits[0] == pytest.approx(expected.predict_log_proba(held_out), abs=5e-2)
