"""The cleaning step that deletes terms, against texts whose result is plain to see."""

from __future__ import annotations

import pytest

from holdfast.core.errors import RecipeError
from holdfast.core.wording import list_option
from holdfast.quality.clean import terms as module
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
        ("e\u2011mail me", ["mail"], "e\u2011mail me"),
        ("You're", ["re"], "You're"),
        ("cafe\u0301 now", ["cafe"], "cafe\u0301 now"),
        # A symbol may be written with a mark.
        ("I \u2764\ufe0f it", ["\u2764"], "I it"),
        ("I \u2764 it", ["\u2764\ufe0f"], "I it"),
        ("ok \U0001f44d\U0001f3fd so", ["\U0001f44d"], "ok so"),
        # Joined symbols and flags are other symbols.
        ("a \U0001f468\u200d\U0001f469 b", ["\U0001f468"], "a \U0001f468\u200d\U0001f469 b"),
        ("a \U0001f468\u200d\U0001f469 b", ["\U0001f469"], "a \U0001f468\u200d\U0001f469 b"),
        ("a \U0001f1e9\U0001f1ea b", ["\U0001f1e9"], "a \U0001f1e9\U0001f1ea b"),
        ("a \U0001f1e9\U0001f1ea b", ["\U0001f1e9\U0001f1ea"], "a b"),
        # An accent may be a character of its own.
        ("au caf\u00e9", ["cafe\u0301"], "au"),
        ("au cafe\u0301", ["caf\u00e9"], "au"),
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


def test_a_long_list_takes_no_pattern_for_a_term_that_is_not_there() -> None:
    module._pattern.cache_clear()
    terms = Terms(tuple(f"term{place}," for place in range(2000)))
    assert drop_terms("nothing but term7, here", terms) == "nothing but here"
    assert module._pattern.cache_info().currsize == 1


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
