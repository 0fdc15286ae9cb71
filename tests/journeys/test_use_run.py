"""What is done with a finished run: score other rows, predict, average, report, resume."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch


@pytest.fixture(scope="module")
def result(finished_run: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((finished_run / "result.json").read_text("utf-8"))
    return whole


def test_diagnose_gives_the_run_its_own_verdict(
    holdfast: Any, finished_run: Path, result: dict[str, Any], own_verdict: Any
) -> None:
    own_verdict(finished_run)
    done = holdfast("diagnose", finished_run, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert (found["source"], found["verdict"]) == ("holdfast", result["verdict"])
    assert found["best_step"] == result["best_step"]
    # Named series are judged like anybody's log.
    named = holdfast("diagnose", finished_run, "--json", "--set", "valid=valid_loss")
    assert named.code == 0, named.err


def test_looks_that_are_broken_are_named_with_the_way_out(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:

    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    (copy / "looks.npz").write_bytes(b"PK\x03\x04 no archive")
    done = holdfast("diagnose", copy)
    assert done.code == 2
    assert "looks.npz" in done.err
    assert "Remove it" in done.err
    (copy / "looks.npz").unlink()
    assert holdfast("diagnose", copy).code == 0


def test_the_log_of_an_unfinished_run_is_not_judged_by_old_numbers(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut").mkdir()
    lines = (finished_run / "events.jsonl").read_text("utf-8").split("\n")
    (tmp_path / "cut" / "events.jsonl").write_text("\n".join(lines), "utf-8")
    done = holdfast("diagnose", tmp_path / "cut", "--json")
    assert done.code == 0, done.err
    because = json.loads(done.out)["verdict"]["because"]
    verdicts = [json.loads(line) for line in lines if '"event": "verdict"' in line]
    looks = [json.loads(line) for line in lines if '"event": "snapshot"' in line]
    stale = verdicts[-1]["step"] < looks[-1]["step"]
    assert because.startswith("Reported at step") is stale


@pytest.mark.parametrize("content", ["", "{", "5", '{"verdict": {"label": "no such"}}'])
def test_a_result_that_somebody_changed_is_named(
    holdfast: Any, finished_run: Path, tmp_path: Path, content: str
) -> None:

    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    (copy / "looks.npz").unlink()
    (copy / "result.json").write_text(content, "utf-8")
    done = holdfast("diagnose", copy)
    assert done.code == 2, done.out
    assert "result.json" in done.err


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_evaluate_scores_other_rows(
    holdfast: Any, finished_run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "new.csv", marked_rows(50, seed=9))
    done = holdfast("evaluate", finished_run, path, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)
    assert {"accuracy", "f1_macro", "loss", "ece"} <= block["metrics"].keys()
    assert block["n"] == 50
    shown = holdfast("evaluate", finished_run, path)
    assert f"{100 * block['metrics']['accuracy']['value']:.1f} %" in shown.out


def test_evaluate_of_the_test_rows_gives_the_reported_score(
    holdfast: Any,
    finished_run: Path,
    result: dict[str, Any],
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
) -> None:
    table = parquet.read_table(finished_run / "predictions.parquet")
    rows = [marked_rows()[row] for row in table["row"].to_pylist()]
    done = holdfast("evaluate", finished_run, write_csv(tmp_path / "t.csv", rows), "--json")
    told = json.loads(done.out)["metrics"]
    for name, estimate_ in result["test"]["metrics"].items():
        assert told[name]["value"] == pytest.approx(estimate_["value"], rel=1e-6), name


def test_predict_a_file_and_a_pipe_alike(
    holdfast: Any,
    finished_run: Path,
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    texts = [text for text, _ in marked_rows(12, seed=3)]
    path = write_csv(tmp_path / "new.csv", [(text,) for text in texts], ["text"])
    by_file = holdfast("predict", finished_run, path)
    assert by_file.code == 0, by_file.err
    lines = [json.loads(line) for line in by_file.out.splitlines()]
    assert [line["row"] for line in lines] == list(range(12))
    assert {line["prediction"] for line in lines} <= {"no", "yes"}
    assert all(0.5 <= line["confidence"] <= 1 for line in lines)
    pipe = io.TextIOWrapper(io.BytesIO("\n".join(texts).encode()), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", pipe)
    assert holdfast("predict", finished_run, "-").out == by_file.out
    written = holdfast("predict", finished_run, path, "--out", tmp_path / "p.jsonl")
    assert (written.code, written.out) == (0, "")
    assert (tmp_path / "p.jsonl").read_text("utf-8") == by_file.out


@pytest.mark.slow
def test_two_runs_are_averaged(
    holdfast: Any,
    finished_run: Path,
    marked_csv: Path,
    sets: list[str],
    marked_rows: Any,
    write_csv: Any,
    tmp_path: Path,
) -> None:
    from holdfast.data.memory.texts import table_from_texts
    from holdfast.models.encoders.checkpoint import load_saved
    from holdfast.tasks.classes.encoding import answer

    done = holdfast("train", marked_csv, "--seed", "1", "--out", "b", "--quiet", "--json", *sets)
    assert done.code == 0, done.err
    assert json.loads(done.out)["seed"] == 1
    texts = [text for text, _ in marked_rows(8, seed=3)]
    path = write_csv(tmp_path / "new.csv", [(text,) for text in texts], ["text"])
    both = holdfast("predict", finished_run, tmp_path / "b", path)
    assert both.code == 0, both.err
    table = table_from_texts(texts)
    chances = []
    for run in (finished_run, tmp_path / "b"):
        logits = answer(load_saved(run / "model"), table).logits
        chances.append(torch.from_numpy(logits).double().softmax(1).numpy())
    mean = np.mean(chances, axis=0).max(axis=1)
    told = [json.loads(line)["confidence"] for line in both.out.splitlines()]
    assert told == pytest.approx(mean, abs=1e-5)


def test_report_draws_the_page_again(holdfast: Any, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    page = run / "report.html"
    before = page.read_bytes()
    page.unlink()
    done = holdfast("report", run)
    assert (done.code, done.out.strip()) == (0, str(page))
    assert page.read_bytes() == before


def test_resume_of_a_finished_run_changes_nothing(
    holdfast: Any, finished_run: Path, marked_csv: Path
) -> None:
    before = {p: (p.stat().st_mtime_ns, digest(p)) for p in finished_run.rglob("*") if p.is_file()}
    done = holdfast("train", marked_csv, "--out", finished_run, "--resume", "--json", "--quiet")
    assert done.code == 0, done.err
    assert json.loads(done.out)["schema"] == 1
    after = {p: (p.stat().st_mtime_ns, digest(p)) for p in finished_run.rglob("*") if p.is_file()}
    assert after == before


def test_a_plan_for_a_place_that_is_refused_is_refused(
    holdfast: Any, finished_run: Path, marked_csv: Path, sets: list[str], tmp_path: Path
) -> None:
    taken = tmp_path / "notes.txt"
    taken.write_text("mine")
    for out, rule in ((taken, "is a file, not a folder"), (finished_run, "never overwrites")):
        done = holdfast("train", marked_csv, "--dry-run", "--out", out, *sets)
        assert done.code == 2, done.out
        assert rule in done.err
        assert done.out == ""
    assert taken.read_text() == "mine"
    assert holdfast("train", marked_csv, "--dry-run", "--out", "new", *sets).code == 0
    assert not (tmp_path / "new").exists()


def test_diagnose_says_that_a_run_bears_no_sums(
    holdfast: Any, finished_run: Path, tmp_path: Path
) -> None:

    whole = holdfast("diagnose", finished_run)
    assert "not checked" not in whole.err
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    told = json.loads((copy / "result.json").read_text("utf-8"))
    del told["seal"]
    (copy / "result.json").write_text(json.dumps(told), "utf-8")
    done = holdfast("diagnose", copy)
    assert (done.code, done.out) == (0, whole.out)
    assert "the run's files: not checked" in done.err


@pytest.mark.slow
def test_a_run_that_is_named_as_a_model_says_where_its_model_is(
    holdfast: Any, finished_run: Path, marked_csv: Path
) -> None:
    done = holdfast("train", marked_csv, "--model", finished_run, "--out", "r")
    assert done.code == 2
    assert f"Did you mean {finished_run / 'model'}?" in done.err
    named = holdfast("train", marked_csv, "--model", finished_run / "model", "--dry-run", "--json")
    assert named.code == 0, named.err
