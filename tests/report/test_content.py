"""The report as a reader needs it: every number, reason and word of the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from holdfast.report.page import write_report
from holdfast.report.view.calibration import ranges


def estimates(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], float]]:
    """Every number with an interval in a JSON document, with its path."""
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        return [
            ((*path, key), value[key]) for key in ("value", "low", "high") if value[key] is not None
        ]
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in estimates(item, (*path, key))]
    return []


@pytest.mark.parametrize("name", ["two", "six", "small"])
def test_every_number_of_the_result_stands_on_the_page_rounded_once(
    read_page: Any, runs: ModuleType, tmp_path: Path, name: str
) -> None:
    sizes = {"two": 2, "six": 6, "small": 3}
    run = runs.make_run(tmp_path / "run", classes=sizes[name], seed=3)
    text = read_page(write_report(run)).text
    result = json.loads((run / "result.json").read_text())
    found = [
        (path, value)
        for part in ("test", "valid", "train_probe", "baseline", "careless")
        for path, value in estimates(result[part], (part,))
    ]
    assert len(found) > 60
    for path, value in found:
        rate = any(
            word in "".join(path) for word in ("accuracy", "f1", "precision", "recall", "careless")
        )
        if "difference" in path:
            shown = f"{100 * value:+.1f}"
        else:
            shown = f"{100 * value:.1f}" if rate else f"{value:.3f}"
        assert shown in text, path


def test_the_score_and_the_baseline_share_one_sentence(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["test"]["metrics"]["accuracy"] = {
            "value": 0.91249,
            "low": 0.87651,
            "high": 0.93849,
            "level": 0.95,
        }
        result["baseline"]["test"]["metrics"]["accuracy"]["value"] = 0.8

    text = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "95 % CI 87.7–93.8" in text
    assert "On 400 test rows" in text
    assert "the accuracy is 91.2 %; the linear probe has 80.0 %" in text


def test_every_decision_finding_and_action_stands_with_its_reason(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    run = runs.make_run(tmp_path / "run")
    page = read_page(write_report(run))
    text = page.text
    result = json.loads((run / "result.json").read_text())
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    for decision in result["decisions"]:
        line = f"<dt>{decision['what']}</dt>.*?{decision['chosen']}.*?{decision['because']}"
        assert re.search(line, page.source), decision
    for event in events:
        if event["event"] in ("note", "action"):
            assert event["because"] in text
    for finding in result["data"]["findings"]:
        assert finding["because"] in text
        assert finding["remedy"] in text


def test_a_finding_that_names_no_rows_counts_none(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    def edit(result: dict[str, Any]) -> None:
        one = {**result["data"]["findings"][0], "score": 1.0, "fixed": False, "severity": "warn"}
        found = [{**one, "count": 7, "rows": []}, {**one, "count": 9, "rows": [3, 4]}]
        result["data"]["findings"] = found

    text = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "warn · 9 rows" in text
    assert "warn · 7 rows" not in text


def test_every_look_is_in_the_table_behind_the_curves(runs: ModuleType, tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run")
    source = write_report(run).read_text()
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    looks = [event for event in events if event["event"] == "snapshot"]
    for look in looks:
        for value in (look["train_loss"], look["valid_loss"], look["refined_loss"]):
            assert f'<td class="n">{value:.3f}</td>' in source
    assert source.count("(best checkpoint)</th>") == 1


@pytest.mark.slow
def test_too_many_classes_for_a_matrix_still_list_the_confusions(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    page = read_page(write_report(runs.make_run(tmp_path / "run", classes=300, n_test=600)))
    assert 'class="matrix' not in page.source
    assert "Most frequent confusions" in page.text
    assert len(page.source) < 1_500_000


def test_a_number_that_is_undefined_says_why(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["test"]["metrics"]["accuracy"] = runs.undefined("only one class is present")
        result["baseline"]["comparison"]["difference"] = runs.undefined("no rows differ")

    text = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "undefined: only one class is present" in text
    assert "it is defined for two classes only" in text
    assert "could not be compared" in text


def test_an_interval_that_is_unreliable_says_so(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    def edit(result: dict[str, Any]) -> None:
        for name in ("f1_macro", "accuracy", "loss"):
            result["test"]["metrics"][name]["note"] = f"of {name}; unreliable below 100 rows"

    page = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit)))
    assert "Unreliable below 100 rows" in page.text
    score = page.source.split('<section id="score"')[1].split("</section>")[0]
    assert score.count("<li>Unreliable below 100 rows</li>") == 1, "a remark once a table"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "low", "high", "p", "words"),
    [
        (0.05, 0.01, 0.09, 0.01, "significantly better than the linear probe"),
        (0.05, 0.01, 0.09, None, "significantly better than the linear probe"),
        (-0.05, -0.09, -0.01, 0.01, "significantly worse than the linear probe"),
        (0.02, -0.01, 0.05, 0.3, "No difference between the fine-tuned model and the linear probe"),
        (
            0.02,
            -0.01,
            0.05,
            None,
            "No difference between the fine-tuned model and the linear probe",
        ),
        (
            0.04,
            0.001,
            0.09,
            0.06,
            "No difference between the fine-tuned model and the linear probe",
        ),
    ],
)
def test_the_paired_test_is_put_into_words(
    read_page: Any,
    runs: ModuleType,
    tmp_path: Path,
    value: float,
    low: float,
    high: float,
    p: float,
    words: str,
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["baseline"]["comparison"]["difference"].update(value=value, low=low, high=high)
        result["baseline"]["comparison"]["p_value"] = p

    assert words in read_page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text


def test_without_the_blocks_the_confusions_come_from_the_predictions(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    whole = read_page(write_report(runs.make_run(tmp_path / "whole"))).source

    def edit(result: dict[str, Any]) -> None:
        del result["test"]["confusion"], result["hardest"], result["test"]["reliability"]

    older = read_page(write_report(runs.make_run(tmp_path / "older", edit=edit))).source
    matrix = re.compile(r'<table class="matrix">.*?</table>', re.DOTALL)
    assert matrix.findall(older) == matrix.findall(whole)
    assert "stored no texts" in older


def test_the_careless_block_appears_only_when_it_was_measured(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    for careless in (True, False):
        page = read_page(write_report(runs.make_run(tmp_path / str(careless), careless=careless)))
        assert ("random split would have reported" in page.text) is careless


def test_an_unknown_verdict_is_shown_as_it_is(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    page = read_page(write_report(runs.make_run(tmp_path / "run", verdict="brand_new")))
    assert "The verdict is “brand_new”." in page.text


def test_every_label_of_the_contract_has_plain_words() -> None:
    from typing import get_args

    from holdfast.core.labels import Label
    from holdfast.report.view.headline import VERDICT_SENTENCES

    assert set(VERDICT_SENTENCES) == set(get_args(Label))


@pytest.mark.parametrize(
    ("ends", "texts"),
    [
        ([(0.5, 0.75), (0.75, 1.0)], ["50–75", "75–100"]),
        (
            [(0.5, 0.994), (0.994, 0.9981), (0.9981, 0.9999)],
            ["50.0–99.4", "99.4–99.8", "99.8–100.0"],
        ),
        ([(0.99961, 0.99968)], ["99.96–99.97"]),
        ([(0.9999999, 0.99999999)], ["100.0000"]),
        ([(0.7, 0.7)], ["70"]),
        ([(1.0, 1.0)], ["100"]),
    ],
)
def test_a_bins_range_tells_its_ends_apart(
    ends: list[tuple[float, float]], texts: list[str]
) -> None:
    assert ranges(ends) == [f"{text}\u00a0%" for text in texts]


def test_test_rows_of_their_own_are_not_counted_among_the_rows_read(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["data"] |= {"rows": 2466, "used": 2866}

    text = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit))).text
    assert "2,466 rows read, and 400 test rows from a separate source: 1,866 for training" in text
    assert "2,866 used" not in text


def test_what_did_not_happen_is_not_listed(
    read_page: Any, runs: ModuleType, tmp_path: Path
) -> None:
    def edit(result: dict[str, Any]) -> None:
        result["division"] |= {"moved": 0, "dropped": 0}

    page = read_page(write_report(runs.make_run(tmp_path / "run", edit=edit)))
    assert "0 rows moved" not in page.text
    legend = page.source.split('<ul class="legend parts"')[1].split("</ul>")[0]
    assert "Train" in legend
    assert "Dropped" not in legend
