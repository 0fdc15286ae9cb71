from __future__ import annotations

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

from holdfast.core.errors import MachineError
from holdfast.metrics.text_scores import need_score_packages, overlap_scores, rouge_rows
from holdfast.tasks.generation.text_scores import (
    SHOWN,
    Generated,
    count_copies,
    frequent_answer,
    generations_block,
    loops,
    sample_positions,
    score_generated,
)

REFERENCES = [
    "The cat sat on the mat all day. It purred.",
    "A dog ran through the park with a red ball.",
    "Nobody came to the party on Sunday evening.",
    "Eric and Rob are going to watch a stand-up on youtube.",
]
TEXTS = [
    "The cat was sitting on the mat. It purred loudly.",
    "A dog ran in the park.",
    "Nobody came to the party on Sunday evening.",
    "Rob watches television with his brother today.",
]


def test_bleu_of_references_without_four_words_is_undefined() -> None:
    """sacrebleu gives 0 even to texts that equal their references."""
    short = ["a b c", "d e"] * 20
    bleu = overlap_scores(short, short)["bleu"]
    assert bleu.value is None
    assert "no reference has four words" in str(bleu.why)
    longer = [*short, "a b c d"]
    assert overlap_scores(longer, longer)["bleu"].value == pytest.approx(1)


def test_bleu_and_chrf_are_sacrebleus_corpus_scores() -> None:
    scores = overlap_scores(REFERENCES, TEXTS, resamples=50)
    bleu = BLEU().corpus_score(TEXTS, [REFERENCES]).score / 100
    chrf = CHRF().corpus_score(TEXTS, [REFERENCES]).score / 100
    assert scores["bleu"].value == pytest.approx(bleu)
    assert scores["chrf"].value == pytest.approx(chrf)


def test_rouge_is_the_mean_f1_of_rouge_score() -> None:
    scores = overlap_scores(REFERENCES, TEXTS, resamples=50)
    oracle = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    found = [oracle.score(a, b) for a, b in zip(REFERENCES, TEXTS, strict=True)]
    for ours, theirs in (("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")):
        assert scores[ours].value == pytest.approx(np.mean([f[theirs].fmeasure for f in found]))


def test_rouge_lsum_takes_sentences_as_units() -> None:
    reference, text = "It rained. He slept.", "He slept. It rained."
    rows, _ = rouge_rows([reference], [text])
    assert rows[0, 3] == pytest.approx(1.0)
    assert rows[0, 2] == pytest.approx(0.5)


def test_words_of_another_script_are_read() -> None:
    rows, foreign = rouge_rows(["мама мыла раму"], ["мама мыла раму"])
    assert foreign
    assert rows[0].tolist() == [1.0] * 4


def test_exact_match_forgives_white_space_alone() -> None:
    scores = overlap_scores(["a b", "c"], ["a  b\n", "C"], resamples=50)
    assert scores["exact_match"].value == 0.5


def test_every_score_lies_in_its_interval() -> None:
    for name, estimate in overlap_scores(REFERENCES * 5, TEXTS * 5, resamples=200).items():
        assert estimate.low <= estimate.value <= estimate.high, name


def test_groups_are_resampled_whole() -> None:
    groups = np.repeat(np.arange(12), 5)
    references = [r for r in REFERENCES * 3 for _ in range(5)]
    texts = [t for t in TEXTS * 3 for _ in range(5)]
    alone = overlap_scores(references, texts, resamples=300)["rouge1"]
    whole = overlap_scores(references, texts, groups=groups, resamples=300)["rouge1"]
    assert whole.high - whole.low > alone.high - alone.low
    assert "12 groups" in whole.note


def test_no_rows_are_undefined() -> None:
    assert {e.value for e in overlap_scores([], []).values()} == {None}


def test_empty_outputs_score_nothing_and_do_not_fail() -> None:
    scores = overlap_scores(REFERENCES, [""] * 4, resamples=50)
    assert {name: e.value for name, e in scores.items()} == dict.fromkeys(scores, 0.0)


def test_a_looping_text_is_seen_and_a_plain_one_is_not() -> None:
    assert loops("we go to the sea " * 3)
    assert loops("no no no no no no no")
    assert loops("ance" * 12)
    assert not loops("." * 9 + " wait")
    assert not loops("we go to the sea and then we go to the hills")


def test_counts_tell_learned_by_heart_from_copied_from_elsewhere() -> None:
    counts = count_copies(
        ["s1", "s2", "s3"],
        ["my own answer", "the right one", "x"],
        ["My own  answer", "my own answer", ""],
        ["my own answer", "the right one"],
    )
    assert counts["training_answer"] == 2
    assert counts["wrong_training_answer"] == 1
    assert counts["empty"] == 1
    assert counts["n"] == 3


def test_a_copy_of_the_source_counts_unless_the_reference_copies_it_too() -> None:
    source = "one two three four five six seven eight nine ten eleven"
    copied = "one two three four five six seven eight and so on"
    assert count_copies([source], ["a summary"], [copied], [])["source_copied"] == 1
    assert count_copies([source], [copied + " more"], [copied], [])["source_copied"] == 0
    assert count_copies([source], ["a summary"], [source], [])["source_copied"] == 1


def test_one_text_for_unlike_references_is_collapsed() -> None:
    same = ["a talks to b"] * 3
    assert count_copies(["s"] * 3, ["x", "y", "z"], same, [])["collapsed"] == 3
    assert count_copies(["s"] * 3, ["x", "x", "x"], same, [])["collapsed"] == 0
    assert count_copies(["s"] * 2, ["x", "y"], same[:2], [])["collapsed"] == 0


def test_answers_from_a_set_are_no_memorized_texts_and_no_collapse() -> None:
    """A classifier that answers in words: its errors are answers of the set."""
    references = ["yes"] * 5 + ["no"] * 5
    training = ["Yes"] * 20 + ["no"] * 20
    confused = ["yes"] * 4 + ["no"] * 4 + ["yes"] * 2
    counts = count_copies(["s"] * 10, references, confused, training)
    assert counts["training_answer"] == 10
    assert counts["wrong_training_answer"] == 0
    # Six times yes, which five references have.
    assert counts["collapsed"] == 1
    constant = count_copies(["s"] * 10, references, ["no"] * 10, training)
    assert constant["wrong_training_answer"] == 0
    assert constant["collapsed"] == 5
    # An answer that one training row alone has, in place of a text of its own.
    copied = count_copies(["s"] * 3, ["x", "y", "yes"], ["no", "no", "no"], ["no", *training[:20]])
    assert copied["wrong_training_answer"] == 2


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["No", "yes", "no ", "maybe"], "No"),
        ([f"text {i}" for i in range(50)], None),
        (["ok"] * 2 + [f"text {i}" for i in range(38)], "ok"),
        (["ok"] * 2 + [f"text {i}" for i in range(39)], None),
        (["", "", "a"], None),
        (["a"], None),
        ([], None),
    ],
)
def test_a_frequent_answer_is_that_of_two_rows_and_a_twentieth(
    answers: list[str], expected: str | None
) -> None:
    assert frequent_answer(answers) == expected


def test_the_sample_is_fixed_bounded_and_seeded() -> None:
    first = sample_positions(1000, 50, 3, "test")
    assert np.array_equal(first, sample_positions(1000, 50, 3, "test"))
    assert len(set(first.tolist())) == 50
    assert not np.array_equal(first, sample_positions(1000, 50, 4, "test"))
    assert sample_positions(7, 50, 3).tolist() == list(range(7))


def test_the_block_shows_both_sides_and_counts_both_models() -> None:
    rows = np.arange(30)
    made = Generated(rows, ["s"] * 30, ["r"] * 30, ["g"] * 30, [""] * 30)
    block = generations_block(made, made, ["g"], {"beams": 1})
    assert len(block["train"]) == len(block["test"]) == SHOWN
    assert block["test"][0] == {
        "row": 0,
        "source": "s",
        "reference": "r",
        "generated": "g",
        "untuned": "",
    }
    assert block["counts"]["train"]["training_answer"] == 30
    assert block["counts"]["test_untuned"]["empty"] == 30
    assert score_generated(made, untuned=True)["exact_match"].value == 0.0


def test_an_absent_package_is_named_before_anything_is_trained(monkeypatch) -> None:
    import importlib.util

    need_score_packages()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"holdfast\[generation\]"):
        need_score_packages()
