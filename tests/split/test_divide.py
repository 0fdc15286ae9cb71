from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.core.errors import RecipeError, SplitError
from holdfast.core.records import Finding
from holdfast.data.labels.bins import join_small_strata
from holdfast.data.labels.texts import load_labelled
from holdfast.data.mix import with_sources
from holdfast.data.options import RowOptions
from holdfast.data.table import Splits, Table
from holdfast.duplicates.duplicates import combine_tables
from holdfast.split.folds import make_folds
from holdfast.split.split_table import split_table

Make = Callable[..., Table]
Alter = Callable[[str, Sequence[str], random.Random], str]
SYLLABLES = [a + b for a in "bcdfglmnprst" for b in "aeiou"]


def words(rng: random.Random, n: int) -> str:
    return " ".join("".join(rng.choices(SYLLABLES, k=4)) for _ in range(n))


def corpus(n: int, seed: int = 0, length: int = 12) -> list[str]:
    rng = random.Random(seed)
    return [words(rng, length) for _ in range(n)]


def labels_for(n: int) -> list[str]:
    return ["yes" if at % 3 else "no" for at in range(n)]


def sides(splits: Splits) -> dict[str, list[int]]:
    found = defaultdict(list)
    for record in splits.records.to_pylist():
        found[record["split"]].append(record["row"])
    return found


def division(splits: Splits) -> Counter[tuple[str, str]]:
    tables = {"train": splits.train.table, "valid": splits.valid.table, "test": splits.test.open()}
    return Counter((name, text) for name, t in tables.items() for text in t.column("text"))


def checks(splits: Splits) -> dict[str, Any]:
    return {finding.check: finding for finding in splits.findings}


def test_rows_fall_70_15_15_within_a_row_per_class(make_table: Make) -> None:
    table = make_table(corpus(500), labels_for(500))
    splits = split_table(table, seed=0)
    label = table.column("label")
    for name, share in (("train", 0.7), ("valid", 0.15), ("test", 0.15)):
        rows = np.array(sides(splits)[name])
        for c in (0, 1):
            assert abs((label[rows] == c).sum() - share * (label == c).sum()) < 1
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (350, 75, 75)


def test_splits_hold_the_rows_that_the_records_say(make_table: Make) -> None:
    splits = split_table(make_table(corpus(60), labels_for(60)), seed=1)
    found = sides(splits)
    assert splits.train.table.column("row").tolist() == found["train"]
    assert splits.valid.table.column("row").tolist() == found["valid"]
    assert splits.test.open().column("row").tolist() == found["test"]


def test_the_same_rows_in_another_order_divide_alike(make_table: Make, alter: Alter) -> None:
    rng = random.Random(1)
    texts = corpus(200)
    texts += [alter(text, texts[0].split(), rng) for text in texts[:40]] + texts[40:60]
    labels = labels_for(200) + labels_for(40) + labels_for(200)[40:60]
    order = rng.sample(range(len(texts)), len(texts))
    one = split_table(make_table(texts, labels), seed=3)
    other = split_table(make_table([texts[i] for i in order], [labels[i] for i in order]), seed=3)
    assert division(one) == division(other)


def test_another_seed_divides_otherwise_and_the_same_seed_alike(make_table: Make) -> None:
    table = make_table(corpus(200), labels_for(200))
    assert sides(split_table(table, seed=0)) == sides(split_table(table, seed=0))
    assert sides(split_table(table, seed=0)) != sides(split_table(table, seed=1))


def test_copies_fall_on_one_side_whatever_their_labels(make_table: Make, alter: Alter) -> None:
    rng = random.Random(2)
    texts = corpus(150)
    exact = [text.upper() + "!" for text in texts[:40]]
    near = [alter(text, texts[0].split(), rng) for text in texts[40:80]]
    table = make_table(texts + exact + near, ["a", "b"] * 75 + ["a"] * 40 + ["b"] * 40)
    splits = split_table(table, seed=0)
    split = splits.records["split"].to_pylist()
    assert split[:80] == split[150:]
    assert checks(splits)["exact_duplicates"].count == 80
    assert checks(splits)["near_duplicates"].count == 80
    assert checks(splits)["near_duplicates"].fixed
    # Nothing is to be done, so it is no warning, although every row is one.
    assert checks(splits)["near_duplicates"].severity == "info"


def test_moved_rows_are_told_with_their_reason(make_table: Make) -> None:
    texts = corpus(200)
    splits = split_table(make_table(texts + texts[:60], labels_for(200) + labels_for(60)), seed=0)
    notes = [note for note in splits.records["note"].to_pylist() if note]
    assert 0 < len(notes) < 120
    assert all(note.startswith("moved from ") for note in notes)
    assert f"moved {len(notes)} rows" in splits.decisions[0].because


def test_without_copies_and_groups_nothing_moves(make_table: Make) -> None:
    splits = split_table(make_table(corpus(100), labels_for(100)), seed=0)
    assert splits.records["note"].null_count == 100
    assert splits.findings == ()


def test_copies_across_sources_name_the_sources_in_order(make_table: Make) -> None:
    sources = ["web", "shop", "post", "news", "mail", "forum", "chat", "blog"]
    table = make_table(corpus(20) * len(sources), labels_for(20) * len(sources))
    named = table.rows.add_column("source", [one for one in sources for _ in range(20)])
    found = checks(split_table(replace(table, rows=named), seed=0))["copies_across_sources"]
    assert "160 rows in 20 groups" in found.because
    assert "(blog, chat, forum, mail, news, post, shop, web)" in found.because


def test_a_chain_that_was_cut_says_how_many_of_its_pairs_were_really_parted(
    make_table: Make,
) -> None:
    """Texts of 20 words, each two further along one row of words: neighbours alone are
    near-copies, so the records of the division tell which pairs stand apart."""
    letters = str.maketrans("0123456789", "abcdefghij")
    row = [f"word{number:04d}".translate(letters) for number in range(700)]
    chain = [" ".join(row[at : at + 20]) for at in range(0, 400, 2)]
    splits = split_table(make_table(chain, labels_for(len(chain))), seed=0)
    side = splits.records["split"].to_pylist()
    apart = sum(one != other for one, other in pairwise(side))
    found = checks(splits)
    assert f" {apart} are in different splits" in found["copy_chains"].because
    assert apart > 0
    assert "(copy_chains)" in found["near_duplicates"].because


def test_groups_fall_on_one_side(make_table: Make) -> None:
    groups = [f"author {at % 37}" for at in range(400)]
    splits = split_table(make_table(corpus(400), labels_for(400), groups=groups), seed=0)
    found = defaultdict(set)
    for record in splits.records.to_pylist():
        found[record["group"]].add(record["split"])
    assert len(found) == 37
    assert all(len(split) == 1 for split in found.values())
    assert abs(len(splits.train) - 280) <= 12
    assert checks(splits)["groups"].severity == "info"


def test_a_copy_in_two_groups_joins_them(make_table: Make) -> None:
    texts = corpus(100)
    groups = [str(at // 2) for at in range(100)]
    texts[2] = texts[0]
    for seed in range(6):
        splits = split_table(make_table(texts, ["a", "b"] * 50, groups=groups), seed=seed)
        assert len(set(splits.records["split"].to_pylist()[:4])) == 1


def prompts(copies: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Texts of ten large groups, some copied word for word from another group."""
    texts = corpus(600, seed)
    rng = random.Random(seed)
    for one, other in (rng.sample(range(600), 2) for _ in range(copies)):
        texts[one] = texts[other]
    return texts, [rng.choice("ab") for _ in texts], [f"prompt {at % 10}" for at in range(600)]


@pytest.mark.parametrize("copies", [1, 12, 200])
def test_copies_do_not_join_large_groups(make_table: Make, copies: int) -> None:
    texts, labels, groups = prompts(copies)
    splits = split_table(make_table(texts, labels, groups=groups), seed=1)
    sizes = [len(splits.train), len(splits.valid), len(splits.test)]
    assert np.abs(np.array(sizes) - [420, 90, 90]).max() <= 30 + copies
    records = splits.records.to_pylist()
    stand: dict[str, dict[str, set[str]]] = {"text": defaultdict(set), "group": defaultdict(set)}
    for record in records:
        if record["split"] != "dropped":
            stand["text"][texts[record["row"]]].add(record["split"])
            stand["group"][record["group"]].add(record["split"])
    assert all(len(found) == 1 for kind in stand.values() for found in kind.values())

    gone = [record for record in records if record["split"] == "dropped"]
    finding = checks(splits).get("copies_across_groups")
    assert (finding.rows if finding else ()) == tuple(record["row"] for record in gone)[:100]
    for record in gone:
        other = records[int(record["note"].split("row ")[1].split()[0])]
        assert texts[record["row"]] == texts[other["row"]]
        assert record["group"] != other["group"]
        assert f"({other['split']})" in record["note"]
    # Nothing is dropped that need not be: each was the copy of a row on a more protected side.
    assert "test" not in {record["split"] for record in gone}


def test_near_copies_across_large_groups_are_dropped_too(make_table: Make, alter: Alter) -> None:
    texts, labels, groups = prompts(0)
    rng = random.Random(3)
    pool = " ".join(texts).split()
    order = rng.sample(range(600), 80)
    near = list(zip(order[::2], order[1::2], strict=True))
    for one, other in near:
        texts[one] = alter(texts[other], pool, rng)
    splits = split_table(make_table(texts, labels, groups=groups), seed=0)
    beside = splits.records["split"].to_pylist()
    assert checks(splits)["copies_across_groups"].count == beside.count("dropped") > 5
    for one, other in near:
        assert "dropped" in (beside[one], beside[other]) or beside[one] == beside[other]


def test_many_small_classes_are_no_matter_of_groups(make_table: Make) -> None:
    labels = [f"c{at % 100}" for at in range(400)]
    found = checks(split_table(make_table(corpus(400), labels), seed=0))["uneven_division"]
    # 4 rows of each class: 2, 1 and 1.
    assert "100 rows instead of 60" in found.because
    assert "every class needs a row in each split" in found.because
    assert "--group" not in found.remedy
    assert "data.rare_classes=merge" in found.remedy


def test_rows_without_a_group_stay_with_their_copies(make_table: Make) -> None:
    texts, labels, groups = prompts(12)
    groups[:60] = [f"(no group) row {at}" for at in range(60)]
    texts[:60] = corpus(60, seed=9)
    for at in range(0, 30, 2):
        texts[at] = texts[at + 1]
    splits = split_table(make_table(texts, labels, groups=groups), seed=0)
    beside = splits.records["split"].to_pylist()
    assert all(beside[at] == beside[at + 1] != "dropped" for at in range(0, 30, 2))


def test_rows_without_a_group_do_not_drop_those_of_another_file(make_table: Make) -> None:
    texts, labels, groups = prompts(12)
    groups[:60] = [f"(no group) row {at}" for at in range(60)]
    test = make_table(corpus(90, seed=8), labels[:90], groups=groups[:90])
    splits = split_table(make_table(texts, labels, groups=groups), test=test, seed=0)
    source = splits.records["split"].to_pylist()[: len(texts)]
    named = {*groups[60:90]}
    shared = {at for at in range(60, len(texts)) if groups[at] in named}
    assert {at for at, side in enumerate(source) if side == "dropped"} == shared


def test_one_group_of_most_rows_is_a_finding_and_of_a_whole_class_an_error(
    make_table: Make,
) -> None:
    groups = ["big"] * 90 + [str(at) for at in range(10)]
    labels = ["a", "b"] * 50
    splits = split_table(make_table(corpus(100), labels, groups=groups), seed=0)
    assert checks(splits)["uneven_division"].severity == "warn"
    assert "the largest group" in checks(splits)["uneven_division"].because
    assert "--group" in checks(splits)["uneven_division"].remedy
    with pytest.raises(SplitError, match=r"1 independent unit .*") as raised:
        split_table(make_table(corpus(100), ["a"] * 90 + ["b"] * 10, groups=groups), seed=0)
    assert "--group" in raised.value.remedy


def test_with_a_test_table_the_source_divides_82_18_and_loses_its_copies(
    make_table: Make, alter: Alter
) -> None:
    rng = random.Random(7)
    source, test = corpus(300), corpus(50, seed=9)
    source[5] = test[3].title() + " !"
    source[6] = alter(test[4], source[0].split(), rng)
    test[20] = test[21]
    splits = split_table(
        make_table(source, labels_for(300)),
        seed=0,
        test=make_table(test, labels_for(50), source="test.csv"),
    )
    records = splits.records.to_pylist()
    assert [r["row"] for r in records if r["split"] == "dropped"] == [5, 6]
    assert records[5]["note"] == "duplicate of row 3 of test.csv (test)"
    assert records[6]["note"].startswith(
        "near-duplicate of row 4 of test.csv (test, similarity 0.9"
    )
    assert [r["split"] for r in records[300:]] == ["test"] * 50
    assert {r["file"] for r in records[300:]} == {"test.csv"}
    assert len(splits.test) == 50
    assert abs(len(splits.train) - 0.82 * 298) < 2
    assert checks(splits)["leaks"].rows == (5, 6)
    assert checks(splits)["leaks"].fixed
    assert checks(splits)["test_exact_duplicates"].rows == (20, 21)
    assert not checks(splits)["test_exact_duplicates"].fixed
    assert checks(splits)["test_exact_duplicates"].severity == "warn"


def test_source_rows_of_a_group_that_the_test_table_holds_are_dropped(make_table: Make) -> None:
    source = make_table(corpus(90), labels_for(90), groups=[str(at // 3) for at in range(90)])
    test = make_table(corpus(9, seed=5), labels_for(9), groups=["4"] * 9, source="test.csv")
    splits = split_table(source, seed=0, test=test)
    assert sides(splits)["dropped"] == [12, 13, 14]
    assert checks(splits)["shared_groups"].count == 3


def test_given_validation_and_test_tables_are_used_and_the_rest_trains(make_table: Make) -> None:
    source, valid, test = corpus(80), corpus(20, seed=1), corpus(20, seed=2)
    source[0], source[1], valid[2] = valid[0], test[1], test[5]
    splits = split_table(
        make_table(source, labels_for(80)),
        seed=0,
        valid=make_table(valid, labels_for(20), source="valid.csv"),
        test=make_table(test, labels_for(20), source="test.csv"),
    )
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (78, 19, 20)
    dropped = [(r["file"], r["row"]) for r in splits.records.to_pylist() if r["split"] == "dropped"]
    assert dropped == [("source.csv", 0), ("source.csv", 1), ("valid.csv", 2)]


def test_a_given_validation_table_alone_leaves_train_and_test_to_divide(make_table: Make) -> None:
    valid = make_table(corpus(20, seed=1), labels_for(20), source="valid.csv")
    splits = split_table(make_table(corpus(100), labels_for(100)), seed=0, valid=valid)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (82, 20, 18)


def test_rows_left_out_by_reading_are_recorded_as_dropped(make_table: Make) -> None:
    rows = [at for at in range(63) if at not in (0, 31, 62)]
    splits = split_table(make_table(corpus(60), labels_for(60), rows=rows, source_rows=63), seed=0)
    records = splits.records.to_pylist()
    assert [r["row"] for r in records] == list(range(63))
    assert [r["row"] for r in records if r["split"] == "dropped"] == [0, 31, 62]
    assert {r["note"] for r in records if r["split"] == "dropped"} == {"missing text or label"}
    table = make_table(corpus(60), labels_for(60), rows=rows, source_rows=63)
    broken = Finding("broken_images", "warn", 1.0, 2, (0, 62), "2 cannot be read", "")
    records = split_table(replace(table, findings=(broken,)), seed=0).records.to_pylist()
    assert [records[at]["note"] for at in (0, 31, 62)] == [
        *("its image cannot be read", "missing text or label", "its image cannot be read")
    ]


def test_pairs_are_copies_only_when_both_texts_are(make_table: Make) -> None:
    premises = [text for text in corpus(60, length=6) for _ in range(2)]
    others = corpus(120, seed=8, length=6)
    others[1] = others[0]
    splits = split_table(make_table(premises, labels_for(120), pairs=others), seed=0)
    assert checks(splits)["exact_duplicates"].rows == (0, 1)
    assert "near_duplicates" not in checks(splits)
    shifted = make_table(
        ["a b", "a", *corpus(60)], labels_for(62), pairs=["c", "b c", *corpus(60, seed=3)]
    )
    assert "exact_duplicates" not in checks(split_table(shifted, seed=0))


def test_the_smallest_table_divides_and_smaller_ones_are_refused(make_table: Make) -> None:
    splits = split_table(make_table(corpus(6), ["a", "b"] * 3), seed=0)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (2, 2, 2)
    with pytest.raises(SplitError, match="needs one") as raised:
        split_table(make_table(corpus(5), ["a", "b", "a", "b", "a"]), seed=0)
    assert "data.rare_classes=drop" in raised.value.remedy
    with pytest.raises(SplitError, match="no rows"):
        split_table(make_table(corpus(6), ["a", "b"] * 3).take([]), seed=0)


def test_a_class_that_only_copies_of_test_rows_hold_is_refused(make_table: Make) -> None:
    texts = corpus(60)
    labels = ["a"] * 50 + ["b"] * 10
    test = make_table(texts[50:], ["b"] * 10, classes=("a", "b"), source="test.csv")
    with pytest.raises(SplitError, match=r"'b'.*no row left"):
        split_table(make_table(texts, labels), seed=0, test=test)


@pytest.mark.parametrize(
    "fractions",
    [
        (0.7, 0.4, -0.1),
        (0.0, 0.5, 0.5),
        (0.7, 0.2, 0.2),
        (1.2, -0.1, -0.1),
        (0.5, 0.5),
        (float("nan"),) * 3,
    ],
)
def test_impossible_fractions_are_refused(make_table: Make, fractions: Any) -> None:
    with pytest.raises(RecipeError, match="sum to 1"):
        split_table(make_table(corpus(9), ["a", "b", "c"] * 3), seed=0, fractions=fractions)


def test_a_test_table_of_other_classes_is_refused(make_table: Make) -> None:
    test = make_table(corpus(6, seed=2), ["a", "c"] * 3, source="test.csv")
    with pytest.raises(SplitError, match=r"test\.csv"):
        split_table(make_table(corpus(60), ["a", "b"] * 30), seed=0, test=test)


def test_the_real_trec_files_divide_without_their_ten_common_texts(
    make_table: Make, real_texts: Callable[[str], tuple[list[str], list[str]]]
) -> None:
    source = make_table(*real_texts("trec/train.csv"))
    test = make_table(*real_texts("trec/test.csv"), classes=source.classes, source="test.csv")
    splits = split_table(source, seed=0, test=test)
    notes = [note or "" for note in splits.records["note"].to_pylist()]
    texts = set(test.column("text"))
    verbatim = [at for at, text in enumerate(source.column("text")) if text in texts]
    assert len({source.column("text")[at] for at in verbatim}) == 10
    assert all(notes[at].startswith("duplicate of row") for at in verbatim)
    assert len(splits.test) == 500
    assert len(sides(splits)["dropped"]) < 20


def labelled(
    folder: Path, rows: Sequence[tuple[str, object]], kind: str, by_source: bool = False
) -> Table:
    """Texts with several labels or a number each, and their source."""
    path = folder / "rows.jsonl"
    lines = [
        json.dumps({"text": text, "y": label, "from": "ab"[n % 2]})
        for n, (text, label) in enumerate(rows)
    ]
    path.write_text("\n".join(lines), "utf-8")
    options = RowOptions(label="y", label_kind=kind)
    table = load_labelled(str(path), options)
    if not by_source:
        return table
    return with_sources(table, str(path), "from", options, optional=False)


def copies(n: int, label: object, seed: int) -> list[tuple[str, object]]:
    text = corpus(1, seed, length=20)[0]
    return [(f"{text} z{at}", label) for at in range(n)]


@pytest.mark.parametrize("by_source", [False, True])
def test_every_label_of_a_text_has_training_rows(tmp_path: Path, by_source: bool) -> None:
    """All rows of a label are near-duplicates, which one split takes: the training split."""
    rows = [one for seed in range(10) for one in copies(10, ["a"], seed)]
    rows += [one for seed in range(10, 16) for one in copies(10, ["b"], seed)]
    rows += copies(8, ["c"], 16)
    table = labelled(tmp_path, rows, "several", by_source)
    for seed in range(4):
        splits = split_table(table, seed=seed)
        train = splits.train.table
        known = {train.names[label] for labels in train.column("labels") for label in labels}
        assert known == {"a", "b", "c"}
        assert min(len(splits.train), len(splits.valid), len(splits.test)) >= 20


def test_ranges_of_near_duplicates_are_split_and_folded(tmp_path: Path) -> None:
    texts = corpus(60, 1, length=20)
    rows: list[tuple[str, object]] = [(text, n / 10) for n, text in enumerate(texts)]
    rows += [(text, 50 + n / 10) for n, (text, _) in enumerate(copies(12, 0, 99))]
    table = labelled(tmp_path, rows, "number")
    splits = split_table(table, seed=0)
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 72
    units = combine_tables(table, {}, 1).duplicates.groups
    strata = join_small_strata(np.asarray(table.column("label")), units, 5)
    assert len(make_folds(units, strata, 5, 0, class_names=table.classes).folds) == 5
