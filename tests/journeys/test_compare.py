"""``holdfast compare``: runs, plain models and files of predictions, of every task."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

KEYS = {"schema", "verdict", "difference", "rows_to_settle"}


def _answers(path: Path, said: list[Any]) -> Path:
    lines = [json.dumps({"row": row, "prediction": one}) for row, one in enumerate(said)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def _compared(holdfast: Any, *arguments: object) -> dict[str, Any]:
    done = holdfast("compare", *arguments, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    assert set(found) >= KEYS
    return found


@pytest.fixture
def fresh(marked_rows: Any, write_csv: Any, tmp_path: Path) -> Path:
    path: Path = write_csv(tmp_path / "fresh.csv", marked_rows(400, seed=77))
    return path


def _labels(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def test_a_run_against_answers_that_are_wrong(
    holdfast: Any, finished_run: Path, fresh: Path, tmp_path: Path
) -> None:
    labels = _labels(fresh)
    wrong = ["yes" if one == "no" else "no" for one in labels]
    said = [*wrong[:300], *labels[300:]]
    found = _compared(holdfast, finished_run, _answers(tmp_path / "b.jsonl", said), fresh)
    assert found["verdict"] == "better"
    assert found["n"] == 400
    assert found["b"]["value"] == 0.25
    assert found["difference"]["value"] == pytest.approx(found["a"]["value"] - 0.25)
    assert found["rows_to_settle"] is None
    example = found["differ"]["a_better"][0]
    assert example["a"] == example["label"] == labels[example["row"]]
    assert any("is unknown" in one for one in found["warnings"])
    turned = _compared(holdfast, tmp_path / "b.jsonl", finished_run, fresh)
    assert turned["verdict"] == "worse"
    assert turned["difference"]["high"] == pytest.approx(-found["difference"]["low"])


@pytest.mark.slow
def test_predict_writes_what_compare_reads(
    holdfast: Any, finished_run: Path, fresh: Path, tmp_path: Path
) -> None:
    out = tmp_path / "said.csv"
    assert holdfast("predict", finished_run, fresh, "--out", out).code == 0
    found = _compared(holdfast, finished_run, out, fresh, "--margin", 2)
    assert found["difference"]["value"] == 0
    assert found["discordant"] == {"only_a": 0, "only_b": 0}
    assert found["verdict"] == "equivalent"
    assert found["margin"] == 0.02
    strict = _compared(holdfast, finished_run, out, fresh, "--margin", 0.1)
    assert strict["verdict"] == "undecided"
    assert strict["rows_to_settle"] > 400
    # A spreadsheet's apostrophe is no other text, and a threshold's gap is no prediction.
    guarded = out.read_text("utf-8").splitlines()
    guarded[1] = f"'{guarded[1]}"
    text, _, confidence = guarded[2].rsplit(",", 2)
    guarded[2] = f"{text},,{confidence}"
    (tmp_path / "gap.csv").write_text("\n".join(guarded) + "\n", "utf-8")
    gap = _compared(holdfast, finished_run, tmp_path / "gap.csv", fresh)
    assert (
        f"{tmp_path / 'gap.csv'} has an empty or no prediction for 1 row, counted as wrong"
        in str(gap["warnings"])
    )
    plain = _compared(holdfast, finished_run / "model", out, fresh, "--margin", 2)
    assert plain["difference"]["value"] == 0


def test_rows_that_the_run_had_seen_are_left_out_and_counted(
    holdfast: Any, finished_run: Path, marked_csv: Path, tmp_path: Path
) -> None:
    said = _answers(tmp_path / "b.jsonl", ["no"] * 160)
    found = _compared(holdfast, finished_run, said, marked_csv)
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    assert found["n"] == result["test"]["n"]
    assert found["a"]["value"] == pytest.approx(result["test"]["metrics"]["accuracy"]["value"])
    assert found["with_seen"]["n"] == 160
    assert found["seen"]["train"]["n"] == result["data"]["train"]
    shown = holdfast("compare", finished_run, said, marked_csv)
    assert "are left out" in " ".join(shown.err.split())
    assert "including training rows" in " ".join(shown.out.split())
    assert max(map(len, shown.out.splitlines())) <= 80


def test_two_runs_without_data_are_compared_on_their_test_rows(
    holdfast: Any, finished_run: Path, fresh: Path
) -> None:
    found = _compared(holdfast, finished_run, finished_run)
    result = json.loads((finished_run / "result.json").read_text("utf-8"))
    assert found["stored_test_rows"] is True
    assert found["n"] == result["test"]["n"]
    assert found["a"]["value"] == pytest.approx(result["test"]["metrics"]["accuracy"]["value"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "label"),
    [
        ("several", "f1_micro", "labels"),
        ("number", "mae", "stars"),
        ("seq2seq", "rouge_l", "target"),
        ("causal", "rouge_l", "target"),
    ],
)
def test_every_task_has_its_number(
    holdfast: Any, old_runs: Path, tmp_path: Path, name: str, metric: str, label: str
) -> None:
    """Against the labels themselves, which no model beats."""
    data = old_runs / "rows" / f"{name}-new.jsonl"
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    said = _answers(tmp_path / "right.jsonl", [row[label] for row in rows])
    found = _compared(holdfast, old_runs / "runs" / name, said, data)
    assert found["metric"] == metric
    best = 0.0 if metric == "mae" else 1.0
    assert found["b"]["value"] == pytest.approx(best)
    gap = found["difference"]["value"]
    assert gap == pytest.approx(found["a"]["value"] - best)
    assert (gap > 0) == (metric == "mae")
    assert found["verdict"] in ("worse", "undecided")
    if name == "number":
        judged = json.loads(holdfast("evaluate", old_runs / "runs" / name, data, "--json").out)
        assert found["a"]["value"] == pytest.approx(judged["metrics"]["mae"]["value"], rel=1e-5)
    if name == "several":
        judged = json.loads(holdfast("evaluate", old_runs / "runs" / name, data, "--json").out)
        assert found["a"]["value"] == pytest.approx(judged["metrics"]["f1_micro"]["value"])


def test_pictures(holdfast: Any, old_runs: Path) -> None:
    run = old_runs / "runs" / "pictures"
    found = _compared(holdfast, run, run / "model", old_runs / "rows" / "pictures-new")
    assert found["metric"] == "accuracy"
    assert found["difference"]["value"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{run}", "nowhere", "{data}"), "is neither a run, nor"),
        (("{run}", "{empty}", "{data}"), "no config.json"),
        (("{run}", "{answers}"), "is not a finished run"),
        (("{run}", "{run}", "{data}", "--margin", "0"), "must lie between"),
        (("{run}", "{data}", "{data}"), "has no column 'prediction'"),
        (("{run}", "{twice}", "{data}"), "two predictions for a row"),
        (("{run}", "{far}", "{data}"), "a row that is not in DATA (400 rows) (found: 9000)"),
        (("{run}", "{short}", "{data}"), "not one prediction for each of the 400 rows (found: 2)"),
        (("{run}", "{turned}", "{data}"), "another text in column 'text' than row 0 of DATA"),
        (("{run}", "{run}", "missing.csv"), "missing.csv"),
        (("{run}", "{lists}", "{data}"), "another type in row 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    holdfast: Any,
    finished_run: Path,
    fresh: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "run": finished_run,
        "data": fresh,
        "empty": tmp_path / "empty",
        "answers": _answers(tmp_path / "some.jsonl", ["no"] * 400),
        "twice": tmp_path / "twice.csv",
        "far": tmp_path / "far.csv",
        "lists": tmp_path / "lists.jsonl",
        "short": tmp_path / "short.csv",
        "turned": tmp_path / "turned.csv",
    }
    (tmp_path / "short.csv").write_text("prediction\nno\nyes\n", "utf-8")
    head, *rows = fresh.read_text("utf-8").splitlines()
    turned = [f"{head},prediction", *(f"{row},no" for row in reversed(rows))]
    (tmp_path / "turned.csv").write_text("\n".join(turned) + "\n", "utf-8")
    _answers(places["lists"], [["no"]] * 60)
    (tmp_path / "twice.csv").write_text("row,prediction\n0,no\n0,yes\n", "utf-8")
    (tmp_path / "far.csv").write_text("row,prediction\n9000,no\n", "utf-8")
    done = holdfast("compare", *(one.format(**places) for one in arguments))
    assert done.code == 2
    assert said in done.err


def test_from_python(finished_run: Path, fresh: Path) -> None:
    import holdfast

    run = holdfast.TrainedRun(finished_run)
    found = holdfast.compare(run, finished_run, fresh, margin=2)
    assert found.verdict.verdict == "equivalent"
    assert found.to_json()["difference"]["value"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["several", "number"])
def test_models_of_two_tasks_are_refused(holdfast: Any, old_runs: Path, name: str) -> None:
    """Answers of another kind would be wrong without exception, which says nothing of a model."""
    runs, data = old_runs / "runs", old_runs / "rows" / f"{name}-new.jsonl"
    done = holdfast("compare", runs / name, runs / "classes", data)
    assert done.code == 2
    assert "predicts texts or classes, but the labels of DATA are" in done.err
    done = holdfast("compare", runs / "classes", runs / name, old_runs / "rows/classes-new.jsonl")
    assert done.code == 2
    assert "the labels of DATA are classes" in done.err


def test_a_file_that_names_one_label_a_row_is_read_so(
    holdfast: Any, old_runs: Path, tmp_path: Path
) -> None:
    """Not as the letters of the label."""
    data = old_runs / "rows" / "several-new.jsonl"
    rows = [json.loads(line)["labels"] for line in data.read_text("utf-8").splitlines()]
    plain = _answers(tmp_path / "plain.jsonl", [row[0] for row in rows])
    lists = _answers(tmp_path / "lists.jsonl", [row[:1] for row in rows])
    found = _compared(holdfast, plain, lists, data, "--label", "labels")
    assert found["difference"]["value"] == 0
    assert found["a"]["value"] > 0.5


@pytest.mark.slow
def test_two_runs_that_learned_other_columns_of_a_file_are_not_compared_on_it(
    holdfast: Any, finished_run: Path, marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    rows = marked_csv.read_text("utf-8").splitlines()
    both = tmp_path / "both.csv"
    names = ["other", *("ab"[i % 2] for i in range(len(rows) - 1))]
    both.write_text("".join(f"{x},{y}\n" for x, y in zip(rows, names, strict=True)), "utf-8")
    for label in ("label", "other"):
        settings = [f"data.path={both}", f"data.label={label}", "data.text=[text]", *quick]
        train(override(Recipe(), settings), tmp_path / label)
    done = holdfast("compare", tmp_path / "label", tmp_path / "other")
    assert done.code == 2
    assert "different labels of the same rows" in done.err


@pytest.mark.slow
def test_rows_of_two_sources_are_the_same_by_what_they_hold(
    finished_run: Path, marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    import pandas as pd

    import holdfast as package

    frame = pd.read_csv(marked_csv)
    out = tmp_path / "framed"
    package.train(frame, out=out, text="text", label="label", settings=quick, quiet=True)
    found = package.compare(finished_run, out)
    shared = set(_test_texts(finished_run)) & set(_test_texts(out))
    assert found.to_json()["n"] == len(shared) > 0
    same = package.compare(finished_run, finished_run).to_json()
    assert same["difference"]["value"] == 0


def _test_texts(run: Path) -> list[str]:
    from holdfast.runs.finished_run import FinishedRun

    return list(FinishedRun(run).predictions_of("test").table.column("text"))


def test_the_smallest_margin_is_a_margin(holdfast: Any, finished_run: Path) -> None:
    done = holdfast("compare", finished_run, finished_run, "--margin", "1e-300", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["verdict"] == "undecided"
    assert "A and B are the same model" in done.err
