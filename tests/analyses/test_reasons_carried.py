"""The words that carry a class: what is searched for, and the test of what was found."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.analyses.explain.class_words import (
    WordCandidate,
    WordCandidates,
    confirm_words,
    draw_other_units,
    exchange_p,
    find,
    find_word_candidates,
    positions_of,
    word_ngrams,
)
from holdfast.data.memory.texts import table_from_texts

FILL = [f"w{i}" for i in range(30)]


def _rows(n: int, seed: int = 0) -> tuple[list[list[str]], np.ndarray]:
    """Texts of random words; ``never again`` decides for the second class, ``fine`` for the first,
    ``bystander`` stands mostly beside ``fine`` and decides nothing."""
    rng = np.random.default_rng(seed)
    texts, odds = [], []
    for _ in range(n):
        words = list(rng.choice(FILL, 8))
        value = rng.standard_normal() * 0.3
        if rng.random() < 0.15:
            words[2:2] = ["Never", "again"]
            value -= 3
        if rng.random() < 0.2:
            words.insert(0, "fine")
            value += 3
            if rng.random() < 0.8:
                words.append("bystander")
        texts.append([" ".join(words)])
        odds.append(value)
    chance = 1 / (1 + np.exp(-np.array(odds)))
    return texts, np.stack([chance, 1 - chance], axis=1)


def test_words_that_decide_are_found_and_bystanders_come_behind() -> None:
    texts, chances = _rows(400)
    found = find_word_candidates(texts, chances, ("good", "bad"), limit=4)
    assert (found[0].name, found[0].words) in {("good", ("fine",)), ("bad", ("never", "again"))}
    first = {one.name: one.words for one in reversed(found)}
    assert first["good"] == ("fine",)
    # One of three names of the same rows.
    assert first["bad"] in {("never",), ("again",), ("never", "again")}
    assert sum("again" in one.words or "never" in one.words for one in found) == 1
    held = sum(("fine",) in word_ngrams(row) for row in texts)
    assert next(one for one in found if one.words == ("fine",)).rows == held


@pytest.mark.parametrize("out_of_fold", [True, False])
def test_rows_predicted_out_of_fold_count_once(out_of_fold: bool) -> None:
    """They are the training rows: a word of three rows is no word of six."""
    texts, chances = _rows(400)
    labels = (chances[:, 1] > 0.5).astype(int)
    table = table_from_texts([row[0] for row in texts], labels.tolist())
    split = SimpleNamespace(table=table, probabilities=chances, names=("good", "bad"))
    session: Any = SimpleNamespace(train=split, valid=split, out_of_fold=out_of_fold)
    found = find(session)
    assert isinstance(found, WordCandidates)
    assert found.rows == (400 if out_of_fold else 800)


def test_rare_words_are_no_candidates() -> None:
    texts = [["once"], *[["often here"] for _ in range(50)], *[["other"] for _ in range(50)]]
    chances = np.tile([0.9, 0.1], (101, 1))
    chances[51:] = [0.1, 0.9]
    assert ("once",) not in {one.words for one in find_word_candidates(texts, chances, ("a", "b"))}
    assert find_word_candidates(texts[:4], chances[:4], ("a", "b")) == ()


def test_grams_are_words_and_neighbours_in_small_letters() -> None:
    found = word_ngrams(["Not good, NO", "x"])
    assert found == {("not",), ("good",), ("no",), ("x",), ("not", "good")}


def test_every_place_of_the_words_is_taken_out_and_others_are_others() -> None:
    units = ["Not", "good", ",", "not", "good", "end"]
    assert positions_of(("not", "good"), units).tolist() == [0, 1, 3, 4]
    assert positions_of(("good",), units).tolist() == [1, 4]
    rng = np.random.default_rng(0)
    drawn = draw_other_units(np.array([1, 4]), 6, rng)
    assert drawn is not None
    assert len(set(drawn.tolist())) == 2
    assert not set(drawn.tolist()) & {1, 4}
    assert draw_other_units(np.array([0, 1, 2, 3]), 6, rng) is None


@pytest.mark.parametrize("n", [1, 4, 9])
def test_the_test_of_exchange_is_that_of_all_signs(n: int) -> None:
    gap = np.random.default_rng(n).standard_normal(n) + 0.5
    sums = [float(np.dot(gap, signs)) for signs in itertools.product([1, -1], repeat=n)]
    expected = np.mean([one >= gap.sum() - 1e-9 for one in sums])
    assert exchange_p(gap) == pytest.approx(expected)
    assert exchange_p(np.abs(gap)) == pytest.approx(2.0**-n)
    assert exchange_p(np.zeros(0)) == 1.0


def test_words_that_are_like_others_are_confirmed_in_at_most_one_run_of_twenty() -> None:
    rng, alarms = np.random.default_rng(0), 0
    six = [WordCandidate("a", (f"w{k}",), 9) for k in range(6)]
    for _ in range(400):
        draws = [rng.standard_t(2, (2, rng.integers(4, 13))) for _ in six]
        found = confirm_words(six, [one[0] for one in draws], [one[1] for one in draws])
        alarms += any(one.confirmed for one in found)
    # A binomial of 400 at 5 % is beyond 34 in one of a thousand.
    assert alarms <= 34


def test_what_is_not_settled_says_how_many_rows_would() -> None:
    rng = np.random.default_rng(1)
    one = WordCandidate("a", ("x",), 9)
    clear, faint = confirm_words(
        [one, one],
        [rng.standard_normal(12) + 4, np.array([1.0, 0.4, -0.5, 0.6, 0.2])],
        [np.zeros(12), np.zeros(5)],
    )
    assert clear.confirmed
    assert clear.rows_to_settle is None
    assert not faint.confirmed
    assert faint.rows_to_settle is not None
    assert faint.rows_to_settle > 5
    assert faint.to_json()["difference"]["value"] == pytest.approx(0.34)


def test_no_fewer_rows_than_there_are_would_decide() -> None:
    """Four rows that agree: a t-test of three would settle it, and the exchanges of four rows
    cannot (1/16 at best); of ten that a t-test holds settled and Holm does not, nothing is said."""
    (few,) = confirm_words(
        [WordCandidate("a", ("x",), 4)], [np.array([2.0, 2.1, 1.9, 2.0])], [np.zeros(4)]
    )
    assert few.p == pytest.approx(1 / 16)
    assert few.rows_to_settle == 5
    assert 2.0**-5 < 0.05 < 2.0**-4


def test_a_word_that_only_a_class_has_gives_it_away_unless_the_class_is_called_so() -> None:
    texts, chances = _rows(200)
    labels = (chances[:, 1] > 0.5).astype(int)
    of_bad = np.flatnonzero(labels == 1)
    for at in of_bad[: round(0.9 * len(of_bad))]:
        texts[at] = [f"{texts[at][0]} zorvex"]
    told = np.stack([labels == 0, labels == 1], axis=1).astype(float)

    def of(names: tuple[str, str], known: Any = labels) -> WordCandidate:
        found = find_word_candidates(texts, told, names, known)
        return next(one for one in found if one.words == ("zorvex",))

    one = of(("good", "bad"))
    assert (one.name, one.other_share) == ("bad", 0.0)
    assert one.class_share == pytest.approx(round(0.9 * len(of_bad)) / len(of_bad))
    assert one.gives_away
    assert not of(("good", "zorvexes")).gives_away
    assert not of(("good", "bad"), None).gives_away
    # Half of a class may be about it.
    for at in of_bad[: len(of_bad) // 3]:
        texts[at] = [texts[at][0].replace(" zorvex", "")]
    assert not of(("good", "bad")).gives_away
