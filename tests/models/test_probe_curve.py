from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from holdfast.models.probes.head_fit import (
    count_twins,
    cross_entropy,
    nested_order,
    out_of_fold_logits,
    probe_curve,
)
from holdfast.models.probes.probe import fit_probe


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return rng.normal(size=(n, 8)) + 0.8 * np.eye(8)[labels], labels


def test_the_curve_ends_with_the_probe_itself_and_more_rows_help() -> None:
    (x, y), (held, held_y) = rows(160), rows(300, 1)
    probe = fit_probe(x, y, classes=3, seed=0)
    curve = probe_curve(probe, x, y, held, held_y, classes=3, seed=0)
    assert [n for n, _ in curve.points] == [40, 80, 160]
    expected = -special.log_softmax(probe.logits(held), axis=1)[np.arange(300), held_y]
    assert curve.losses == pytest.approx(expected)
    assert curve.points[-1][1] == pytest.approx(expected.mean())
    assert curve.points[-1][1] < curve.points[0][1]
    assert curve.twins == (0, 300)


def test_parts_that_are_too_small_or_lack_a_class_are_left_out() -> None:
    x, y = rows(42)
    y[y == 2] = 0
    y[0] = 2
    probe = fit_probe(x, y, classes=3, seed=0)
    curve = probe_curve(probe, x, y, x, y, classes=3, seed=0)
    assert [n for n, _ in curve.points] in ([42], [21, 42])
    nothing = probe_curve(probe, x, y, x[:0], y[:0], classes=3, seed=0)
    assert nothing.points == ()
    assert not len(nothing.losses)


def test_every_labelled_row_has_an_answer_of_a_fit_that_had_not_seen_it() -> None:
    (x, y), (held, held_y) = rows(90), rows(30, 1)
    probe = fit_probe(x, y, classes=3, seed=0)
    logits, labels = out_of_fold_logits(probe, y, held, held_y)
    assert logits.shape == (120, 3)
    assert labels.tolist() == [*y, *held_y]
    assert logits[90:] == pytest.approx(probe.logits(held))
    assert not np.allclose(logits[:90], probe.logits(x), atol=0.05)
    given = fit_probe(x, y, classes=3, seed=0, c=0.1)
    assert len(out_of_fold_logits(given, y, held, held_y)[1]) == 30


def test_every_beginning_of_the_order_has_each_class_in_its_share() -> None:
    labels = np.repeat([0, 1], [300, 100])
    order = nested_order(labels, seed=0)
    assert sorted(order) == list(range(400))
    for n in (40, 100, 200):
        assert (labels[order[:n]] == 1).mean() == pytest.approx(0.25, abs=0.03)


def test_twins_are_rows_with_the_same_features() -> None:
    x, _ = rows(50)
    held = np.concatenate([x[:7] * (1 + 1e-5), rows(20, 5)[0]])
    assert count_twins(x, held) == (7, 27)
    assert count_twins(x, held[:0]) == (0, 0)
    assert count_twins(x[:0], held) == (0, 27)
    assert count_twins(np.full_like(x, np.nan), held) == (0, 27)


def test_twins_of_many_rows_are_counted_on_a_thousand() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 4))
    assert count_twins(x, x) == (1000, 1000)


def test_no_rows_have_no_losses() -> None:
    assert cross_entropy(np.zeros((0, 3)), np.zeros(0, dtype=int)).shape == (0,)
