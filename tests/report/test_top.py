"""The top of the page: the answer first, and nothing green over a model of no use."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.core.setting_names import PLAIN_NAMES
from holdfast.recipe import Recipe
from holdfast.report.answer.answer import answer
from holdfast.report.page import write_report
from holdfast.report.run_files import read_run
from holdfast.report.view.headline import USE_TONES, data_name, evidence_value, headline
from holdfast.report.view.record import settings


def top(source: str) -> str:
    """What stands above the first section."""
    return source[source.index('<header id="verdict"') : source.index("<section")]


def beaten(result: dict[str, Any]) -> None:
    result["test"]["metrics"]["accuracy"] |= {"value": 0.2, "low": 0.16, "high": 0.25}


def repetitive(runs: ModuleType) -> Any:
    def edit(result: dict[str, Any]) -> None:
        score = {"value": 12.5, "low": 11.0, "high": 14.0, "level": 0.95}
        result |= {"task": "seq2seq", "classes": None, "hardest": None, "careless": None}
        result["test"] = {"n": 60, "metrics": {"perplexity": score, "loss": score}}
        nothing = {"value": 0.0, "low": 0.0, "high": 0.0, "level": 0.95}
        line = {"row": 1, "source": "s", "reference": "r", "generated": "me me me", "untuned": "u"}
        result["generations"] = {
            "settings": {},
            "test": [line],
            "train": [],
            "meaning": {},
            "scores": {"test": {"rouge_l": nothing}, "test_untuned": {"rouge_l": nothing}},
            "counts": {"test": {"n": 8, "repetition": 8, "empty": 0}},
        }

    return edit


def test_the_answer_is_the_heading_then_the_advice_then_the_verdict(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run")
    page = read_page(write_report(run))
    found = answer(json.loads((run / "result.json").read_text("utf-8")))
    told = (found.headline, found.advice, "The run converged: its validation loss")
    begin = page.text.index("Contents")
    places = [page.text.index(words.replace("\u00a0", " "), begin) for words in told]
    assert places == sorted(places)
    assert re.search(r"<h1>(.*?)</h1>", page.source)[1].replace("&#39;", "'") == found.headline


def test_the_page_is_named_by_its_data_or_without_one_by_its_task(
    runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run")
    files = read_run(run)
    assert data_name(files) == "reviews.csv"
    files = replace(files, result=dict(files.result) | {"settings": None})
    assert data_name(replace(files, recipe={"data": {"path": "/of/mine/rows.csv"}})) == "rows.csv"
    assert data_name(replace(files, recipe={"data": {"path": None}})) == "text-classification"


def test_settings_have_the_names_that_the_pages_document(runs: ModuleType, tmp_path: Path) -> None:
    files = read_run(runs.make_run(tmp_path / "run"))
    recipe = Recipe().model_dump(mode="json") | {"treat": {"encoding": True}}
    files = replace(files, result=dict(files.result) | {"settings": recipe})
    shown = {f"{section}.{key}": text for section, lines in settings(files) for key, text in lines}
    keys = {key for key in PLAIN_NAMES if "." in key}
    assert not keys & set(shown)
    plain = {PLAIN_NAMES[key] for key in keys if not key.startswith("meta.")}
    assert plain <= set(shown)
    assert shown["clean.encoding"] == "true"
    assert shown["train.gradient_accumulation_steps"] == "1"


@pytest.mark.parametrize("verdict", ["healthy", "learning"])
@pytest.mark.parametrize("fault", ["beaten", "repetitive", "unscored"])
def test_nothing_is_green_over_a_useless_model(
    runs: ModuleType, tmp_path: Path, verdict: str, fault: str
) -> None:
    edits = {
        "beaten": beaten,
        "repetitive": repetitive(runs),
        "unscored": lambda result: result.update(test={"n": 0, "metrics": {}}),
    }
    run = runs.make_run(tmp_path / "run", verdict=verdict, edit=edits[fault])
    first = top(write_report(run).read_text("utf-8"))
    assert not re.search(r'class="[^"]*\bgood\b', first)
    assert "Good" not in first
    assert ("no significant rise" in first) == (fault == "unscored" and verdict == "healthy")
    assert headline(read_run(run)).tone == "unsure"


def test_a_score_below_its_baseline_is_said_first(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    page = read_page(write_report(runs.make_run(tmp_path / "run", edit=beaten)))
    assert re.search(r"<h1>No better than ", page.source)
    assert 'class="advice bad"' in page.source


def test_a_model_worth_using_keeps_its_green_badge(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    first = top(write_report(run).read_text("utf-8"))
    assert 'class="advice good"' in first
    assert 'class="verdict good"' in first


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("certainty", "only predicted probabilities"),
        ("both", "predictions and their probabilities"),
    ],
)
def test_the_harm_is_named_where_there_is_one(
    read_page: Any, runs: ModuleType, tmp_path: Path, harm: str, words: str
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["verdict"]["harm"] = harm

    run = runs.make_run(tmp_path / "run", verdict="overfit", edit=edit)
    first = top(write_report(run).read_text("utf-8"))
    assert f"<dt>What got worse</dt><dd>{words}</dd>" in first
    plain = read_page(write_report(runs.make_run(tmp_path / "plain")))
    assert "What got worse" not in plain.text


def test_another_trainers_run_begins_with_its_verdict(runs: ModuleType, tmp_path: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        result |= {"trainer": "Trainer", "test": {"n": 0, "metrics": {}}}

    source = write_report(runs.make_run(tmp_path / "run", edit=edit)).read_text("utf-8")
    assert "<h1>The run converged: its validation loss shows no significant rise.</h1>" in source
    assert "Not measured" not in top(source)
    assert 'class="advice' not in source


def test_every_use_has_a_tone() -> None:
    from typing import get_args

    from holdfast.report.answer.answer import Use

    assert set(USE_TONES) == set(get_args(Use))


def test_having_no_verdict_is_not_zero_per_cent_sure(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    page = read_page(write_report(runs.make_run(tmp_path / "run", verdict="inconclusive")))
    assert "Strength of evidence" not in page.text
    sure = read_page(write_report(runs.make_run(tmp_path / "sure")))
    assert re.search(r"Strength of evidence</dt><dd>93\s%", sure.source)


@pytest.mark.parametrize(
    ("value", "text"), [(489.0, "489"), (1234.0, "1,234"), (0.5, "0.500"), (1.0, "1.000")]
)
def test_a_count_among_the_evidence_has_no_decimals(value: float, text: str) -> None:
    assert evidence_value(value) == text
