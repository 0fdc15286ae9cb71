"""The words of the trade are explained where they stand, once a section, and at the end."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from markupsafe import Markup

from holdfast.report.glossary import GLOSSARY, Glossary
from holdfast.report.page import write_report


def test_each_word_is_marked_once_a_section_and_the_text_stays_as_it_was() -> None:
    words = Glossary()
    text = "The refined loss fell by 0.1 nats; a refined loss in nats (Wilson's interval)."
    made = words.mark(text)
    assert re.sub(r"<[^>]*>", "", made) == str(Markup.escape(text))
    assert re.findall(r">([^<]+)</dfn>", made) == ["refined loss", "nats", "Wilson&#39;s interval"]
    assert "<dfn" not in words.mark("nats again")
    words.begin()
    assert "<dfn" in words.mark("nats anew")
    assert {word.name for word in words.met} == {"Wilson interval", "nats", "calibrated loss"}


def test_the_longest_form_wins_and_case_does_not_matter() -> None:
    made = Glossary().mark("Calibration error (ECE) of F1, MACRO")
    assert re.findall(r">([^<]+)</dfn>", made) == ["Calibration error (ECE)", "F1", "MACRO"]


@pytest.mark.parametrize(
    "text", ["train.precision=float32", "refined_loss", "precision=1", "annat"]
)
def test_a_setting_or_a_part_of_a_word_is_no_word(text: str) -> None:
    assert Glossary().mark(text) == text


def test_what_is_marked_is_escaped_and_markup_is_left_alone() -> None:
    words = Glossary()
    assert "<b>" not in words.mark("<b>nats</b> & loss")
    assert words.mark(Markup("<i>loss</i>")) == Markup("<i>loss</i>")


def test_every_word_is_found_by_its_own_name_and_explained_in_a_sentence() -> None:
    for word in GLOSSARY:
        words = Glossary()
        words.mark(
            f"Each {word.name} here" if word.name == "evaluation" else f"The {word.name} here"
        )
        assert word in words.met
        assert word.meaning.endswith(".")


def test_the_page_explains_every_word_it_marks_and_no_other(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    page = read_page(write_report(runs.make_run(tmp_path / "run")))
    marked = {a["aria-describedby"] for tag, a in page.tags if tag == "dfn"}
    listed = {a["id"] for tag, a in page.tags if tag == "dd" and "id" in a}
    assert marked == listed
    assert {"word-nats", "word-calibrated-loss", "word-linear-probe"} <= listed
    for tag, attributes in page.tags:
        if tag == "dfn":
            assert attributes["tabindex"] == "0"
            assert attributes["data-meaning"]


def test_a_number_and_its_percent_sign_stay_on_one_line() -> None:
    made = Glossary().mark("accuracy is 99 % on these rows (95 % CI 6 to 17)")
    assert "99\u00a0% on" in made
    assert ">95\u00a0% CI</dfn>" in made
