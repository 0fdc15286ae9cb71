"""Every system gets the same rows, and no row twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

WORDS = [f"{a}{b}" for a in "bcdfghklmnprst" for b in ("ato", "eli", "ino", "ora", "uza", "ynx")]


@pytest.fixture
def rows() -> Any:
    from peers.rows import Rows

    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 9)) for _ in range(600)]
    labels = ["rare" if i % 60 == 0 else ("yes", "no", "no")[i % 3] for i in range(600)]
    return Rows(tuple(texts), tuple(labels))


def drawn(rows: Any, seed: int, **changed: Any) -> Any:
    from peers.rows import draw

    return draw(rows, seed=seed, **{"train": 82, "valid": 18, "pool": 200, **changed})


def test_no_text_is_in_two_parts_or_twice_in_one(rows: Any) -> None:
    parts = drawn(rows, 0)
    texts = [text for part in parts.named().values() for text in part.texts]
    assert len(texts) == len(set(texts)) == 82 + 18 + 200


def test_test_rows_are_the_same_for_every_seed_and_size(rows: Any) -> None:
    assert drawn(rows, 0).test == drawn(rows, 1, train=150, valid=30).test


def test_pieces_of_the_pool_are_apart_and_make_the_whole(rows: Any) -> None:
    pieces = [set(drawn(rows, s, test=slice(50 * s, 50 * s + 50)).test.texts) for s in range(4)]
    assert set().union(*pieces) == set(drawn(rows, 0).test.texts)
    assert sum(map(len, pieces)) == 200


def test_training_rows_follow_the_seed(rows: Any) -> None:
    assert drawn(rows, 0).train == drawn(rows, 0).train
    assert drawn(rows, 0).train != drawn(rows, 1).train


def test_a_label_stays_with_its_text(rows: Any) -> None:
    label = dict(zip(rows.texts, rows.labels, strict=True))
    for part in drawn(rows, 3).named().values():
        assert [label[text] for text in part.texts] == list(part.labels)


def test_a_rare_class_has_three_training_rows_and_one_for_validation(rows: Any) -> None:
    parts = drawn(rows, 0)
    assert Counter(parts.train.labels)["rare"] >= 3
    assert Counter(parts.valid.labels)["rare"] >= 1


def test_the_whole_is_training_and_validation_rows(rows: Any) -> None:
    parts = drawn(rows, 0)
    whole = parts.whole()
    assert sorted(whole.train.texts) == sorted(parts.train.texts + parts.valid.texts)
    assert len(whole.train.labels) == 100


def test_copies_leave_one_row_of_each_group(rows: Any) -> None:
    from peers.rows import Rows, without_copies

    doubled = Rows(
        rows.texts + tuple(text.upper() + " !" for text in rows.texts[:50]),
        rows.labels + rows.labels[:50],
    )
    assert without_copies(doubled) == rows


@pytest.mark.parametrize("count", [10, 57, 100])
def test_places_are_within_one_row_of_their_shares(count: int) -> None:
    from peers.rows import allocate

    sizes = [500, 313, 120, 67]
    given = allocate(sizes, count)
    assert sum(given) == count
    assert all(abs(g - count * s / 1000) < 1 for g, s in zip(given, sizes, strict=True))


def test_places_respect_the_least_and_what_a_class_has() -> None:
    from peers.rows import allocate

    assert allocate([95, 4, 1], 10, least=3) == [6, 3, 1]
    with pytest.raises(ValueError, match="too few"):
        allocate([5, 5], 3, least=2)


def test_more_rows_than_there_are_is_refused(rows: Any) -> None:
    with pytest.raises(ValueError, match="401 rows are wanted, and there are 400"):
        drawn(rows, 0, train=319, valid=82)


def test_eighty_two_percent_are_training_rows() -> None:
    from peers.rows import labelled_counts

    assert labelled_counts(100) == {"train": 82, "valid": 18}
    assert labelled_counts(1600) == {"train": 1312, "valid": 288}


def test_a_run_on_other_rows_is_refused(rows: Any) -> None:
    from peers.arms import check_rows

    parts = drawn(rows, 0)
    for train in (82, 81):
        check_rows({"data": {"train": train, "valid": 18, "test": 200}}, parts)
    with pytest.raises(ValueError, match="80 train rows of 82"):
        check_rows({"data": {"train": 80, "valid": 18, "test": 200}}, parts)
