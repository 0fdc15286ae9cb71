"""Terms of one group in the place of another's: the lexicon, the grammar, the enrichment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from holdfast.augment.registry import check_enrich, make_all
from holdfast.augment.terms.forms import in_group, inserted, mentions
from holdfast.augment.terms.lexicon import built_in, read_lexicon
from holdfast.core.errors import RecipeError

GENDER, ORIGIN, REGION = (built_in()[name] for name in ("gender", "origin", "region"))


def written(axis: object, text: str, group: str) -> str:
    return in_group(axis, text, group, mentions(axis, text))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "group", "expected"),
    [
        ("He told his dog.", "female", "She told her dog."),
        ("She saw her and her own mother.", "male", "He saw him and his own father."),
        ("It was his.", "female", "It was hers."),
        ("It is hers, she did it herself.", "male", "It is his, he did it himself."),
        ("HE SAID SO", "female", "SHE SAID SO"),
        ("emily 's phone", "male", "todd 's phone"),
        ("Emily's phone", "male", "Todd's phone"),
        ("an actress and a man", "male", "an actor and a man"),
        ("a boyfriend's men", "female", "a girlfriend's women"),
        ("theme, hermit and she-wolf", "male", "theme, hermit and she-wolf"),
    ],
)
def test_gender_is_changed_and_grammar_kept(text: str, group: str, expected: str) -> None:
    assert written(GENDER, text, group) == expected


@pytest.mark.parametrize(
    ("text", "group", "expected"),
    [
        ("A German car from Germany", "Asia", "An Indian car from India"),
        ("an Italian, a european", "Africa", "a Kenyan, a european"),
        ("a kenyan", "Latin America", "a colombian"),
    ],
)
def test_countries_keep_their_form_and_articles_follow(
    text: str, group: str, expected: str
) -> None:
    assert written(REGION, text, group) == expected


def test_a_text_in_its_own_group_stays_to_the_letter() -> None:
    text = "She is a  honest\tWoman , an one 's wife."
    assert written(GENDER, text, "female") == text


def test_the_name_keeps_its_gender_where_the_origin_changes_and_the_other_way_round() -> None:
    assert written(ORIGIN, "Lakisha and Jamal", "Hispanic") == "Mariana and Pablo"
    assert written(GENDER, "Lakisha", "male") == "Darnell"


def test_lists_are_of_one_length_and_no_word_has_two_groups() -> None:
    for axis in built_in().values():
        for block in axis.blocks:
            assert {len(terms) for terms in block.groups.values()} == {block.size}
            assert tuple(block.groups) == axis.groups
        for word, readings in axis.known.items():
            assert len({group for _, group, _, _ in readings}) == 1, word


def test_a_term_is_put_before_a_text_in_its_case() -> None:
    words = GENDER.blocks[1]
    assert inserted(words, "works well", "female", 2) == "the mother says: works well"
    assert inserted(words, "Works well", "female", 2) == "The mother says: Works well"


def test_a_users_lexicon_is_read_and_a_broken_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "terms.yaml"
    path.write_text("age: {frame: 'A {} man: ', groups: {young: [young], old: [old]}}")
    (axis,) = read_lexicon(path).values()
    assert written(axis, "the young", "old") == "the old"
    assert inserted(axis.blocks[0], "Hi", "old", 0) == "An old man: Hi"
    for wrong, rule in (
        ("age: {young: [a, b], old: [c]}", "same number of terms"),
        ("age: {young: [a], old: [A]}", "one group only"),
        ("age: {young: [a]}", "two groups"),
        ("age: {groups: {x: [a], y: [b]}, frame: hi}", "frame with exactly one"),
        ("age: {groups: {x: [a], y: [b]}, fram: hi}", "unknown key"),
        ("- a", "table of axes"),
    ):
        path.write_text(wrong)
        with pytest.raises(RecipeError, match=rule):
            read_lexicon(path)


def test_a_form_is_of_any_group_and_name_as_likely_as_of_any_other() -> None:
    one = make_all(check_enrich({"counterfactual": {"axes": ["origin"]}}))["counterfactual"]
    assert one.share == 1.0
    texts = [one.change("Emily met Emily.", np.random.default_rng(k)) for k in range(4200)]
    names = [text.split()[0] for text in texts]
    assert all(text.split()[2] == f"{name}." for text, name in zip(texts, names, strict=True))
    counts = np.unique(names, return_counts=True)[1]
    # Six groups of seven names: χ² with 41 degrees of freedom is above 75 once in a thousand.
    assert len(counts) == 42
    assert ((counts - 100) ** 2 / 100).sum() < 75
    assert one.change("no terms", np.random.default_rng(0)) == "no terms"


def test_an_axis_that_there_is_not_is_refused() -> None:
    one = make_all(check_enrich({"counterfactual": {"axes": ["age"]}}))["counterfactual"]
    with pytest.raises(RecipeError, match="names an axis"):
        one.ready()
