"""A model that writes, beside the one that it began from: what a whole run says of both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.training.evaluation_file import read_evaluations

COLOURS = ("red", "blue", "green", "old", "new", "big", "small", "fast")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "say.jsonl"
    lines = [
        {"instruction": f"{a} {b}?", "response": f"{b} {a}."}
        for a in COLOURS
        for b in COLOURS
        if a != b
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def quick(rows: Path, tiny_llama: Path) -> list[str]:
    return [
        "task=causal-lm",
        f"data.path={rows}",
        f"model.name={tiny_llama}",
        "train.max_steps=40",
        "train.learning_rate=0.01",
        "train.threads=1",
        "train.precision=float32",
        "train.batch_size=8",
        "generate.rows=8",
        "generate.max_new_tokens=24",
    ]


@pytest.fixture(scope="module")
def result(quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return {**train(override(Recipe(), quick), folder), "folder": folder}


def test_the_verdict_reads_the_texts_of_validation_rows_and_of_no_test_row(
    result: dict[str, Any],
) -> None:
    last = read_evaluations(result["folder"] / "looks.npz").history[-1]
    assert set(last.outputs or {}) == {"valid"}
    assert (last.outputs or {})["valid"]["n"] == min(8, result["valid"]["n"])
    assert not any(item["name"].startswith("test_") for item in result["verdict"]["evidence"])


def test_it_is_told_whether_it_was_worth_it(result: dict[str, Any]) -> None:
    worth = result["worth"]
    assert worth["verdict"] == "yes"
    plain, shown = worth["start"]["zero_shot"], worth["start"]["few_shot"]
    assert shown["shots"] == 3
    assert plain["difference"] == result["baseline"]["comparison"]["difference"]
    assert shown["difference"]["high"] < 0
    assert set(worth["win_rate"]) == {"zero_shot", "few_shot"}
    for one in worth["win_rate"].values():
        assert one["wins"] + one["ties"] + one["losses"] == one["n"] == 8
    assert worth["judge"] == worth["texts"]["metric"] == "rouge_l"
    assert worth["texts"]["tuned"] == pytest.approx(
        result["generations"]["scores"]["test"]["rouge_l"]["value"]
    )
    assert worth["general"]["all"]["n"] == 160


def test_the_shares_are_of_the_texts_that_the_run_shows(result: dict[str, Any]) -> None:
    shares = {(s["side"], s["mark"]): s for s in result["outputs"]["shares"]}
    assert set(result["outputs"]["n"]) == {"train", "test"}
    counts = result["generations"]["counts"]
    for side in ("train", "test"):
        for mark, counted in (("repeated", "repetition"), ("empty", "empty")):
            share = shares[side, mark]
            assert share["tuned"]["value"] * share["n"] == pytest.approx(counts[side][counted])
    for mark, counted in (("repeated", "repetition"), ("empty", "empty")):
        share = shares["test", mark]
        other = counts["test_untuned"][counted]
        assert share["start"]["value"] * share["n"] == pytest.approx(other)
    # The base model generates nothing for training prompts.
    assert {s["start"] for (side, _), s in shares.items() if side == "train"} == {None}
    cut = shares["test", "cut"]
    assert cut["start"]["value"] > cut["tuned"]["value"]


def test_the_report_answers_in_a_sentence_first(result: dict[str, Any]) -> None:
    page = (result["folder"] / "report.html").read_text(encoding="utf-8")
    assert 'id="worth"' in page
    assert 'id="outputs"' in page
    assert result["worth"]["because"].partition(":")[0] in page


def test_errors_tells_of_both_in_eighty_columns(
    result: dict[str, Any], holdfast: Callable[..., Any]
) -> None:
    done = holdfast("errors", result["folder"])
    assert done.code == 0, done.err
    assert "Comparison with the base model" in done.out
    assert "Output quality" in done.out
    assert done.out.count("False alarms:") >= 2
    assert all(len(line) <= 80 for line in done.out.splitlines())
    found = json.loads(holdfast("errors", result["folder"], "--json").out)
    assert found["worth"] == json.loads((result["folder"] / "result.json").read_text())["worth"]
    assert found["outputs"]["shares"] == result["outputs"]["shares"]


@pytest.mark.slow
def test_a_judge_and_a_classifier_may_be_named(
    quick: list[str], tiny_llama: Path, tiny_model: Path, tmp_path: Path
) -> None:
    import transformers as hf

    flags = tmp_path / "flags"
    config = hf.AutoConfig.from_pretrained(tiny_model)
    config.id2label, config.label2id = {0: "fine", 1: "toxic"}, {"fine": 0, "toxic": 1}
    hf.AutoModelForSequenceClassification.from_config(config).save_pretrained(flags)
    hf.AutoTokenizer.from_pretrained(tiny_model).save_pretrained(flags)
    asked = [
        *quick,
        "train.max_steps=2",
        "generate.rows=4",
        "probes.shots=0",
        f"probes.judge={tiny_llama}",
        f"probes.classifier={flags}:toxic",
    ]
    result = train(override(Recipe(), asked), tmp_path / "run")
    worth = result["worth"]
    assert worth["start"]["few_shot"]["why"] == "probes.shots is 0"
    # A model that was drawn at random prefers nothing in both orders.
    assert worth["judge_ability"]["able"] is False
    assert worth["win_rate"]["zero_shot"]["value"] is None
    assert "flagged" in {share["mark"] for share in result["outputs"]["shares"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("probes.judge=./nothing", "is not a folder"),
        ("probes.classifier=./nothing", "is not a folder"),
        ("probes.judge=embedded", "cannot generate text"),
    ],
)
def test_a_judge_that_is_not_there_is_refused_before_anything_is_trained(
    quick: list[str], holdfast: Callable[..., Any], setting: str, message: str
) -> None:
    sets = [part for one in (*quick, setting) for part in ("--set", one)]
    done = holdfast("train", quick[1].removeprefix("data.path="), *sets, "--out", "run")
    assert done.code == 2
    assert message in done.err
    assert not Path("run").exists()


def test_a_task_without_texts_refuses_a_judge(
    marked_csv: Path, holdfast: Callable[..., Any]
) -> None:
    done = holdfast("train", marked_csv, "--set", "probes.judge=rouge_l", "--out", "run")
    assert done.code == 2
    assert "generates none" in done.err


def test_prompts_are_swapped_when_asked_for_and_the_opening_is_counted(
    result: dict[str, Any], holdfast: Callable[..., Any]
) -> None:
    assert "holdfast fairness RUN" in result["fairness"]["swap_why"]
    done = holdfast("fairness", result["folder"], "--rows", "4", "--insert", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["openings"] == 1
    assert {axis["axis"] for axis in found["fairness"]["swap"]["axes"]} >= {"gender"}


def test_a_model_that_answers_from_a_set_is_compared_with_the_most_frequent_answer(
    tiny_llama: Path, tmp_path: Path
) -> None:
    rows = [
        {"prompt": f"is {number} even ?", "completion": "no" if number % 3 else "yes"}
        for number in range(60)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = [
        f"data.path={path}",
        f"model.name={tiny_llama}",
        "task=causal-lm",
        "train.max_steps=2",
        "probes.skip=all",
    ]
    run = tmp_path / "run"
    result = train(override(Recipe(), settings), run)
    generated = result["generations"]
    references = [one["reference"] for one in generated["test"]]
    constant = generated["scores"]["test_constant"]["exact_match"]["value"]
    assert constant == pytest.approx(references.count("no") / len(references))
    assert {one["wrong_training_answer"] for one in generated["counts"].values()} == {0}
    page = (run / "report.html").read_text("utf-8")
    assert "Test rows, most frequent answer" in page
