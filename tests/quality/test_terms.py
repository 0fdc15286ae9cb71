"""The cleaning step that deletes terms, against texts whose result is plain to see."""

from __future__ import annotations

import pytest

from holdfast.core.errors import RecipeError
from holdfast.core.wording import list_option
from holdfast.quality.clean.apply import clean_text, plan_cleaning
from holdfast.quality.clean.terms import Terms, drop_terms


@pytest.mark.parametrize(
    ("text", "terms", "rest"),
    [
        ("Best regards to you", ["regards"], "Best to you"),
        ("It disregards REGARDS", ["regards"], "It disregards"),
        ("paid #7 twice [ref#9]", ["[ref#9]", "#7"], "paid twice"),
        ("a#b # c", ["#"], "ab c"),
        ("sent from my phone: yes", ["phone", "sent from my phone"], "yes"),
        ("kindly, Bob", ["kindly"], "Bob"),
        ("ab x regards regards y", ["regards"], "ab x y"),
        ("Hi\n\nregards\n\nBob", ["regards"], "Hi\nBob"),
        ("now best\n regards", ["best regards"], "now"),
        ("best  regards", ["best regards"], ""),
        # A part of a longer word is another word.
        ("e-mail me", ["mail"], "e-mail me"),
        ("You're", ["re"], "You're"),
        ("cafe\u0301 now", ["cafe"], "cafe\u0301 now"),
        # A symbol may be written with a mark.
        ("I \u2764\ufe0f it", ["\u2764"], "I it"),
        # As many letters in lower case as in upper case, or more.
        ("Viele Grüße", ["grüsse"], "Viele"),
        ("STRASSE 3", ["straße"], "3"),
        # Without spaces a term has no visible ends.
        ("我们再见", ["再 见"], "我们"),
        ("  hello \n", ["x"], "  hello \n"),
        ("a.b", ["a.c"], "a.b"),
    ],
)
def test_terms_are_deleted_as_whole_words_in_any_case(
    text: str, terms: list[str], rest: str
) -> None:
    assert drop_terms(text, Terms(tuple(terms))) == rest


def test_a_text_of_nothing_else_stays() -> None:
    plan = plan_cleaning({"terms": {"drop": ["~"]}})
    assert clean_text("~", plan) == ("~", ())
    assert clean_text("~ so ~", plan) == ("so", ("terms",))


@pytest.mark.parametrize("wrong", [True, {"drop": []}, {"drop": [" "]}, {"drop": [3]}])
def test_without_terms_it_is_refused(wrong: object) -> None:
    with pytest.raises(RecipeError, match="must be a list of words, phrases or symbols"):
        plan_cleaning({"terms": wrong})  # type: ignore[dict-item]


def test_an_option_is_read_back_as_it_was_meant() -> None:
    import shlex

    from holdfast.recipe import Recipe, override

    terms = ["it's", '"quoted"', "[ref]", "grüße", "a b", "\u2028", "back\\slash"]
    _, setting = shlex.split(list_option("clean.terms.drop", terms))
    assert override(Recipe(), [setting]).treat["terms"] == {"drop": terms}
