"""Divisions other than evenly by class: each held to what it promises, none parts copies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import SplitError
from holdfast.data.table import Splits, Table
from holdfast.split.split_table import split_table
from holdfast.split.strategies import SplitStrategy, by_hash, by_time, majority_blocks

Make = Callable[..., Table]
Alter = Callable[[str, Sequence[str], random.Random], str]
SYLLABLES = [a + b for a in "bcdfglmnprst" for b in "aeiou"]


def corpus(n: int, seed: int = 0, length: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [" ".join("".join(rng.choices(SYLLABLES, k=4)) for _ in range(length)) for _ in range(n)]


def labels_for(n: int) -> list[str]:
    return ["yes" if at % 3 else "no" for at in range(n)]


def sides(splits: Splits) -> np.ndarray[Any, Any]:
    return np.array(splits.records["split"].to_pylist())


def checks(splits: Splits) -> dict[str, Any]:
    return {finding.check: finding for finding in splits.findings}


# --- by time -------------------------------------------------------------------------------------


def by_moment(ages: Sequence[float]) -> SplitStrategy:
    return SplitStrategy(
        "time", "by time: the {side} rows", ages=np.array(ages), moments=tuple(map(str, ages))
    )


def test_the_newest_rows_are_the_test_rows(make_table: Make) -> None:
    ages = random.Random(3).sample(range(1000), 200)
    splits = split_table(
        make_table(corpus(200), labels_for(200)),
        seed=0,
        strategy=by_moment([float(a) for a in ages]),
    )
    found, age = sides(splits), np.array(ages)
    assert age[found == "train"].max() < age[found == "valid"].min()
    assert age[found == "valid"].max() < age[found == "test"].min()
    assert [int((found == name).sum()) for name in ("train", "valid", "test")] == [140, 30, 30]
    because = splits.decisions[0].because
    assert f"the test rows: test from {float(age[found == 'test'].min())} on" in because


def test_rows_of_one_moment_and_copies_of_new_rows_are_not_parted(
    make_table: Make, alter: Alter
) -> None:
    rng = random.Random(1)
    texts = corpus(100)
    # An old row that nearly copies the newest one goes with it.
    texts[0] = alter(texts[99], texts[5].split(), rng)
    days = [float(at // 10) for at in range(100)]
    splits = split_table(make_table(texts, labels_for(100)), seed=0, strategy=by_moment(days))
    found = sides(splits)
    assert found[0] == found[99] == "test"
    for day in range(10):
        rows = [at for at in range(day * 10, day * 10 + 10) if at]
        assert len(set(found[rows])) == 1
    assert checks(splits)["blocks_reach_across"].rows == (0,)


def test_too_few_moments_and_a_class_of_the_newest_rows_alone_are_refused(make_table: Make) -> None:
    with pytest.raises(SplitError, match="change 1 time "):
        split_table(
            make_table(corpus(30), labels_for(30)),
            seed=0,
            strategy=by_moment([0.0] * 15 + [1.0] * 15),
        )
    labels = ["a", "b"] * 40 + ["new"] * 20
    with pytest.raises(SplitError, match=r"class 'new'.*has no training row in the split by time"):
        split_table(
            make_table(corpus(100), labels),
            seed=0,
            strategy=by_moment([float(n) for n in range(100)]),
        )


def test_cuts_by_time_lie_nearest_to_the_fractions() -> None:
    """Against all ways to cut, on sizes that make the first choice the wrong one."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        ages = rng.integers(0, 12, 40).astype(float)
        of_row = np.arange(40)
        side = by_time(of_row, ages, of_row.astype(np.uint64), (0.7, 0.15, 0.15))
        cuts = [(ages[side < k].max(), (side < k).sum()) for k in (1, 2)]
        options = [int((ages <= a).sum()) for a in np.unique(ages)[:-1]]
        first = min(abs(n - 28) for n in options[:-1])
        assert abs(cuts[0][1] - 28) == first
        assert all((ages[side >= k].min() > cuts[k - 1][0]) for k in (1, 2))


def test_a_given_test_table_leaves_the_newest_for_validation(make_table: Make) -> None:
    table = make_table(corpus(100), labels_for(100))
    test = make_table(corpus(20, seed=9), labels_for(20), source="test.csv")
    splits = split_table(
        table, seed=0, test=test, strategy=by_moment([float(-n) for n in range(100)])
    )
    assert set(sides(splits)[:18]) == {"valid"}
    assert "the valid rows" in splits.decisions[0].because


# --- by blocks -----------------------------------------------------------------------------------


def by_names(kind: Any, values: Sequence[str], held: Sequence[str] = ()) -> SplitStrategy:
    names, numbers = np.unique(values, return_inverse=True)
    chosen = tuple(names.tolist().index(name) for name in held)
    return SplitStrategy(
        kind, f"by {kind}: the {{side}} rows", numbers, tuple(names.tolist()), chosen
    )


def test_whole_sources_are_test_rows_and_the_others_are_divided_evenly(make_table: Make) -> None:
    sources = [f"s{at // 3 % 12}" for at in range(240)]
    splits = split_table(
        make_table(corpus(240), labels_for(240)), seed=0, strategy=by_names("source", sources)
    )
    found = sides(splits)
    by_side = {
        name: {s for s, f in zip(sources, found, strict=True) if f == name} for name in set(found)
    }
    assert not by_side["test"] & (by_side["train"] | by_side["valid"])
    assert len(by_side["test"]) == 2
    assert by_side["train"] == by_side["valid"]
    label = np.array(labels_for(240))
    shares = [(label[found == name] == "no").mean() for name in ("train", "valid")]
    assert shares[0] == pytest.approx(shares[1], abs=0.03)
    assert "2 of 12" in splits.decisions[0].because


def test_named_groups_are_the_test_rows_and_copies_elsewhere_go_with_them(make_table: Make) -> None:
    texts = corpus(90)
    texts[1] = texts[0].upper() + "!"
    groups = ["a"] + ["b"] * 29 + ["c"] * 30 + ["d"] * 30
    table = make_table(texts, labels_for(90))
    splits = split_table(table, seed=0, strategy=by_names("source", groups, held=["a", "d"]))
    found = sides(splits)
    assert set(found[[0, 1, *range(60, 90)]]) == {"test"}
    assert "test" not in set(found[2:60])
    assert checks(splits)["blocks_reach_across"].rows == (1,)
    grouped = make_table(corpus(90), labels_for(90), groups=groups)
    held = split_table(grouped, seed=0, strategy=by_names("group", groups, held=["c"]))
    assert set(sides(held)[30:60]) == {"test"}
    assert "test" not in set(sides(held)[[*range(30), *range(60, 90)]])


def test_topics_hold_their_copies_and_no_topic_is_on_two_sides(
    make_table: Make, alter: Alter
) -> None:
    rng = random.Random(4)
    texts = corpus(150)
    texts += [alter(text, texts[0].split(), rng) for text in texts[:50]]
    topics = np.array([at % 15 for at in range(150)] + [14 - at % 15 for at in range(50)])
    way = SplitStrategy("topic", "by topic", topics, tuple(f"t{n}" for n in range(15)))
    splits = split_table(make_table(texts, labels_for(200)), seed=0, strategy=way)
    found = sides(splits)
    assert (found[:50] == found[150:]).all()
    units = split_table(make_table(texts, labels_for(200)), seed=0).units
    assert units is not None
    alone = np.arange(50, 150)
    test = set(topics[alone][found[alone] == "test"])
    assert test
    assert not test & set(topics[alone][found[alone] != "test"])


def test_a_unit_stands_in_the_block_of_most_of_its_rows() -> None:
    units, blocks = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 3, 3, 4, 2, 0])
    assert majority_blocks(units, blocks).tolist() == [3, 3, 3, 2, 2, 0]


def test_blocks_that_hold_a_class_alone_are_never_chosen_and_refused_by_name(
    make_table: Make,
) -> None:
    labels = ["only"] * 10 + labels_for(80)
    sources = ["x"] * 10 + [f"s{at % 4}" for at in range(80)]
    table = make_table(corpus(90), labels)
    for seed in range(8):
        found = sides(split_table(table, seed=seed, strategy=by_names("source", sources)))
        assert "test" not in set(found[:10])
    with pytest.raises(SplitError, match=r"class 'only'.*has no row outside the test blocks"):
        split_table(table, seed=0, strategy=by_names("source", sources, held=["x"]))
    with pytest.raises(SplitError, match="cannot be held out"):
        split_table(table, seed=0, strategy=by_names("source", ["x"] * 10 + ["y"] * 80))


# --- by hash -------------------------------------------------------------------------------------

STABLE = SplitStrategy(stable=True, because="stable")


def test_a_row_added_before_others_moves_none_without_a_group(make_table: Make) -> None:
    texts, labels = corpus(201), labels_for(201)

    def split(rows: list[str], own: list[str]) -> dict[str, str]:
        groups = [f"(no group) row {at}" if at % 2 else f"g{text}" for at, text in enumerate(rows)]
        table = make_table(rows, own, groups=groups)
        return dict(zip(rows, sides(split_table(table, seed=5, strategy=STABLE)), strict=True))

    before, after = split(texts[2:], labels[2:]), split(texts, labels)
    assert {text: after[text] for text in before} == before


def test_rows_that_are_added_move_none(make_table: Make, alter: Alter) -> None:
    rng = random.Random(7)
    old = corpus(300)
    new = corpus(200, seed=8) + [alter(text, old[0].split(), rng) for text in old[:60]]
    new += [text.upper() for text in old[60:90]]
    order = rng.sample(range(len(old) + len(new)), len(old) + len(new))
    texts = [(old + new)[at] for at in order]
    labels = [(labels_for(300) + labels_for(200) + labels_for(300)[:90])[at] for at in order]
    before = dict(
        zip(
            old,
            sides(split_table(make_table(old, labels_for(300)), seed=5, strategy=STABLE)),
            strict=True,
        )
    )
    splits = split_table(make_table(texts, labels), seed=5, strategy=STABLE)
    after = dict(zip(texts, sides(splits), strict=True))
    moved = {text: (before[text], after[text]) for text in old if after[text] != before[text]}
    # A row is dropped where a near-copy came to a more protected side; it never changes sides.
    assert {side for _, side in moved.values()} <= {"dropped"}
    assert all(was != "test" for was, _ in moved.values())
    assert len(moved) == 0 or checks(splits)["copies_across_sides"].count >= len(moved)
    assert all(after[text] == after[text.upper()] for text in old[60:90])
    found = np.array(list(after.values()))
    assert (found == "train").mean() == pytest.approx(0.7, abs=0.08)


def test_groups_stay_where_their_name_puts_them(make_table: Make) -> None:
    def of(n: int) -> dict[str, str]:
        groups = [f"user {at % 40}" for at in range(n)]
        splits = split_table(
            make_table(corpus(n), labels_for(n), groups=groups), seed=1, strategy=STABLE
        )
        found = {}
        for group, side in zip(groups, sides(splits), strict=True):
            assert found.setdefault(group, side) == side
        return found

    assert of(200) == of(600)


def test_a_side_of_the_hash_that_stays_empty_is_refused(make_table: Make) -> None:
    with pytest.raises(SplitError, match="by hash: leaves no"):
        split_table(
            make_table(corpus(12), labels_for(12)),
            seed=0,
            fractions=(0.98, 0.01, 0.01),
            strategy=STABLE,
        )


def test_a_side_that_keeps_its_share_keeps_its_rows_whatever_the_others_are() -> None:
    identity = np.random.default_rng(0).integers(0, 2**63, 5000).astype(np.uint64)
    one = by_hash(identity, (0.7, 0.15, 0.15), 3)
    other = by_hash(identity, (0.5, 0.35, 0.15), 3)
    assert ((one == 2) == (other == 2)).all()
    assert np.bincount(one) / 5000 == pytest.approx([0.7, 0.15, 0.15], abs=0.02)
    assert (by_hash(identity, (0.7, 0.15, 0.15), 4) != one).mean() > 0.3


def test_every_way_is_the_same_whatever_the_order_of_the_rows(
    make_table: Make, alter: Alter
) -> None:
    rng = random.Random(2)
    texts = corpus(120)
    texts += [alter(text, texts[0].split(), rng) for text in texts[:30]]
    labels = labels_for(150)
    order = rng.sample(range(150), 150)
    ages = [float(sum(map(ord, text)) % 97) for text in texts]
    topics = np.array([sum(map(ord, text)) % 9 for text in texts])
    names = tuple(f"t{n}" for n in range(9))
    ways = [
        (by_moment(ages), by_moment([ages[at] for at in order])),
        (STABLE, STABLE),
        (
            SplitStrategy("topic", "", topics, names),
            SplitStrategy("topic", "", topics[order], names),
        ),
    ]
    for one, other in ways:
        first = sides(split_table(make_table(texts, labels), seed=3, strategy=one))
        again = split_table(
            make_table([texts[at] for at in order], [labels[at] for at in order]),
            seed=3,
            strategy=other,
        )
        assert first[order].tolist() == sides(again).tolist()


def test_a_way_that_differs_in_nothing_is_the_plain_one(make_table: Make) -> None:
    table = make_table(corpus(100), labels_for(100))
    assert (
        sides(split_table(table, seed=0, strategy=replace(SplitStrategy()))).tolist()
        == sides(split_table(table, seed=0)).tolist()
    )
