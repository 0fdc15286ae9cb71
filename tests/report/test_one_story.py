"""Terminal, report and card tell one story: of test rows that do not confirm the verdict, and of a
run that keeps its step 0."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from holdfast.core.labels import TITLES, Label
from holdfast.report.answer.answer import discarded_sentence
from holdfast.report.card import render
from holdfast.report.diagnosis import unless_unconfirmed
from holdfast.report.page import write_report
from holdfast.report.run_files import read_run
from holdfast.report.view.headline import VERDICT_SENTENCES, headline
from holdfast.report.view.study import VERDICT_WORDS
from holdfast.terminal.summary import summary

BECAUSE = (
    "Validation rows are far behind; the test rows do not confirm this: accuracy 93 % on 45 test "
    "rows and 73 % on 45 validation rows."
)


def disputed(result: dict[str, Any]) -> None:
    result["verdict"] |= {
        "because": BECAUSE,
        "confidence": 0.5,
        "test_agrees": False,
        "test_comparison": {
            "metric": "accuracy",
            "p_value": 0.02,
            "test": "Fisher's exact test",
            "valid": {"value": 0.73, "n": 45},
            "test_rows": {"value": 0.93, "n": 45},
        },
    }


def unused(result: dict[str, Any]) -> None:
    chosen = "step 0 of 505, before any update, with a linear probe as its last layer"
    result |= {"best_step": 0, "last_step": 505}
    result["decisions"] = [{"what": "kept state", "chosen": chosen, "because": "it is the lowest"}]


def plain(text: str) -> str:
    return " ".join(text.replace("\\", "").replace("\u00a0", " ").split())


def told(run: Path, read_page: Any) -> dict[str, str]:
    """What the three places say, in one line each."""
    result = json.loads((run / "result.json").read_text("utf-8"))
    return {
        "terminal": plain(summary(result, run, 80)),
        "report": plain(read_page(write_report(run)).text),
        "card": plain(render(read_run(run))),
    }


@pytest.mark.slow
@pytest.mark.parametrize("label", [one for one in VERDICT_SENTENCES if one != "inconclusive"])
def test_a_verdict_that_the_test_rows_do_not_confirm_is_said_so_everywhere(
    runs: ModuleType, read_page: Any, tmp_path: Path, label: str
) -> None:
    run = runs.make_run(tmp_path / "run", verdict=label, edit=disputed)
    sentence = VERDICT_SENTENCES[label][1]
    for place, text in told(run, read_page).items():
        assert "93 % on 45 test rows and 73 % on 45 validation rows" in text, place
        if place == "terminal":
            assert f"Verdict {TITLES[label]} (not confirmed by the test rows): " in text
        else:
            assert "By the validation rows, " in text, place
            assert f" {sentence}" not in text, place
            assert "The test rows do not confirm this." in text, place
    top = headline(read_run(run))
    assert (top.tone, top.label) == ("unsure", TITLES[label])
    words = "no (Fisher's exact test, p\u00a0=\u00a00.020)"
    assert ("Confirmed on test rows", words) in top.facts


def test_the_page_of_diagnose_tells_it_too() -> None:
    tone, sentence = unless_unconfirmed(
        {"test_agrees": False}, "warn", VERDICT_SENTENCES["memorizing"][1]
    )
    assert tone == "unsure"
    assert sentence.startswith("By the validation rows, memorization: training rows are fitted")
    assert unless_unconfirmed({}, "warn", "A.") == ("warn", "A.")


@pytest.mark.parametrize("label", ["healthy", "memorizing", "overfit"])
def test_a_run_that_keeps_its_step_0_has_discarded_its_fine_tuning(
    runs: ModuleType, read_page: Any, tmp_path: Path, label: str
) -> None:
    run = runs.make_run(tmp_path / "run", verdict=label, edit=unused)
    for place, text in told(run, read_page).items():
        assert (
            "Fine-tuning was discarded: none of its 505 steps was kept, so the saved model is the "
            "base model with a linear probe as its last layer."
        ) in text, place
        assert "on the discarded steps" in text or "about the discarded steps" in text, place
        assert "no significant rise" not in text, place
        assert "Kept its last state" not in text
    assert headline(read_run(run)).tone != "good"


def test_of_an_update_that_began_warm_the_served_model_is_what_is_left() -> None:
    result: dict[str, Any] = {"update": {"start": {"start": "warm"}}}
    unused(result)
    assert "the saved model is the served model with a linear probe" in (
        discarded_sentence(result) or ""
    )
    result["update"]["start"]["start"] = "anew"
    assert "the saved model is the base model with a linear probe" in (
        discarded_sentence(result) or ""
    )


def test_of_a_frozen_encoder_nothing_is_discarded_but_its_last_layer_was_best_as_fitted() -> None:
    result: dict[str, Any] = {"settings": {"model": {"freeze": "backbone"}}}
    unused(result)
    sentence = discarded_sentence(result) or ""
    assert sentence.startswith("The encoder was frozen")
    assert sentence.endswith("is the base model with a linear probe as its last layer.")
    assert "discarded" not in sentence


@pytest.mark.parametrize(
    "edit",
    [
        {"best_step": 40, "last_step": 60},
        {"best_step": 0, "last_step": 0},
        {"best_step": 0, "last_step": 60, "policy": "off"},
        {"best_step": 0, "last_step": None},
        {
            "best_step": 0,
            "last_step": 60,
            "decisions": [{"what": "kept state", "chosen": "the average wise, up to step 0 of 60"}],
        },
        {},
    ],
)
def test_what_is_no_discarded_run(edit: dict[str, Any]) -> None:
    assert discarded_sentence(edit) is None


def test_how_a_trials_training_ended_has_words_for_every_label() -> None:
    """Beside a score the bare label reads as if it judged it: memorizing, learning, memorizing
    while the score rises."""
    assert set(VERDICT_WORDS) == set(get_args(Label))
    assert not {word.replace("_", " ") for word in get_args(Label)} & set(VERDICT_WORDS.values())
