"""Names against rows, classes that overlap, and what more rows would bring."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.check import CheckResult
from holdfast.quality.checks.labels.class_names import names_against_rows
from holdfast.quality.checks.labels.class_sizes import GrowthEstimate, estimate_growth, too_few_rows
from holdfast.quality.checks.labels.doubtful_labels import overlapping_classes
from holdfast.quality.views import Embedded, TableRows

NAMES = ("card arrival", "lost phone", "cash deposit", "exchange rate", "refund wanted")


def rows(n: int = 400, spread: float = 0.4, names: tuple[str, ...] = NAMES, seed: int = 0):
    """Rows around the middle of their class; a name lies near the middle it is listed for."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((len(NAMES), 24))
    truth = rng.integers(0, len(NAMES), n)
    vectors = middles[truth] + spread * 5 * rng.standard_normal((n, 24))
    texts = [f"row {k} of some {rng.integers(50)} words" for k in range(n)]
    where = {name: middles[k] + 0.3 * rng.standard_normal(24) for k, name in enumerate(NAMES)}
    table = table_from_texts(texts, [names[k] for k in truth], rare_below=1)

    def embed(asked):
        found = np.array([where[text] for text in asked])
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embedded(TableRows(table), unit.astype(np.float32), "toy", embed), truth


def test_names_that_say_what_their_rows_say_are_left_alone() -> None:
    assert names_against_rows(rows()[0]) is None


def test_exchanged_names_are_told() -> None:
    names = (NAMES[1], NAMES[0], *NAMES[2:])
    view, truth = rows(names=names)
    finding = names_against_rows(view).finding
    assert "'card arrival' and 'lost phone' seem to be swapped" in finding.because
    assert finding.count == (truth < 2).sum()
    assert finding.severity == "warn"


def test_names_that_are_no_words_are_not_judged() -> None:
    assert names_against_rows(rows(names=("1", "2", "ABC", "x", "NEG"))[0]) is None


def test_classes_whose_rows_cannot_be_told_apart_are_named_with_the_unclear_rows() -> None:
    view, truth = rows(spread=0.15)
    assert overlapping_classes(view) is None
    labels = truth.copy()
    mixed = np.flatnonzero(truth < 2)
    labels[mixed] = np.random.default_rng(1).integers(0, 2, len(mixed))
    table = table_from_texts(view.rows.texts, [NAMES[k] for k in labels], rare_below=1)
    found = overlapping_classes(Embedded(TableRows(table), view.vectors, "toy", view.embed))
    assert "'card arrival'" in found.finding.because
    assert "'lost phone'" in found.finding.because
    assert set(found.finding.rows) <= set(mixed)
    assert len(found.finding.rows) > len(mixed) / 8


def test_of_two_classes_nothing_is_said() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((100, 8)).astype(np.float32)
    table = table_from_texts([f"text {k}" for k in range(100)], ["ab"[k % 2] for k in range(100)])
    assert (
        overlapping_classes(Embedded(TableRows(table), vectors, "toy", lambda t: vectors[:1]))
        is None
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_twice_the_rows_bring_lies_in_the_interval(seed: int) -> None:
    """Of Gaussian classes with one covariance, where a probe tends to the best there is."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((4, 40))

    def drawn(n: int):
        y = rng.integers(0, 4, n)
        return middles[y] + 3.2 * rng.standard_normal((n, 40)), y

    x, y = drawn(400)
    more, more_y = drawn(400)
    test, test_y = drawn(20_000)
    from sklearn.linear_model import LogisticRegression

    once = LogisticRegression(C=0.01, max_iter=500).fit(x, y).score(test, test_y)
    twice = LogisticRegression(C=0.01, max_iter=500).fit(
        np.concatenate([x, more]), np.concatenate([y, more_y])
    )
    found = estimate_growth(x, y, classes=4, c=0.1, seed=seed)
    assert found.low <= twice.score(test, test_y) - once <= found.high
    assert found.points[0][0] < found.points[-1][0]


def test_rows_that_have_taught_all_they_can_are_not_asked_for_more() -> None:
    assert too_few_rows(rows(spread=0.02)[0]) is None


def test_rows_that_still_teach_are_told_with_an_interval() -> None:
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((8, 200))
    y = np.arange(1600) % 8
    vectors = middles[y] + 6 * rng.standard_normal((1600, 200))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    table = table_from_texts([f"text {k}" for k in range(1600)], [f"class {k}" for k in y])
    found = too_few_rows(Embedded(TableRows(table), unit, "toy", lambda t: unit[:1]))
    assert found is not None
    assert "twice as many rows would add about" in found.finding.because


def test_of_rows_that_are_all_right_nothing_more_is_foretold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    y = np.arange(120) % 2
    vectors = (np.eye(2)[y] + 0.01 * np.arange(120)[:, None] / 120).astype(np.float32)
    table = table_from_texts([f"text {k}" for k in range(120)], [f"class {k}" for k in y])
    view = Embedded(TableRows(table), vectors, "toy", lambda t: vectors[:1])

    def foretold(right: float) -> CheckResult | None:
        made = GrowthEstimate(right, 0.044, 0.026, 0.062, ())
        monkeypatch.setattr(
            "holdfast.quality.checks.labels.class_sizes.estimate_growth", lambda *_, **__: made
        )
        return too_few_rows(view)

    assert foretold(1.0) is None
    capped = foretold(0.97)
    assert capped is not None
    assert "about 3.0 points (90 % interval 2.6 to 3.0)" in capped.finding.because


def test_few_rows_foretell_nothing() -> None:
    assert estimate_growth(np.zeros((99, 3)), np.arange(99) % 2, classes=2, c=1.0, seed=0) is None
