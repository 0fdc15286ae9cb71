"""What the checks in a model's geometry find of planted faults, and do not find without."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from holdfast.core.wording import percent_phrase, signed
from holdfast.data.memory.texts import table_from_texts
from holdfast.quality.checks import all_checks
from holdfast.quality.runner import run_checks
from holdfast.quality.views import Embedded, OtherColumns, TableRows, Tokenized
from holdfast.stats.two_samples import two_samples

# 300 words without digits, which would count as numbers.
WORDS = np.array(["".join(parts) for parts in product("bdfgk", "aeiou", "lmnr", "aou")])


def embed(texts):
    """The sum of a random vector a word."""
    made = np.zeros((len(texts), 48), np.float32)
    for at, text in enumerate(texts):
        for word in text.lower().split() or [""]:
            made[at] += np.random.default_rng(zlib.crc32(word.encode())).normal(size=48)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def in_groups(table, groups):
    if groups is None:
        return table
    return replace(table, rows=table.rows.add_column("group", [str(one) for one in groups]))


def seen(texts, labels=None, others=None, columns=None, groups=None):
    table = in_groups(table_from_texts(texts, labels, source="rows.csv", rare_below=1), groups)
    beside = OtherColumns(tuple(columns or ()), lambda name: list(columns[name]))
    given = {
        name: (
            other := in_groups(table_from_texts(*part, source=name), groups),
            embed(other.column("text")),
        )
        for name, part in (others or {}).items()
    }
    return Embedded(TableRows(table, beside), embed(texts), "words", embed, given)


def sentences(n: int, seed: int = 0, words=WORDS):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, 12)) for _ in range(n)]


def test_the_same_in_other_words_is_found_with_conflicts_and_leaks() -> None:
    texts = sentences(120)
    # Long enough to be no copies word for word, and near enough to say the same.
    rng = np.random.default_rng(1)
    again = [" ".join([*rng.permutation(text.split()), *text.split()]) for text in texts[:10]]
    labels = ["no", "yes"] * 60
    view = seen([*texts, *again], [*labels, *["no"] * 10])
    found = all_checks()["semantic_copies"](view)
    assert found.finding.rows == (*range(10), *range(120, 130))
    assert found.finding.score == pytest.approx(20 / 130)
    assert {(e.row, e.other_row) for e in found.examples} == {(n, 120 + n) for n in range(10)}
    conflicts = all_checks()["semantic_conflicts"](view)
    assert conflicts.finding.rows == tuple(sorted([*range(1, 10, 2), *range(121, 130, 2)]))
    leaks = all_checks()["semantic_leaks"](seen(texts, labels, {"test.csv": (again[:4], None)}))
    assert leaks.finding.rows == (0, 1, 2, 3)
    assert leaks.finding.score == 1.0
    assert {e.other_file for e in leaks.examples} == {"test.csv"}


def test_what_compares_files_is_skipped_where_there_is_one_file() -> None:
    view = seen(sentences(40), ["no", "yes"] * 20)
    skipped = run_checks(view.rows.table, [view]).skipped
    assert {"semantic_leaks", "shift"} <= set(skipped)
    assert all("--against FILE" in skipped[name] for name in ("semantic_leaks", "shift"))


def test_copies_word_for_word_are_no_semantic_ones() -> None:
    texts = sentences(60)
    view = seen([*texts, *(text.upper() for text in texts[:5])], ["no", "yes"] * 30 + ["no"] * 5)
    assert all_checks()["semantic_copies"](view) is None


def test_a_file_of_other_rows_is_shifted_and_its_words_are_named() -> None:
    here, there = sentences(200), [f"{text} invoice total" for text in sentences(120, seed=1)]
    labels = ["no", "yes"] * 100
    view = seen(here, labels, {"new.csv": (there, ["no", "yes"] * 60)})
    found = all_checks()["shift"](view)
    assert found.finding.severity == "warn"
    assert found.finding.score > 0.5
    assert "'invoice' in 100 % instead of 0 %" in found.finding.because
    assert {e.other_file for e in found.examples} == {"new.csv"}
    same = seen(here, labels, {"new.csv": (sentences(120, seed=2), ["no", "yes"] * 60)})
    assert all_checks()["shift"](same) is None


def test_other_label_shares_alone_are_said() -> None:
    labels = ["no"] * 100 + ["yes"] * 100
    view = seen(
        sentences(200), labels, {"new.csv": (sentences(100, 3), ["no"] * 20 + ["yes"] * 80)}
    )
    found = all_checks()["shift"](view)
    assert found.finding.severity == "info"
    assert "'no' 20 % instead of 50 %" in found.finding.because


def people(n: int, rate: float, seed: int = 0):
    """Sentences with ``she`` or ``he``; of those with ``she`` a share ``rate`` are ``no``."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for at, text in enumerate(sentences(n, seed)):
        she = at % 2 == 0
        texts.append(f"{'she' if she else 'he'} {text}")
        labels.append("no" if rng.random() < (rate if she else 0.5) else "yes")
    return texts, labels


def test_labels_tied_to_a_word_for_a_person_are_counted() -> None:
    found = all_checks()["identity_rates"](seen(*people(400, 0.85)))
    assert found.finding.check == "identity_rates"
    assert found.finding.score == pytest.approx(0.35, abs=0.1)
    assert "he: 52 % of 200 rows are 'yes'" in found.finding.because
    assert "of which the content does not explain" in found.finding.because
    assert all_checks()["identity_rates"](seen(*people(400, 0.5))) is None


def test_a_gap_that_the_content_explains_is_not_counted() -> None:
    """Half of the rows with *she* complain, and complaints are ``no``: that is no bias."""
    texts, labels = [], []
    for at, text in enumerate(sentences(400)):
        bad = at % 4 != 0 if at % 2 == 0 else at % 8 == 1
        words = " awful terrible broken" * 3 if bad else " lovely great perfect" * 3
        texts.append(f"{'she' if at % 2 == 0 else 'he'} {text}{words}")
        labels.append("no" if bad else "yes")
    assert all_checks()["identity_rates"](seen(texts, labels)) is None


def test_the_probe_that_goes_by_a_word_is_found_by_swapping_it() -> None:
    texts, labels = people(400, 0.95)
    found = all_checks()["start_model_bias"](seen(texts, labels))
    assert "he → she changes the probability of 'yes' by −" in found.finding.because
    fair = [seen(*people(400, 0.5, seed)) for seed in range(5)]
    assert [all_checks()["start_model_bias"](view) for view in fair] == [None] * 5


def test_a_slice_with_other_labels_is_counted_and_a_giveaway_is_not() -> None:
    texts, labels = people(300, 0.5)
    rng = np.random.default_rng(5)
    city = ["north" if rng.random() < (0.75 if x == "no" else 0.3) else "south" for x in labels]
    view = seen(texts, labels, columns={"city": city, "code": [x[0] for x in labels]})
    found = all_checks()["label_slices"](view)
    assert "city 'north'" in found.finding.because
    assert "code" not in found.finding.because
    share = np.mean([x == "yes" for x, c in zip(labels, city, strict=True) if c == "north"])
    assert percent_phrase(share) in found.finding.because
    fair = ["north" if rng.random() < 0.5 else "south" for _ in labels]
    assert all_checks()["label_slices"](seen(texts, labels, columns={"city": fair})) is None


def test_labels_of_a_few_authors_are_no_slice() -> None:
    """Thirty authors of ten rows with labels of their own; the country is that of the author."""
    rng, authors = np.random.default_rng(0), np.repeat(np.arange(30), 10)
    # Short ones: their vectors are not read.
    texts = [" ".join(words) for words in product(WORDS[:20], WORDS[20:35])]
    found = {True: 0, False: 0}
    for _ in range(20):
        rates = rng.beta(0.6, 0.6, 30)[authors]
        labels = np.where(rng.random(300) < rates, "yes", "no").tolist()
        country = rng.choice(["DE", "FR"], 30)[authors].tolist()
        for grouped in found:
            view = seen(
                texts, labels, columns={"country": country}, groups=authors if grouped else None
            )
            found[grouped] += all_checks()["label_slices"](view) is not None
    assert found[False] >= 4
    assert found[True] <= 1


def test_a_slice_of_many_groups_is_found_with_limits_by_groups() -> None:
    texts, labels = people(600, 0.5)
    rng = np.random.default_rng(6)
    city = ["north" if rng.random() < (0.75 if x == "no" else 0.3) else "south" for x in labels]
    groups = np.arange(600) // 3
    found = all_checks()["label_slices"](seen(texts, labels, columns={"city": city}, groups=groups))
    assert "city 'north'" in found.finding.because
    no, north = np.array(labels) == "yes", np.array(city) == "north"
    oracle = two_samples(no[~north], no[north], groups[~north], groups[north])
    assert f"{signed(100 * oracle.low)} to {signed(100 * oracle.high)}" in found.finding.because


def test_two_files_of_a_few_authors_are_not_shifted() -> None:
    """Twenty-five other authors in each file, who write about their own things in ten rows each."""
    authors, found = np.repeat(np.arange(25), 10), {True: 0, False: 0}
    rng = np.random.default_rng(0)

    def written(seed: int):
        lexicon = [rng.choice(WORDS, 4) for _ in range(25)]
        rows = zip(sentences(250, seed), authors, strict=True)
        return [" ".join([text, *lexicon[author]]) for text, author in rows]

    for seed in range(2):
        here, there = written(2 * seed), written(2 * seed + 1)
        for grouped in found:
            view = seen(
                here,
                ["no", "yes"] * 125,
                {"new.csv": (there, ["no", "yes"] * 125)},
                groups=authors if grouped else None,
            )
            found[grouped] += all_checks()["shift"](view) is not None
    assert found == {True: 0, False: 2}


def tokenized(texts, per_character: float, unknown: float = 0.0) -> Tokenized:
    rows = TableRows(table_from_texts(texts, None))
    lengths = np.array([round(len(text) * per_character) + 2 for text in texts])
    words = np.array([len(text.split()) for text in texts])
    odd = (lengths * unknown).astype(np.int64)
    return Tokenized(rows, lengths, odd, words, 256, "model", special=2)


def test_texts_in_small_pieces_or_unknown_are_reported() -> None:
    texts = sentences(50)
    check = all_checks()["domain_mismatch"]
    assert check(tokenized(texts, 1 / 4.2)) is None
    small = check(tokenized(texts, 1 / 2.5))
    assert small.finding.severity == "info"
    assert "2.5 characters" in small.finding.because
    assert small.finding.score == pytest.approx(1 - 2.5 / 3.5, abs=0.02)
    assert check(tokenized(texts, 1 / 1.5)).finding.severity == "warn"
    unknown = check(tokenized(texts, 1 / 4.2, unknown=0.1))
    assert unknown.finding.severity == "warn"
    assert "unknown to model" in unknown.finding.because
    assert check(tokenized(["word " * 4], 1 / 2)) is None  # too little to judge


def test_scripts_without_spaces_are_not_judged_by_their_pieces() -> None:
    texts = ["今日はとても良い天気ですね、散歩に行きましょう。" * 3] * 20
    assert all_checks()["domain_mismatch"](tokenized(texts, 1.0)) is None


def test_views_keep_what_they_worked_out() -> None:
    view = seen(sentences(40), ["no", "yes"] * 20)
    assert view.paraphrases is view.paraphrases
    assert replace(view, seed=1).paraphrases is not view.paraphrases
