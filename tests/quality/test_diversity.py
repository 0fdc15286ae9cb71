"""The effective number of rows and the growth of a vocabulary, by their definitions; odd rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import entropy

from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.checks import all_checks
from holdfast.quality.checks.copies.forms import effective_rows, vocabulary_growth
from holdfast.quality.views import Embedded, TableRows


def test_it_is_the_entropy_of_the_eigenvalues_of_the_similarities() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(25, 9)) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(centred @ centred.T / 25).clip(0)  # n × n
    expected = float(np.exp(entropy(values)))
    assert effective_rows(vectors.astype(np.float32)) == pytest.approx(expected, rel=1e-4)


def test_kinds_of_equal_rows_count_as_their_number() -> None:
    """Corners of a simplex: after the mean is gone k of them span k − 1 even directions."""
    vectors = np.eye(8)[np.arange(80) % 8]
    assert effective_rows(vectors.astype(np.float32)) == pytest.approx(7, abs=1e-3)
    assert effective_rows(np.ones((20, 4), np.float32) / 2) == 1.0


def test_the_growth_is_that_of_a_law_of_powers() -> None:
    assert vocabulary_growth([f"word{i}" for i in range(400)], 0) == (1.0, 400)
    assert vocabulary_growth(["the same words"] * 100, 0)[0] == 0.0
    assert vocabulary_growth(["..."], 0) == (1.0, 0)


def test_rows_of_a_few_forms_are_reported_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    forms = rng.normal(size=(6, 40))

    def view(centres):
        made = centres + rng.normal(0, 0.02, centres.shape)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        texts = [f"form {i % 6} of the table with row words here" for i in range(len(made))]
        return Embedded(TableRows(table_from_texts(texts)), made.astype(np.float32), "m", None)

    found = all_checks()["low_diversity"](view(forms[np.arange(300) % 6]))
    assert "300 rows have the variety of 5 dissimilar rows" in found.finding.because
    assert "adds only 0 % new words" in found.finding.because
    assert all_checks()["low_diversity"](view(forms[np.arange(90) % 6])) is None


def test_rows_of_another_kind_lie_far_from_the_middle() -> None:
    rng = np.random.default_rng(0)
    # The table's rows share a direction; five others point elsewhere, near one another.
    rows = rng.normal(size=(200, 30)) * 0.3 + np.eye(30)[0] * 2
    odd = rng.normal(size=(5, 30)) * 0.3 + np.eye(30)[1] * 2
    made = np.concatenate([rows, odd])
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    texts = [f"row {i}" for i in range(205)]
    table = TableRows(table_from_texts(texts))
    other = rng.normal(size=(60, 30)) * 0.3 + np.eye(30)[1]
    general = {"general": (other / np.linalg.norm(other, axis=1, keepdims=True)).astype("f4")}
    every = Embedded(table, made.astype(np.float32), "m", None, references=general)
    found = all_checks()["off_topic_rows"](every)
    assert set(found.finding.rows) >= {200, 201, 202, 203, 204}
    assert found.finding.count <= 7
    assert {example.row for example in found.examples[:5]} == {200, 201, 202, 203, 204}
    even = replace(every, rows=TableRows(table.table.take(range(200))), vectors=every.vectors[:200])
    healthy = all_checks()["off_topic_rows"](even)
    assert healthy is None or healthy.finding.count <= 2
    unread = all_checks()["off_topic_rows"].skip_reason(replace(every, references={}))
    assert "no reference texts" in unread


def test_rows_like_filler_are_listed_and_others_are_not() -> None:
    rng = np.random.default_rng(0)

    def near(axis: int, count: int) -> np.ndarray:
        made = rng.normal(size=(count, 30)) * 0.3 + np.eye(30)[axis] * 2
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype("f4")

    rows, filler, references = near(0, 200), near(1, 8), {"filler": near(1, 50)}
    table = TableRows(table_from_texts([f"row {i}" for i in range(208)]))
    every = Embedded(table, np.concatenate([rows, filler]), "m", None, references=references)
    found = all_checks()["machine_filler"](every)
    assert set(found.finding.rows) == set(range(200, 208))
    assert found.finding.score == 8 / 208
    even = replace(every, rows=TableRows(table.table.take(range(200))), vectors=rows)
    assert all_checks()["machine_filler"](even) is None
