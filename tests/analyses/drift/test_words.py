"""Words and facts of rows."""

import numpy as np
import pytest

from holdfast.plugins.drift.rows import (
    DriftRows,
    Reference,
    changed_words,
    from_arrays,
    hashed_word_vectors,
    monitored_statistics,
    repetition,
    to_arrays,
    unit_vectors,
    word_row_counts,
)


def test_words_that_tell_lead_and_their_shares_are_those_of_rows() -> None:
    old = ["the screen is fine"] * 40 + ["the battery is fine"] * 60
    new = ["the screen is broken"] * 70 + ["the battery is fine"] * 30
    found = changed_words(word_row_counts(new), 100, word_row_counts(old), 100)
    shares = {term.word: (term.then, term.now) for term in found}
    assert shares["broken"] == (0.0, 0.7)
    assert shares["fine"] == (1.0, 0.3)
    assert "the" not in shares
    assert next(iter(shares)) in ("broken", "fine")
    assert changed_words(word_row_counts(old), 100, word_row_counts(old), 100) == []


def test_words_of_one_person_are_not_kept() -> None:
    assert word_row_counts(["ada went home", "went home", "home went"]) == {"home": 3, "went": 3}


def test_hashed_words_need_no_vocabulary() -> None:
    one = hashed_word_vectors(["the cat sat", "The CAT sat!", "a dog ran", ""])
    assert np.allclose(one[0], one[1])
    assert one[0] @ one[0] == pytest.approx(1)
    assert abs(one[0] @ one[2]) < 0.9
    assert not one[3].any()


def test_facts_by_kind_of_answer() -> None:
    texts = ("one two", "three")
    written = monitored_statistics(texts, ["a b c a b c", None], [0.5, None])
    assert written["words"].tolist() == [2, 1]
    assert written["answer words"][0] == 6
    assert written["repetition"][0] == pytest.approx(1 - 3 / 4)
    assert np.isnan(written["confidence"][1])
    assert monitored_statistics(None, [1.5, 2], [None, None])["answer"].tolist() == [1.5, 2.0]
    assert monitored_statistics(texts, [["a"], []], [0.1, 0.2])["labels"].tolist() == [1, 0]
    tagged = monitored_statistics(texts, [["O", "B-X"], ["O"]], [0.1, 0.2], "O")
    assert tagged["tagged"].tolist() == [0.5, 0]
    assert repetition("one two") == 0


def test_a_reference_comes_back_from_its_arrays_without_a_text() -> None:
    rows = DriftRows(
        3,
        unit_vectors(np.random.default_rng(0).normal(size=(3, 4))),
        np.array([0, 1, 0]),
        {"words": np.array([1.0, np.nan, 3.0])},
        ("a", "b", "c"),
    )
    reference = Reference(rows, ("no", "yes"), np.array([1.0, 0.0, np.nan]), {"fine": 3}, 3)
    found, words, mark = from_arrays(to_arrays(reference, np.eye(3), "abc"))
    assert (mark, found.classes, found.word_counts) == ("abc", ("no", "yes"), {"fine": 3})
    assert np.array_equal(words, np.eye(3))
    assert np.allclose(found.rows.vectors, rows.vectors, atol=1e-3)
    assert found.rows.texts is None
    assert np.array_equal(found.correct, reference.correct, equal_nan=True)
    with pytest.raises(ValueError, match="facts"):
        from_arrays({})
