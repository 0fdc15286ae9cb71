"""The two searches for millions of texts, on few: the first one's blocks, passes and hashes, held
against the engine that has everything in memory, and against all pairs counted one by one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Defect
from holdfast.data.table import Table
from holdfast.duplicates import duplicates, hashed_bags, words
from holdfast.duplicates.duplicates import (
    Duplicates,
    find_duplicates_in_blocks,
    find_duplicates_in_memory,
)
from holdfast.duplicates.engines import ThreadEngine
from holdfast.duplicates.hashed_bags import hash_spans, word_hashes
from holdfast.duplicates.loose_duplicates import find_loose_duplicates
from holdfast.duplicates.words import ArrowTexts, RowTexts

Read = Callable[[str], tuple[list[str], list[str]]]
Alter = Callable[[str, Sequence[str], random.Random], str]
Make = Callable[..., Table]
FILES = {"cr": "cr/cr.csv", "mr": "mr/mr.csv", "trec": "trec/train.csv"}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks, passes and parts so small that a few hundred texts need many of each."""
    for module in (hashed_bags, words):
        if hasattr(module, "BLOCK_TEXTS"):
            monkeypatch.setattr(module, "BLOCK_TEXTS", 37)
    monkeypatch.setattr(hashed_bags, "BLOCK_CHARACTERS", 900)
    monkeypatch.setattr(hashed_bags, "_WORDS_AT_ONCE", 501)
    monkeypatch.setattr(hashed_bags, "ENTRIES_PER_PART", 200)
    monkeypatch.setattr(hashed_bags, "_ROWS_AT_ONCE", 101)


def planted(texts: list[str], alter: Alter, seed: int) -> list[str]:
    rng = random.Random(seed)
    corpus = [word for text in texts for word in text.split()]
    shouted = [text.upper() + " !" for text in texts[:150]]
    twice = [f"{text} {text}" for text in texts[150:200]]
    return texts + [alter(text, corpus, rng) for text in texts if text.split()] + shouted + twice


def same(one: Duplicates, other: Duplicates) -> bool:
    def arrays(copies: Duplicates) -> list[object]:
        links = copies.links
        return [copies.groups, copies.exact, copies.contents, *map(links.__getattribute__, LINKS)]

    return all(map(np.array_equal, arrays(one), arrays(other))) and one.cuts == other.cuts


LINKS = [f.name for f in fields(duplicates.SimilarPairs)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_two_searches_find_what_one_finds_with_everything_in_memory(
    name: str, real_texts: Read, alter: Alter
) -> None:
    rows = planted(real_texts(FILES[name])[0], alter, seed=3)
    few = find_duplicates_in_memory(rows, seed=7)
    many = find_duplicates_in_blocks(rows, seed=7)
    assert len(few.links) > 2000
    assert same(few, many)


def test_threads_blocks_and_passes_change_nothing(
    small_blocks: None, real_texts: Read, alter: Alter
) -> None:
    rows = planted(real_texts(FILES["trec"])[0][:400], alter, seed=4)
    alone = find_duplicates_in_blocks(rows)
    assert len(alone.links) > 100
    assert same(find_duplicates_in_memory(rows), alone)
    assert same(alone, find_duplicates_in_blocks(rows, engine=ThreadEngine(3)))


def test_long_texts_and_texts_of_letters_alone_go_through_the_same_search(alter: Alter) -> None:
    rng = random.Random(2)
    vocabulary = [f"w{rng.randrange(10**9):x}" for _ in range(2000)]
    long = [" ".join(rng.choices(vocabulary, k=rng.randrange(30, 200))) for _ in range(60)]
    rows = planted(long, alter, seed=5)
    rows += [
        "这家餐厅的服务非常好我们全家都很喜欢",
        "这家餐厅的服务非常好我们全家都很喜爱",
        "",
        "!!",
        "x" * 5000,
    ]
    assert same(find_duplicates_in_memory(rows), find_duplicates_in_blocks(rows))


WORDS = st.sampled_from(
    ["red", "green", "blue", "one", "two", "Three!", "kettle", "kettel", "7", "…"]
)


@settings(max_examples=40)
@given(st.lists(st.lists(WORDS, max_size=14).map(" ".join), max_size=25))
def test_any_few_words_in_any_texts(rows: list[str]) -> None:
    assert same(find_duplicates_in_memory(rows), find_duplicates_in_blocks(rows))


def test_large_sources_take_the_bounded_search(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(duplicates, "IN_MEMORY_TEXTS", 3)
    monkeypatch.setattr(
        duplicates, "find_duplicates_in_blocks", lambda rows, **_: asked.append(len(rows))
    )
    duplicates.find_duplicates(["a", "b"])
    duplicates.find_duplicates(["a", "b", "c"])
    assert asked == [3]


# --- words as hashes -----------------------------------------------------------------------------


@settings(max_examples=80)
@given(st.lists(st.text(st.sampled_from("ab é🙂 \t"), max_size=40), max_size=12))
def test_equal_words_alone_have_equal_hashes(rows: list[str]) -> None:
    spaced = [" ".join(row.split()) for row in rows]
    hashes, counts = word_hashes(pa.array(spaced, pa.large_string()))
    flat = [word for row in spaced for word in row.split()]
    assert counts.tolist() == [len(row.split()) for row in spaced]
    named = list(zip(flat, hashes.tolist(), strict=True))
    assert len(set(named)) == len(set(flat)) == len(set(hashes.tolist()))


def test_hashes_of_a_slice_of_an_array_are_those_of_its_texts() -> None:
    whole = pa.array(["one two", "", "three  four", "one"], pa.large_string())
    hashes, counts = word_hashes(whole[1:])
    assert counts.tolist() == [0, 2, 1]
    assert hashes[2] == word_hashes(whole)[0][0]
    assert [len(each) for each in word_hashes(pa.array([], pa.large_string()))] == [0, 0]


def test_spans_of_every_length_differ_where_one_byte_does() -> None:
    data = np.zeros(4000, dtype=np.uint8)
    lengths = np.array([1, 7, 8, 9, 16, 17, 1024, 1025, 2000])
    zeros = np.zeros_like(lengths)
    plain = hash_spans(data, zeros, lengths)
    data[0] = 1
    assert len({*plain.tolist(), *hash_spans(data, zeros, lengths).tolist()}) == 2 * len(lengths)


# --- texts that stay in Arrow --------------------------------------------------------------------


def test_rows_read_as_arrow_are_the_rows_read_as_strings(make_table: Make) -> None:
    one = make_table(["a", "b", "c"], ["x", "y", "x"], pairs=["d", "e", "f"])
    other = make_table(["g", "h"], ["x", "y"], pairs=["i", "j"])
    rows = RowTexts(one, other)
    assert rows.arrow(1, 4).to_pylist() == rows[1:4] == [rows[1], rows[2], rows[3]]
    assert rows[3] == "g ␟ i"
    mapped = ArrowTexts(pa.chunked_array([["a", "b"], ["c"]]))
    assert mapped.arrow(1, 3).to_pylist() == mapped[1:3] == ["b", "c"]
    assert (mapped[2], len(mapped)) == ("c", 3)


# --- loose copies --------------------------------------------------------------------------------


def oracle(rows: Sequence[str], share: float) -> dict[tuple[int, int], float]:
    bags = [Counter(row.split()) for row in rows]
    sizes = [sum(bag.values()) for bag in bags]
    found = {}
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            larger, shorter = max(sizes[a], sizes[b]), min(sizes[a], sizes[b])
            d = larger - sum((bags[a] & bags[b]).values())
            if shorter >= 5 and d <= max(1, int(share * shorter + 1e-9)):
                found[a, b] = 1 - d / larger
    return found


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.3])
def test_loose_copies_are_the_pairs_that_counting_words_finds(share: float) -> None:
    """Different texts of words without punctuation: every form is its own text."""
    rng = random.Random(8)
    vocabulary = [
        "".join(rng.choices("bcdfgklmnprstaeiou", k=rng.randrange(2, 14))) for _ in range(900)
    ]
    rows = [" ".join(rng.choices(vocabulary, k=rng.randrange(3, 24))) for _ in range(250)]
    for row in rows[:250]:
        split = row.split()
        for at in rng.sample(range(len(split)), int(rng.choice([0.1, 0.2, 0.3, 0.4]) * len(split))):
            split[at] = rng.choice(vocabulary)
        rng.shuffle(split)
        rows.append(" ".join(split))
    rows = list(dict.fromkeys(rows))
    links = find_loose_duplicates(rows, share=share).pairs()
    found = zip(links.first.tolist(), links.second.tolist(), links.similarity.tolist(), strict=True)
    expected = oracle(rows, share)
    given_ = {(a, b): similarity for a, b, similarity in found}
    assert len(expected) > 100
    assert given_ == pytest.approx({pair: expected.get(pair, -1.0) for pair in given_}, abs=1e-6)
    assert len(given_) >= 0.98 * len(expected)


def test_loose_copies_of_real_texts_with_words_changed_are_found(real_texts: Read) -> None:
    rng = random.Random(9)
    rows = [text for text in real_texts(FILES["mr"])[0] if len(text.split()) >= 10][:3000]
    corpus = [word for text in rows for word in text.split()]
    for share, wanted in ((0.2, 0.95), (0.3, 0.80)):
        changed = []
        for row in rows:
            split = row.split()
            for at in rng.sample(range(len(split)), int(share * len(split) + 1e-9)):
                split[at] = rng.choice(corpus)
            changed.append(" ".join(split))
        loose = find_loose_duplicates(rows + changed, share=0.3)
        links = loose.pairs()
        pairs = set(zip(links.first.tolist(), links.second.tolist(), strict=True))
        exact = loose.exact
        hits = [(i, i + 3000) in pairs or exact[i] == exact[i + 3000] for i in range(3000)]
        assert np.mean(hits) >= wanted


@pytest.mark.parametrize("share", [0.0, 0.6, -1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(Defect, match="share of differing words"):
        find_loose_duplicates(["a"], share=share)
