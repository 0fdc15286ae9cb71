"""New texts: what is made, and what is not let through."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.augment.synthesize import (
    NewText,
    from_templates,
    halves_of,
    prompt_of,
    recombined,
    sift,
    written,
)
from holdfast.core.errors import RecipeError


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_templates_give_each_combination_once_and_no_more_than_asked() -> None:
    lines = {0: ["the {food|service|room} was {good|fine}"], 1: ["never again"]}
    made = from_templates(lines, {0: 100, 1: 100}, rng())
    texts = [one.text for one in made if one.label == 0]
    assert sorted(texts) == sorted(
        f"the {a} was {b}" for a in ("food", "service", "room") for b in ("good", "fine")
    )
    assert [one.text for one in made if one.label == 1] == ["never again"]
    assert len(from_templates(lines, {0: 2}, rng())) == 2
    wide = {0: [" ".join("{a|b|c|d|e|f|g|h}" for _ in range(12))]}
    many = [one.text for one in from_templates(wide, {0: 50}, rng())]
    assert len(many) == len(set(many)) == 50
    with pytest.raises(RecipeError, match="fewer than two"):
        from_templates({0: ["the {food} was good"]}, {0: 5}, rng())


def test_a_text_is_parted_at_the_clause_nearest_to_its_middle() -> None:
    assert halves_of("I liked it a lot, but the battery died after two days") == (
        "I liked it a lot,",
        "but the battery died after two days",
    )
    assert halves_of("too short, really") is None
    assert halves_of("one two three four five six seven") is None


def test_recombination_joins_two_texts_of_one_class_and_one_fold() -> None:
    texts = [f"a{k} b{k} c{k}, d{k} e{k} f{k}" for k in range(8)]
    labels, folds = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 0, 1, 1])
    made = recombined(texts, labels, folds, {0: 99, 1: 99}, rng())
    assert len(made) == 8
    for one in made:
        first, last = int(one.text[1]), int(one.text[-1])
        assert first != last
        assert labels[first] == labels[last] == one.label
        assert folds[first] == folds[last] == one.fold


def test_a_prompt_shows_texts_of_one_class_and_fold_and_the_first_line_is_taken() -> None:
    texts = [f"text {k}" for k in range(8)]
    labels, folds = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 0, 0, 1, 1])
    seen: list[str] = []

    def write(prompts: list[str]) -> list[str]:
        seen.extend(prompts)
        return [" something new\n- and more" if i else " \n" for i in range(len(prompts))]

    made = written(write, ["cats", "dogs"], texts, labels, folds, {0: 2, 1: 2}, rng())
    assert [one.text for one in made] == ["something new"] * 3
    for prompt, one in zip(seen[1:], made, strict=True):
        assert prompt.startswith(f"More texts about {['cats', 'dogs'][one.label]}:")
        shown = [int(line[-1]) for line in prompt.split("\n")[1:-1]]
        assert {(int(labels[k]), int(folds[k])) for k in shown} == {(one.label, one.fold)}
    assert prompt_of("x", ["a\nb"]) == "More texts about x:\n- a b\n-"


def test_copies_strangers_and_twins_are_refused_each_with_its_reason() -> None:
    known = ["the quick brown fox jumps over the lazy dog near the river bank today"]
    texts = [
        "The quick brown fox jumps over the lazy dog near the river bank today!",
        "an entirely new sentence about something else that nobody wrote before now",
        "an entirely new sentence about something else that nobody wrote before now",
        "a text that the classifier takes for another class altogether than it was made for",
        "one more sentence whose vector is the same as that of the second one here",
        "a last one that would be fine if the share were not used up by then",
    ]
    made = [NewText(text, 0, "model") for text in texts]
    vectors = np.array([[1, 0], [0, 1], [0, 1], [1, 1], [0, 1.01], [1, -1]], dtype=float)
    chances = np.array([[0.9, 0.1]] * 6)
    chances[3] = [0.4, 0.6]
    found = sift(made, known, vectors, chances, 1)
    assert found.kept.tolist() == [1]
    assert found.refused == {
        "near-copy of a row": 1,
        "near-copy of another": 1,
        "classifier disagrees": 1,
        "too much alike": 1,
        "beyond the share": 1,
    }
    assert sift(made, known, vectors, chances, 9).kept.tolist() == [1, 5]
