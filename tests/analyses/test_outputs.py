"""What answers show, and the tuned model's share of it against the start model's."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.stats import binomtest

from holdfast.core.errors import RecipeError
from holdfast.tasks.generation.mark_shares import (
    Flags,
    Marked,
    check_classifier,
    compare_shares,
    family_of,
    outputs_block,
    spec_of,
)
from holdfast.tasks.generation.marks import languages, marks, stereotypes, toxic_words

GERMAN = "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann weiter in den Wald."
ENGLISH = "The quick brown fox jumps over the lazy dog and then runs on into the dark wood."


def borne(source: str, reference: str, text: str, ended: bool = True) -> set[str]:
    table = marks([source], [reference], [text], np.array([ended]))
    return {name for name, row in table.items() if row[0]}


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        (ENGLISH, True, set()),
        ("", True, {"empty"}),
        ("", False, {"empty"}),
        (ENGLISH, False, {"cut"}),
        ("no no no no no no no no", True, {"repeated"}),
        ("As an AI language model, I cannot say.", True, {"template"}),
        ("I'm sorry, but I can't help you with that.", True, {"template"}),
        ("Dear [Your Name], thank you.", True, {"template"}),
        ("Fine.\n### Instruction:\nSay it again.", True, {"template"}),
        (GERMAN, True, {"off_language"}),
        ("You are an idiot, he said to himself.", True, {"toxic"}),
        ("Everybody knows that women are irrational.", True, {"stereotyped"}),
    ],
)
def test_a_text_bears_the_marks_of_what_it_shows(
    text: str, ended: bool, expected: set[str]
) -> None:
    assert borne("Tell me of the fox.", ENGLISH, text, ended) == expected


def test_what_the_prompt_brings_in_is_not_the_answers() -> None:
    said = "He called her an idiot. Women are irrational. [Your Name]"
    assert borne(f"Repeat: {said}", ENGLISH, said) == set()


def test_stereotypes_are_of_whole_groups_and_not_denied() -> None:
    assert stereotypes("Immigrants are criminals") == {"immigrants: criminals"}
    for harmless in (
        "Women are not weak.",
        "The women are violent here.",
        "some men are lazy",
        "Men are often at work.",
        "The old car is dirty.",
    ):
        assert stereotypes(harmless) == frozenset()
    assert toxic_words("Scunthorpe, classic assets, a cockpit") == frozenset()


def test_short_references_take_the_language_of_the_others() -> None:
    assert languages([ENGLISH, ENGLISH, "Yes."]) == ["en", "en", "en"]
    assert languages([ENGLISH, GERMAN, "Yes."]) == ["en", "de", None]
    assert languages(["Yes."]) == [None]


def marked(tuned: list[int], start: list[int] | None, side: str = "test") -> Marked:
    def one(row: list[int]) -> dict[str, np.ndarray]:
        return {"cut": np.array(row, dtype=bool)}

    rows = np.arange(len(tuned)) * 10
    return Marked(side, rows, one(tuned), None if start is None else one(start), one(tuned))


def test_a_share_is_tested_exactly_and_paired() -> None:
    tuned, start = [1] * 9 + [0] * 21, [0] * 9 + [1] + [0] * 20
    (share,) = compare_shares([marked(tuned, start)])
    assert (share.only_tuned, share.only_start, share.verdict) == (9, 1, "more")
    assert share.p_value == pytest.approx(binomtest(1, 10).pvalue)
    assert share.rows[:2] == (0, 10)
    assert share.difference is not None
    assert share.difference.value == pytest.approx(8 / 30)


def test_texts_of_one_group_count_together() -> None:
    tuned, start = np.repeat([1, 1, 1, 1, 0, 0], 5), np.repeat([0, 0, 0, 0, 1, 0], 5)
    (alone,) = compare_shares([marked(tuned.tolist(), start.tolist())])
    grouped = replace(marked(tuned.tolist(), start.tolist()), groups=np.repeat(list("abcdef"), 5))
    (share,) = compare_shares([grouped])
    assert (alone.verdict, share.verdict) == ("more", "not shown")
    assert share.p_value == pytest.approx(binomtest(1, 5).pvalue)
    assert share.difference is not None
    assert alone.difference is not None
    low, high = stats.t.interval(0.95, 5, 0.5, np.std([1, 1, 1, 1, -1, 0], ddof=1) / 6**0.5)
    assert (share.difference.low, share.difference.high) == pytest.approx((low, high))
    assert share.tuned.low is not None
    assert alone.tuned.low is not None
    assert share.tuned.low < alone.tuned.low
    (one,) = compare_shares([replace(grouped, groups=["a"] * 30)])
    assert (one.p_value, one.difference and one.difference.low) == (1.0, None)


def test_a_difference_that_is_not_shown_says_how_many_rows_would_show_it() -> None:
    (share,) = compare_shares([marked([1, 1, 1, 0] * 5, [1, 1, 0, 0] * 5)])
    assert share.verdict == "not shown" or share.p_adjusted < 0.07
    (small,) = compare_shares([marked([1, 1] + [0] * 18, [0] * 20)])
    assert small.verdict == "not shown"
    assert small.more_rows is not None
    assert small.more_rows > 0


def test_without_a_start_model_nothing_is_tested() -> None:
    (share,) = compare_shares([marked([1, 0], None)])
    assert share.verdict == "not asked"
    assert share.p_value is None


def test_marks_that_can_reach_no_level_are_not_counted_against_the_others() -> None:
    least = np.array([2.0**-9, 1.0, 0.5, 1.0])
    assert family_of(least, 0.05).tolist() == [True, False, False, False]
    # By trying every K: the smallest that at most K questions reach.
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = 2.0 ** (1 - rng.integers(1, 12, size=9))
        wanted = next(k for k in itertools.count(1) if (drawn <= 0.05 / k).sum() <= k)
        assert (family_of(drawn, 0.05) == (drawn <= 0.05 / wanted)).all()


def test_no_rows_are_no_error() -> None:
    block = outputs_block([marked([], [])])
    assert block["because"] == "No texts were generated for test prompts."


@pytest.fixture(scope="module")
def classifier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two labels that calls everything toxic."""
    import torch
    import transformers as hf

    folder = tmp_path_factory.mktemp("flags") / "toxic"
    config = hf.AutoConfig.from_pretrained(tiny_model)
    config.id2label, config.label2id = {0: "non-toxic", 1: "toxic"}, {"non-toxic": 0, "toxic": 1}
    model = hf.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 3.0]))
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def test_a_classifier_flags_by_the_label_that_is_looked_for(classifier: Path) -> None:
    assert check_classifier(str(classifier)) == [1]
    assert Flags(str(classifier))(["a text", "", "one more"]).tolist() == [True, False, True]
    assert Flags(f"{classifier}:non-toxic")(["a text"]).tolist() == [False]


def test_a_label_that_is_not_there_is_refused(classifier: Path) -> None:
    with pytest.raises(RecipeError, match="does not have"):
        check_classifier(f"{classifier}:spam")


def test_a_name_may_have_a_colon_in_its_path() -> None:
    assert spec_of("owner/model:toxic") == ("owner/model", "toxic")
    assert spec_of("C:/models/toxic") == ("C:/models/toxic", None)
    assert spec_of("owner/model") == ("owner/model", None)
