"""Pairs of rows on one subject with different labels."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import NearestNeighbors

from holdfast.data.memory.texts import table_from_texts
from holdfast.duplicates import opposite_pairs as module
from holdfast.duplicates.opposite_pairs import opposite_pairs, opposite_pairs_of
from holdfast.split.folds import make_folds
from holdfast.split.split_table import split_table

SYLLABLES = [a + b for a in "bcdfglmnprst" for b in "aeiou"]


def paired(pairs: int, seed: int = 0, share: float = 1.0) -> tuple[list[str], list[str]]:
    """Two texts for each subject, which share eight words of twelve, in a random order; the second
    one has the other label with probability ``share``."""
    rng = random.Random(seed)

    def words(n: int) -> list[str]:
        return ["".join(rng.choices(SYLLABLES, k=4)) for _ in range(n)]

    rows = []
    for _ in range(pairs):
        subject, label = words(8), rng.choice(["human", "machine"])
        other = {"human": "machine", "machine": "human"}[label]
        rows += [
            (" ".join([*subject, *words(4)]), label),
            (" ".join([*words(4), *subject]), other if rng.random() < share else label),
        ]
    rng.shuffle(rows)
    return [text for text, _ in rows], [label for _, label in rows]


def numbers(labels: list[str]) -> Any:
    return np.unique(labels, return_inverse=True)[1]


def neighbours_by_sklearn(texts: list[str]) -> set[tuple[int, int]]:
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(vectors).kneighbors()[1][:, 0]
    return {(at, int(of)) for at, of in enumerate(nearest) if nearest[of] == at and at < of}


@pytest.mark.parametrize("pairs", [40, 700], ids=["all are tested", "a sample is tested"])
def test_pairs_are_the_mutual_neighbours_with_different_labels(pairs: int) -> None:
    texts, labels = paired(pairs)
    found = opposite_pairs(texts, numbers(labels))
    assert found is not None
    expected = {(a, b) for a, b in neighbours_by_sklearn(texts) if labels[a] != labels[b]}
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert len(found) == pairs
    share = labels.count("human") / len(labels)
    assert found.expected == pytest.approx(
        2 * share * (1 - share) * len(labels) / (len(labels) - 1)
    )


def test_nothing_depends_on_the_order_of_the_rows() -> None:
    texts, labels = paired(650)
    order = np.random.default_rng(1).permutation(len(texts))
    one = opposite_pairs(texts, numbers(labels))
    other = opposite_pairs([texts[at] for at in order], numbers(labels)[order])
    assert one is not None
    assert other is not None
    assert (one.neighbours, one.different) == (other.neighbours, other.different)
    pairs = {frozenset((a, b)) for a, b in zip(one.first, one.second, strict=True)}
    moved = {
        frozenset((order[a], order[b])) for a, b in zip(other.first, other.second, strict=True)
    }
    assert pairs == moved


@pytest.mark.parametrize("share", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_pairs_are_found_where_more_than_half_way_to_all_differ(share: float) -> None:
    texts, labels = paired(100, share=share)
    pairs = neighbours_by_sklearn(texts)
    different = sum(labels[a] != labels[b] for a, b in pairs)
    found = opposite_pairs(texts, numbers(labels))
    counts = np.unique(labels, return_counts=True)[1]
    n = len(labels)
    half_way = (2 - (counts * (counts - 1)).sum() / (n * (n - 1))) / 2
    test = binomtest(different, len(pairs), half_way, alternative="greater")
    assert (found is not None) == (test.pvalue < 1e-3)
    assert (found is not None) == (share > 0.85)


def test_equal_texts_and_texts_without_a_shared_word_are_no_pair() -> None:
    texts, labels = paired(40)
    more = [*texts, *texts, "qqq", "zzz"]
    found = opposite_pairs(more, numbers([*labels, *labels, "human", "machine"]))
    assert found is not None
    assert len(found) == 40
    assert found.second.max() < len(more) - 2


def test_few_pairs_one_class_and_many_rows_are_not_judged(monkeypatch: Any) -> None:
    texts, labels = paired(12)
    assert opposite_pairs(texts, numbers(labels)) is None
    texts, labels = paired(40)
    assert opposite_pairs(texts, np.zeros(len(texts), dtype=np.int64)) is None
    monkeypatch.setattr(module, "MAX_ROWS", 79)
    assert opposite_pairs(texts, numbers(labels)) is None
    assert opposite_pairs_of(table_from_texts(texts, labels)) is None


def test_both_rows_of_a_pair_are_in_one_split_and_one_fold() -> None:
    texts, labels = paired(60)
    table = table_from_texts(texts, labels)
    splits = split_table(table, seed=0)
    subject = {text: frozenset(text.split()) for text in texts}
    tables = [splits.train.table, splits.valid.table, splits.test.open()]
    sides = [[subject[text] for text in side.column("text")] for side in tables]
    assert all(sides)
    for one in range(3):
        for other in range(one):
            assert not any(len(a & b) >= 8 for a in sides[one] for b in sides[other])
    assert "60 pairs of rows on one subject with different labels" in splits.decisions[0].because
    in_use = [*sides[0], *sides[1]]
    known = np.zeros(len(in_use), dtype=np.int64)
    for fold in make_folds(splits.units, known, 3, seed=0):
        assert not any(len(in_use[a] & in_use[b]) >= 8 for a in fold.train for b in fold.held_out)


@pytest.mark.parametrize(("blocks", "rows"), [(15, 4), (8, 40)])
def test_pairs_part_no_group_of_near_duplicates(blocks: int, rows: int) -> None:
    """In a block of near-duplicates with both labels rows are mutual neighbours, too."""
    texts, labels = paired(60)
    rng = random.Random(1)
    for _ in range(blocks):
        words = ["".join(rng.choices(SYLLABLES, k=4)) for _ in range(30)]
        for at in range(rows):
            texts.append(" ".join([*words, f"end{at % 3}"]))
            labels.append(("human", "machine")[at % 2])
    splits = split_table(table_from_texts(texts, labels), seed=0)
    kept = splits.records.column("split").to_pylist()
    assert "dropped" not in kept
    for first in range(120, len(texts), rows):
        assert len(set(kept[first : first + rows])) == 1


@pytest.mark.parametrize("seed", range(4))
def test_pairs_do_not_prevent_the_split_of_small_classes(seed: int) -> None:
    texts, labels = paired(150, seed)
    for place in range(30):
        labels[place * 9] = f"rare {place % 10}"
    splits = split_table(table_from_texts(texts, labels, rare_below=1), seed=seed)
    assert "dropped" not in splits.records.column("split").to_pylist()


def test_rows_without_a_label_are_no_class() -> None:
    texts, labels = paired(60)
    table = table_from_texts([*texts, "one more"], [*labels, None], classes=("human", "machine"))
    assert opposite_pairs_of(table) is not None
    unknown = table_from_texts(texts)
    assert opposite_pairs_of(unknown) is None


def test_a_group_column_is_kept_instead() -> None:
    texts, labels = paired(60)
    table = table_from_texts(texts, labels, groups=[f"g{at % 30}" for at in range(len(texts))])
    splits = split_table(table, seed=0)
    assert "on one subject" not in splits.decisions[0].because


@pytest.mark.parametrize("name", ["cr/cr.csv", "mr/mr.csv", "trec/train.csv"])
def test_ordinary_rows_are_no_pairs(real_texts: Callable[[str], Any], name: str) -> None:
    texts, labels = real_texts(name)
    for n in (60, 1500):
        assert opposite_pairs(texts[:n], numbers(labels[:n])) is None
