"""Each check: what it reports, and that it is silent on what is clean."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from holdfast.core.records import Finding
from holdfast.data.load import load_table
from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.checks import all_checks
from holdfast.quality.checks.labels.class_sizes import undividable_classes
from holdfast.quality.runner import audit_table
from holdfast.quality.views import TableRows, ThoroughRows

WORDS = [
    "red",
    "green",
    "blue",
    "tall",
    "small",
    "quick",
    "slow",
    "warm",
    "cold",
    "deep",
    "soft",
    "loud",
    "plain",
    "round",
    "new",
    "old",
]


def sentences(n: int, seed: int = 0) -> list[str]:
    """Different texts of five words."""
    generator = random.Random(seed)
    seen: dict[str, None] = {}
    while len(seen) < n:
        seen[" ".join(generator.choices(WORDS, k=5))] = None
    return list(seen)


def audit(texts: list[str], labels: list[str]) -> dict[str, Finding]:
    found = audit_table(table_from_texts(texts, labels, rare_below=1))
    return {finding.check: finding for finding in found}


def test_clean_rows_have_no_finding() -> None:
    assert audit(sentences(100), ["pos", "neg"] * 50) == {}


def test_every_check_is_reached_by_a_test_of_this_folder() -> None:
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    missing = {name for name in all_checks() if name not in tests}
    assert not missing, "a check that no test of this folder names"


def test_findings_come_worst_first_and_every_one_has_a_remedy() -> None:
    texts = [f"spam {text}" for text in sentences(30)] + [f"ham {t}" for t in sentences(30, 1)]
    found = audit_table(table_from_texts([*texts, "..."], ["spam"] * 30 + ["ham"] * 31))
    assert [finding.severity for finding in found] == ["error", "info"]
    assert all(finding.remedy and 0 <= finding.score <= 1 for finding in found)


def test_a_table_without_rows_or_labels_has_no_finding() -> None:
    assert audit_table(table_from_texts([])) == ()
    assert audit_table(table_from_texts(["a b", "c d"])) == ()


@pytest.mark.parametrize(
    ("large", "small", "reported"), [(79, 21, False), (80, 20, True), (95, 5, True)]
)
def test_imbalance_is_reported_from_four_fifths(large: int, small: int, reported: bool) -> None:
    found = audit(sentences(100), ["a"] * large + ["b"] * small)
    assert ("class_imbalance" in found) == reported


def test_imbalance_is_reported_from_twenty_times() -> None:
    labels = ["a"] * 200 + ["b"] * 200 + ["c"] * 200
    assert "class_imbalance" not in audit(sentences(611), labels + ["d"] * 11)
    assert "class_imbalance" in audit(sentences(610), labels + ["d"] * 10)


def test_thin_classes_are_below_twenty_rows() -> None:
    labels = ["a"] * 30 + ["b"] * 20 + ["c"] * 19
    assert audit(sentences(69), labels)["thin_classes"].count == 19


def test_classes_that_train_refuses_to_divide_are_named() -> None:
    def see(of_c: list[str]) -> Finding | None:
        labels = ["a"] * 30 + ["b"] * 20 + ["c"] * len(of_c)
        table = table_from_texts(sentences(50) + of_c, labels, rare_below=1)
        found = undividable_classes(ThoroughRows(TableRows(table)))
        return found and found.finding

    assert see(["one thing", "another thing", "a third thing"]) is None
    one, two = see(["Only this!", "only  this"] * 2), see(["one thing", "another thing"])
    assert one is not None
    assert two is not None
    assert (one.severity, one.count, one.rows) == ("error", 4, (50, 51, 52, 53))
    assert (two.severity, two.count) == ("warn", 2)
    assert "--test FILE" in two.because
    assert "data.rare_classes=drop" in two.remedy
    table = table_from_texts(sentences(32), ["a"] * 30 + ["b"] * 2, rare_below=1)
    rest = undividable_classes(ThoroughRows(TableRows(table)))
    assert rest is not None
    assert rest.finding.severity == "error", "one class is left"
    assert "data.rare_classes=drop" not in rest.finding.remedy


def test_conflicts_list_every_row_of_a_text_with_two_labels() -> None:
    texts = sentences(40)
    texts[3], texts[20], texts[21] = "Great, MOVIE!", "great movie", "great  movie"
    labels = ["a"] * 20 + ["b"] * 20
    found = audit(texts, labels)["conflicting_labels"]
    assert found.rows == (3, 20, 21)
    assert found.score == pytest.approx(3 / 40)


def test_the_example_of_a_conflict_shows_both_labels() -> None:
    texts = ["one and the same text"] * 6 + sentences(34)
    found = audit(texts, ["a"] * 5 + ["b"] * 35)["conflicting_labels"]
    assert "row 0 'a', row 5 'b', row 1 'a', row 2 'a'" in found.because


def test_conflicts_agree_with_all_pairs() -> None:
    generator = random.Random(1)
    texts = [" ".join(generator.choices("ab", k=generator.randint(1, 5))) for _ in range(200)]
    labels = generator.choices("xy", k=200)
    pairs = itertools.combinations(range(200), 2)
    clash = {n for i, j in pairs if texts[i] == texts[j] and labels[i] != labels[j] for n in (i, j)}
    assert set(audit(texts, labels)["conflicting_labels"].rows) == clash


def test_copies_with_one_label_are_no_conflict() -> None:
    assert "conflicting_labels" not in audit(sentences(20) * 2, ["a", "b"] * 20)


def test_pairs_conflict_only_as_pairs() -> None:
    pairs = [("one two", "three"), ("one two", "four"), ("one", "two three"), ("five", "six")]
    table = table_from_texts(pairs, ["x", "y", "y", "x"], rare_below=1)
    assert "conflicting_labels" not in {finding.check for finding in audit_table(table)}


def test_wordless_texts_are_those_without_letter_or_digit_of_any_script() -> None:
    texts = [*sentences(38), "...", "東京", "7", "_!_"]
    assert audit(texts, ["a", "b"] * 21)["wordless_texts"].rows == (38, 41)


@pytest.mark.parametrize("form", ["{c} {t}", "[{c}] {t}", "{t} #{c}", "__label__{c}: {t}"])
def test_the_class_name_at_an_end_of_the_text_is_a_giveaway(form: str) -> None:
    labels = ["sports", "world news"] * 50
    texts = [form.format(c=c, t=t) for c, t in zip(labels, sentences(100), strict=True)]
    assert audit(texts, labels)["label_giveaway"].severity == "error"


def test_a_mark_of_its_own_for_every_class_is_a_giveaway() -> None:
    labels = ["1", "0"] * 50
    texts = [
        f"{'yes' if c == '1' else 'no'} {t}" for c, t in zip(labels, sentences(100), strict=True)
    ]
    assert audit(texts, labels)["label_giveaway"].count == 100


def planted(marks: dict[str, str], n: int, missing: int = 0) -> dict[str, Finding]:
    """The audit of texts that hold the mark of their class somewhere inside, but for a few."""
    generator = random.Random(2)
    labels = [name for name in marks for _ in range(n)]
    texts = []
    for at, (text, label) in enumerate(zip(sentences(len(labels)), labels, strict=True)):
        words = text.split()
        mark = [marks[label]] if at % n >= missing and marks[label] else []
        place = generator.randrange(1, 4)
        texts.append(" ".join([*words[:place], *mark, *words[place:]]))
    return audit(texts, labels)


@pytest.mark.parametrize("mark", ["zqx", "#42", "Quick!", "\u2019tis", "a\u200bb"])
@pytest.mark.parametrize("n", [20, 60])
def test_what_stands_in_every_text_of_a_class_alone_is_a_giveaway(mark: str, n: int) -> None:
    found = planted({"up": mark, "down": ""}, n)["label_giveaway"]
    assert (found.severity, found.count, found.score) == ("error", n, 0.5)
    assert repr(mark) in found.because


def test_one_class_of_many_that_is_given_away_is_a_warning() -> None:
    found = planted({"up": "zqx", "down": "", "in": "", "out": ""}, 40)["label_giveaway"]
    assert (found.severity, found.count, found.score) == ("warn", 40, 0.25)


@pytest.mark.parametrize("n", [20, 60])
def test_a_keyword_that_is_only_frequent_is_no_giveaway(n: int) -> None:
    marks = {"film": "film", "sport": "match"}
    assert "label_giveaway" not in planted(marks, n, missing=n // 20)


def test_a_word_of_the_name_of_a_small_class_is_no_giveaway() -> None:
    marks = {"lost phone": "phone", "down": "", "in": ""}
    assert "label_giveaway" not in planted(marks, 49)
    assert "label_giveaway" in planted(marks, 50)


def test_variants_of_a_class_name_are_reported_but_numbers_are_not() -> None:
    labels = ["Not Spam", "not_spam", "spam", "-1", "1"] * 20
    assert "'Not Spam' = 'not_spam'" in audit(sentences(100), labels)["label_variants"].because
    assert audit(sentences(100), ["-1", "1"] * 50) == {}
    assert audit(sentences(100), ["C", "C++"] * 50) == {}


def test_spellings_of_a_label_that_were_merged_are_reported_as_done(tmp_path: Path) -> None:
    lines = [f"{text},{('Yes', 'yes', 'no')[i % 3]}" for i, text in enumerate(sentences(99))]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["text,label", *lines]), "utf-8")
    table = load_table(path)
    assert table.classes == ("Yes", "no")
    found = all_checks()["label_variants"](TableRows(table)).finding
    assert (found.severity, found.fixed, found.count) == ("info", True, 33)
    assert "'yes' (33 rows) → 'Yes' (33 rows)" in found.because


def test_a_class_named_like_a_missing_value_is_reported() -> None:
    assert audit(sentences(100), ["undefined", "b"] * 50)["missing_as_class"].count == 50
    assert audit(sentences(100), ["none", "b"] * 50) == {}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("cr/cr.csv", {"wordless_texts": 1, "text_lengths": 1}),
        # Dashes of another code page, tags, and one text of four letters.
        ("mr/mr.csv", {"encoding_damage": 46, "markup": 3, "text_lengths": 1}),
        ("trec/train.csv", {}),
        ("banking77/train.csv", {"conflicting_labels": 2}),
    ],
)
def test_nothing_silly_is_said_of_real_data(
    name: str, counts: dict[str, int], shared_data: Path
) -> None:
    found = audit_table(load_table(shared_data / name))
    assert {finding.check: finding.count for finding in found} == counts
