"""The checks of copies and leaks, against all pairs of small tables compared one by one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.quality.test_checks import sentences

from holdfast.data.chats.chat import load_chats
from holdfast.data.clean import OWN_GROUP
from holdfast.data.labels.texts import load_labelled
from holdfast.data.memory.texts import table_from_texts
from holdfast.data.options import RowOptions
from holdfast.duplicates.duplicates import combine_tables
from holdfast.duplicates.loose_duplicates import find_loose_duplicates
from holdfast.duplicates.normalise import normal_forms, to_arrow
from holdfast.duplicates.words import RowTexts
from holdfast.quality.check import CheckResult
from holdfast.quality.checks import all_checks
from holdfast.quality.checks.copies.contained_rows import find_contained
from holdfast.quality.checks.splits.groups import group_likeness
from holdfast.quality.inflation import ProbeInflationEstimator
from holdfast.quality.leaks import duplicate_groups, pair_leaks
from holdfast.quality.runner import run_checks
from holdfast.quality.views import Embedded, OtherColumns, TableCopies, TableRows


def view(texts: list[str], **others: list[str]) -> TableCopies:
    table = table_from_texts(texts)
    given = {name: table_from_texts(rows, source=f"{name}.csv") for name, rows in others.items()}
    return TableCopies(TableRows(table), combine_tables(table, given, 0))


def seen(name: str, copied: TableCopies) -> CheckResult | None:
    return all_checks()[name](copied)


def planted(seed: int) -> tuple[list[str], list[str]]:
    """Rows and other rows with copies within and between, some written otherwise."""
    rng = np.random.default_rng(seed)
    words = [f"word{n}" for n in range(300)]
    rows = [" ".join(rng.choice(words, 12)) for _ in range(80)]
    other = [" ".join(rng.choice(words, 12)) for _ in range(40)]
    for at in rng.choice(80, 20, replace=False):
        rows[at] = rows[rng.integers(80)].upper() if rng.random() < 0.5 else rows[rng.integers(80)]
    for at in rng.choice(40, 10, replace=False):
        other[at] = f"{rows[rng.integers(80)]}!"
    return rows, other


@pytest.mark.parametrize("seed", range(5))
def test_groups_and_leaks_agree_with_all_pairs(seed: int) -> None:
    rows, other = planted(seed)
    copied = view(rows, test=other)
    forms, theirs = (normal_forms(to_arrow(texts)).to_pylist() for texts in (rows, other))
    groups = {tuple(n for n, f in enumerate(forms) if f == form) for form in forms}
    wanted = sorted(group for group in groups if len(group) > 1)
    assert [tuple(part.tolist()) for part in duplicate_groups(copied.all_rows)] == wanted
    pairs = pair_leaks(copied.all_rows, "test")
    assert {*pairs.source.tolist()} == {n for n, f in enumerate(forms) if f in theirs}
    assert {*pairs.other.tolist()} == {n for n, f in enumerate(theirs) if f in forms}
    assert all(forms[a] == theirs[b] for a, b in zip(pairs.source, pairs.other, strict=True))
    assert (pairs.similarity == 1).all()
    found = seen("exact_duplicates", copied)
    assert found is not None
    assert found.finding.count == sum(map(len, wanted))


def test_copies_to_the_letter_are_counted_apart() -> None:
    rows = sentences(30)
    found = seen("exact_duplicates", view([*rows, rows[0], rows[1], rows[2].upper()]))
    assert found is not None
    assert "3 rows repeat another row, 2 of them character" in found.finding.because
    assert {(e.row, e.other_row) for e in found.examples} == {(0, 30), (1, 31), (2, 32)}


def test_near_copies_are_those_of_the_table_alone() -> None:
    rows = [f"{one} and {two}" for one, two in zip(sentences(30), sentences(30, 1), strict=True)]
    near = rows[4].replace(" and ", " or ")
    found = seen("near_duplicates", view([*rows, near], test=[rows[9].replace(" and ", " or ")]))
    assert found is not None
    assert set(found.finding.rows) == {4, 30}
    assert seen("near_duplicates", view(rows, test=[near])) is None


def test_a_leak_names_both_rows_and_how_many_of_the_other_file_stand_here() -> None:
    rows = sentences(30)
    found = seen("leaks", view(rows, test=[rows[7], "quite another thing", f"{rows[3]}?"]))
    assert found is not None
    assert found.finding.severity == "error"
    assert found.finding.score == pytest.approx(2 / 3)
    assert found.finding.rows == (3, 7)
    assert "2 of the 3 rows of test.csv (66.7 %) are in the source, 1 of them character" in (
        found.finding.because
    )
    assert {(e.row, e.other_row, e.other_file) for e in found.examples} == {
        (7, 0, "test.csv"),
        (3, 2, "test.csv"),
    }


def test_a_copy_within_the_other_file_is_no_leak() -> None:
    assert seen("leaks", view(sentences(20), test=["one other row here"] * 3)) is None


def labelled(texts: list[str], labels: list[str], **others: Any) -> TableCopies:
    table = table_from_texts(texts, labels, rare_below=1)
    return TableCopies(TableRows(table), combine_tables(table, others, 0))


def long_sentences(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"word{k}" for k in rng.integers(0, 5000, 14)) for _ in range(n)]


def test_near_copies_of_two_labels_are_named_and_equal_texts_are_not() -> None:
    texts = long_sentences(20)
    texts += [texts[3].replace(texts[3].split()[5], "changed"), texts[4]]
    labels = ["a", "b"] * 10 + ["a", "b"]
    found = seen("conflicting_near_duplicates", labelled(texts, labels))
    assert found is not None
    assert found.finding.rows == (3, 20)
    assert found.finding.score == pytest.approx(2 / 22)


def test_a_column_of_sides_is_held_against_itself() -> None:
    texts = long_sentences(30)
    texts[25], texts[27] = texts[2].upper(), texts[26]
    sides = ["Train"] * 20 + ["dev"] * 4 + ["test"] * 6
    table = table_from_texts(texts)

    def view(name: str, values: list[str]) -> TableCopies:
        beside = OtherColumns((name,), lambda _: list(values))
        return TableCopies(TableRows(table, beside), combine_tables(table, {}, 0))

    found = seen("split_leaks", view("split", sides))
    assert found is not None
    assert found.finding.rows == (25,)
    assert found.finding.severity == "error"
    assert found.finding.score == pytest.approx(1 / 6)
    assert [(e.row, e.other_row) for e in found.examples] == [(25, 2)]
    assert seen("split_leaks", view("split", ["train"] * 30)) is None
    assert seen("split_leaks", view("topic", sides)) is None


def test_groups_on_both_sides_are_counted_in_the_other_file() -> None:
    texts, more = long_sentences(20), long_sentences(10, 1)
    table = table_from_texts(texts, groups=[f"u{n // 2}" for n in range(20)])
    other = table_from_texts(
        more, groups=["u3", "u3", *(f"v{n}" for n in range(8))], source="t.csv"
    )
    found = seen(
        "shared_groups", TableCopies(TableRows(table), combine_tables(table, {"t": other}, 0))
    )
    assert found is not None
    assert found.finding.rows == (6, 7)
    assert found.finding.score == pytest.approx(0.2)
    apart = table_from_texts(more, groups=[f"v{n}" for n in range(10)])
    assert (
        seen("shared_groups", TableCopies(TableRows(table), combine_tables(table, {"t": apart}, 0)))
        is None
    )


def test_rows_without_a_group_share_none_with_another_file() -> None:
    """Their own names hold their row numbers, which are the same in every file."""
    alone = [f"{OWN_GROUP}{n}" for n in range(20)]
    table = table_from_texts(long_sentences(20), groups=alone)
    other = table_from_texts(long_sentences(20, 1), groups=[*alone[:19], "u"], source="t.csv")
    copied = TableCopies(TableRows(table), combine_tables(table, {"t": other}, 0))
    assert seen("shared_groups", copied) is None


@pytest.mark.parametrize("label_kind", ["class", "number", "several"])
def test_only_classes_are_compared_by_their_number(label_kind: str, tmp_path: Path) -> None:
    """Those of numbers and of sets of labels are strata, which each file has its own of."""
    texts, labels = long_sentences(30), [str(10 - n % 3) for n in range(30)]
    tables = []
    for name, rows in (("s", labels), ("t", ["9", *labels[1:10]])):
        kind = label_kind if name == "s" else "class"
        written = [[row] if kind == "several" else row for row in rows]
        lines = [{"text": t, "label": one} for t, one in zip(texts, written, strict=False)]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        options = RowOptions(text=("text",), label="label", label_kind=kind, rare_below=1)
        tables.append(load_labelled(str(path), options))
    source, other = tables
    copied = TableCopies(TableRows(source), combine_tables(source, {"t": other}, 0))
    found = seen("leaks", copied)
    assert found is not None
    said = re.findall(r"(\d+) of them with another label", found.finding.because)
    assert said == (["1"] if label_kind == "class" else [])


def dated(here: list[str], there: list[str]) -> TableCopies:
    table = table_from_texts(long_sentences(len(here)))
    other = table_from_texts(long_sentences(len(there), 1), source="t.csv")
    mine, theirs = (OtherColumns(("when",), lambda _, v=v: list(v)) for v in (here, there))
    return TableCopies(
        TableRows(table, mine), combine_tables(table, {"t": other}, 0), (), {"t": theirs}
    )


def test_test_rows_older_than_the_training_rows_are_told() -> None:
    early = [f"2023-01-{n + 1:02d}" for n in range(28)]
    late = [f"2024-03-{n + 1:02d}T10:00:00" for n in range(28)]
    assert seen("time_order", dated(early, late)) is None
    found = seen("time_order", dated(late, early))
    assert found is not None
    assert found.finding.score == 1
    assert "2023-01-01 to 2023-01-28" in found.finding.because
    assert found.finding.count == 28
    assert seen("time_order", dated([f"id-{n}" for n in range(28)], early)) is None


@pytest.mark.parametrize("seed", range(3))
def test_contained_rows_are_those_that_were_put_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inner = [" ".join(f"w{k}" for k in rng.integers(0, 900, 30)) for _ in range(40)]
    outer = [" ".join(f"w{k}" for k in rng.integers(0, 900, 150)) for _ in range(60)]
    put = {
        int(i): int(o)
        for i, o in zip(rng.permutation(40)[:9], rng.permutation(60)[:9], strict=True)
    }
    for i, o in put.items():
        words = outer[o].split()
        cut = int(rng.integers(10, 100))
        outer[o] = " ".join([*words[:cut], inner[i].upper(), *words[cut:]])
    frame = "Below is an instruction that describes a task write what completes it well : "
    found = find_contained([frame + t for t in inner], [frame + t for t in outer])
    assert dict(zip(found.inner.tolist(), found.outer.tolist(), strict=True)) == put
    assert (found.share >= 0.7).all()
    none = find_contained(inner, [])
    assert len(none) == 0
    half = [" ".join(t.split()[:15] + long_sentences(1, n)[0].split()) for n, t in enumerate(inner)]
    assert len(find_contained(half, outer)) == 0


def test_a_test_row_inside_a_longer_training_row_is_a_finding_and_a_copy_is_not() -> None:
    texts = long_sentences(20)
    long = " ".join(long_sentences(4, 5))
    asked = f"{long_sentences(1, 7)[0]} and then some more of it"
    copied = view([*texts, f"{long} {asked}"], test=[asked, texts[3], *long_sentences(8, 9)])
    found = seen("contained_rows", copied)
    assert found is not None
    assert found.finding.rows == (20,)
    assert found.finding.score == pytest.approx(0.1)
    assert seen("contained_rows", view(texts, test=[texts[3]])) is None


def test_answers_that_say_the_question_again(tmp_path: Path) -> None:
    question = "Tell me how long the river is that flows there"
    pairs = [(f"Question {n}?", f"It is {n}.") for n in range(10)]
    pairs += [("Say it.", "say it"), (question, f"{question}: very long."), ("Why", "Why not.")]
    path = tmp_path / "chats.jsonl"
    turns = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs
    ]
    path.write_text("\n".join(json.dumps({"messages": t}) for t in turns), "utf-8")
    table = load_chats(path)
    found = seen("echoed_answers", TableCopies(TableRows(table), combine_tables(table, {}, 0)))
    assert found is not None
    assert found.finding.rows == (10, 11)


def clustered(n: int, seed: int, pull: float) -> tuple[Any, list[str], Any]:
    """Vectors of two classes; groups of five are ``pull`` nearer to one another."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    groups = rng.permutation(np.arange(n) // 5)
    centres = rng.normal(size=(n // 5 + 1, 32))
    x = rng.normal(size=(n, 32)) + 2.0 * np.eye(32)[labels] + pull * centres[groups]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), groups, labels


@pytest.mark.slow
def test_a_column_of_related_rows_is_proposed_and_one_of_chance_is_not() -> None:
    found = 0
    for seed in range(20):
        x, groups, labels = clustered(200, seed, 0.0)
        found += unnamed(x, groups, labels) is not None
    assert found <= 1
    x, groups, labels = clustered(200, 0, 1.0)
    told = unnamed(x, groups, labels)
    assert told is not None
    assert "--group user" in told.finding.remedy


def unnamed(x: Any, groups: Any, labels: Any) -> CheckResult | None:
    table = table_from_texts(sentences(len(x)), [f"c{k}" for k in labels])
    beside = OtherColumns(("user",), lambda _: [f"u{g}" for g in groups])
    return all_checks()["unnamed_groups"](Embedded(TableRows(table, beside), x, "x", lambda t: x))


def test_the_mean_similarity_within_groups_is_that_of_all_pairs() -> None:
    x, groups, labels = clustered(60, 3, 0.5)
    alike = [
        float(x[a] @ x[b])
        for a in range(60)
        for b in range(60)
        if a != b and groups[a] == groups[b]
    ]
    assert group_likeness(x, groups, labels, 0).within == pytest.approx(np.mean(alike), abs=1e-5)


def priced(
    seed: int, n: int = 600, leaked: int = 60, right: float = 0.7
) -> tuple[TableCopies, Any, Any]:
    """Rows of two classes that a line tells apart ``right`` of the time, and a test file of which
    ``leaked`` rows stand among them."""
    rng = np.random.default_rng(seed)
    texts = long_sentences(n + 200, seed)
    labels = rng.integers(0, 2, n + 200)
    x = rng.normal(size=(n + 200, 16))
    told = np.where(rng.random(n + 200) < right, labels, 1 - labels)
    x[:, 0] += 6.0 * told
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    mine = [*range(n), *range(n, n + leaked)]
    names = [f"c{k}" for k in labels]
    table = table_from_texts([texts[i] for i in mine], [names[i] for i in mine])
    test = table_from_texts(texts[n:], names[n:], source="test.csv")
    gathered = combine_tables(table, {"test": test}, 0)
    embedded = Embedded(TableRows(table), x[mine], "x", lambda t: x, {"test": (test, x[n:])})
    return (
        TableCopies(TableRows(table), gathered, inflation=ProbeInflationEstimator(embedded)),
        embedded,
        labels[n:] == told[n:],
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_price_is_what_a_model_by_heart_would_gain(seed: int) -> None:
    """Of a model that is right on every leaked row, and else as a line is: the gain is known."""
    copied, _, right = priced(seed)
    price = copied.inflation.from_leaks(copied.all_rows, pair_leaks(copied.all_rows, "test"))
    assert price is not None
    assert price.copies == 60
    assert price.rows == 200
    gained = 100 * (60 - right[:60].sum()) / 200
    assert price.points == pytest.approx(gained, abs=1.5)
    assert price.low < gained < price.high
    found = seen("leaks", copied)
    assert found is not None
    assert str(price) in found.finding.because


def test_copies_with_other_labels_cost_nothing() -> None:
    copied, embedded, _ = priced(0, right=1.0)
    price = copied.inflation.from_leaks(copied.all_rows, pair_leaks(copied.all_rows, "test"))
    assert price is not None
    assert price.points == pytest.approx(0, abs=0.6)
    assert ProbeInflationEstimator(embedded).from_split(copied.all_rows, np.arange(660)) is None


def test_the_price_of_a_random_division_grows_with_the_copies() -> None:
    points = []
    for copies in (1, 4):
        copied, embedded, _ = priced(1, right=0.7)
        units = np.arange(660)
        units[: 100 * (copies + 1)] = np.arange(100 * (copies + 1)) % 100
        # Equal units are copies of one another: of one label.
        table = copied.rows.table
        labels = np.array(table.column("label"))
        labels[: 100 * (copies + 1)] = labels[np.arange(100 * (copies + 1)) % 100]
        rows = table.rows.remove_columns("label").add_column("label", labels.tolist())
        table = replace(table, rows=rows)
        gathered = replace(copied.all_rows, tables={**copied.all_rows.tables, "source": table})
        price = ProbeInflationEstimator(replace(embedded, rows=TableRows(table))).from_split(
            gathered, units
        )
        assert price is not None
        assert 0 <= price.low <= price.points <= price.high
        points.append(price.points)
    assert points[1] > points[0] > 1


def test_what_has_nothing_to_be_held_against_is_not_called_fine() -> None:
    alone = view(sentences(30))
    looked = run_checks(alone.rows.table, [alone])
    assert {"leaks", "contained_rows", "time_order"} <= set(looked.skipped)
    assert "--against FILE" in looked.skipped["leaks"]
    assert "--group COL" in looked.skipped["shared_groups"]
    assert "leaks" not in looked.seconds
    assert "leaks" in run_checks(alone.rows.table, [view(sentences(30), test=["one row"])]).seconds


def test_answers_of_a_word_or_two_are_no_error_and_no_first_example() -> None:
    texts = [*long_sentences(30), "None.", "None.", "none", "Not known.", "Not known."]
    texts += [texts[5]]
    found = seen("leaks", view(texts, test=["None.", *long_sentences(9, 3)]))
    assert found is not None
    assert found.finding.severity == "warn"
    found = seen("exact_duplicates", view(texts))
    assert found is not None
    assert (found.examples[0].row, found.examples[0].other_row) == (5, 35)


def test_loose_copies_are_listed_where_they_are_asked_for_and_are_no_near_copies() -> None:
    words = [f"word{n}" for n in range(12)]
    changed = [*words[:9], "other", "things", "here"]
    near = [*words[:11], "else"]
    others = [" ".join(f"row{n}word{k}" for k in range(12)) for n in range(20)]
    rows = [" ".join(words), " ".join(near), *others]
    copied = view(rows, test=[" ".join(changed)])
    assert seen("loose_copies", copied) is None
    loose = find_loose_duplicates(RowTexts(*copied.all_rows.tables.values()), share=0.3)
    found = seen("loose_copies", replace(copied, loose_copies=loose))
    assert found is not None
    # The two rows that nearly copy each other are named for the changed row of the other file.
    assert found.finding.rows == (0, 1)
    assert "for 2 of them that row is in another file" in found.finding.because
    assert {example.other_file for example in found.examples} == {"test.csv"}


def test_rows_in_pairs_of_different_labels_are_told() -> None:
    subjects = sentences(60)
    texts = [f"{subject} {word}" for subject in subjects for word in ("written", "rewritten")]
    check = all_checks()["opposite_labels"]
    rows = TableRows(table_from_texts(texts, ["human", "machine"] * 60))
    found = check(rows)
    assert found is not None
    finding = found.finding
    assert (finding.severity, finding.count, finding.score) == ("warn", 120, 1.0)
    assert "100 % of 60 pairs" in finding.because
    assert "compared with 50 % of random pairs" in finding.because
    assert all(one.other_row == one.row + 1 and one.row % 2 == 0 for one in found.examples)
    assert (
        check(TableRows(table_from_texts(texts, ["human", "human", "machine", "machine"] * 30)))
        is None
    )
    grouped = table_from_texts(
        texts, ["human", "machine"] * 60, groups=[f"g{k // 4}" for k in range(120)]
    )
    assert check.skip_reason(TableRows(grouped)) == "a group column is given"
