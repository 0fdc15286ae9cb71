"""Several runs that answer as one: stacks and soups, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

STACK, SOUP = ("--set", "predict.ensemble=stack"), ("--set", "predict.ensemble=soup")


def result_of(run: Path) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((run / "result.json").read_text("utf-8"))
    return whole


@pytest.fixture(scope="module")
def second(
    finished_run: Path, marked_csv: Path, quick: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same rows and division as ``finished_run``, learned faster and longer."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    folder = tmp_path_factory.mktemp("runs") / "second"
    more = ["train.learning_rate=3e-3", "train.epochs=6"]
    train(override(Recipe(), [f"data.path={marked_csv}", *quick, *more]), folder)
    return folder


@pytest.fixture(scope="module")
def fresh(marked_rows: Any, write_csv: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("new") / "new.csv", marked_rows(60, seed=5))
    return path


def chances_of(run: Path, path: Path, holdfast: Any) -> np.ndarray:
    lines = holdfast("predict", run, path, "--set", "predict.probabilities=true").out
    found = [json.loads(line) for line in lines.splitlines()]
    return np.array([[line["probability_no"], line["probability_yes"]] for line in found])


def test_a_stack_is_fitted_to_the_shared_validation_rows_and_kept_by_a_test(
    holdfast: Any, finished_run: Path, second: Path, fresh: Path
) -> None:
    done = holdfast("evaluate", finished_run, second, fresh, *STACK, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)["ensemble"]
    stored = [
        {
            line["row"]: line
            for line in parquet.read_table(run / "answers.parquet").to_pylist()
            if line["split"] == "valid"
        }
        for run in (finished_run, second)
    ]
    rows = sorted(set(stored[0]) & set(stored[1]))
    assert block["asked"] == "stack"
    assert block["rows"] == len(rows)
    losses = [np.mean([one[row]["loss"] for row in rows]) for one in stored]
    assert [m["valid_loss"] for m in block["members"]] == pytest.approx(losses, abs=1e-6)
    weights = np.array([m["weight"] for m in block["members"]])
    assert weights.sum() == pytest.approx(1)
    kept = block["comparison"]["verdict"] == "better"
    assert block["kind"] == ("stack" if kept else "average")
    assert kept or weights.tolist() == [0.5, 0.5]
    # What is predicted is the mean by just these weights.
    both = holdfast(
        "predict", finished_run, second, fresh, *STACK, "--set", "predict.probabilities=true"
    )
    made = np.array([json.loads(line)["probability_yes"] for line in both.out.splitlines()])
    alone = np.array([chances_of(run, fresh, holdfast)[:, 1] for run in (finished_run, second)])
    assert made == pytest.approx(weights @ alone, abs=1e-5)


def test_weights_that_are_proven_better_are_kept(
    holdfast: Any, finished_run: Path, second: Path, fresh: Path, monkeypatch: Any
) -> None:
    """The two runs differ much: where a test says so, the better one counts more."""
    from holdfast.analyses import ensemble

    monkeypatch.setattr(ensemble, "judge_pairs", _always_better(ensemble.judge_pairs))
    block = json.loads(holdfast("evaluate", finished_run, second, fresh, *STACK, "--json").out)
    found = block["ensemble"]
    assert found["kind"] == "stack"
    better = int(np.argmin([m["valid_loss"] for m in found["members"]]))
    assert found["members"][better]["weight"] > 0.5
    both = holdfast(
        "predict", finished_run, second, fresh, *STACK, "--set", "predict.probabilities=true"
    )
    made = [json.loads(line)["probability_yes"] for line in both.out.splitlines()]
    alone = np.array([chances_of(run, fresh, holdfast)[:, 1] for run in (finished_run, second)])
    assert made == pytest.approx(
        np.array([m["weight"] for m in found["members"]]) @ alone, abs=1e-5
    )


def _always_better(judge: Any) -> Any:
    import dataclasses

    return lambda *given: dataclasses.replace(judge(*given), verdict="better")


def test_a_soup_is_one_model_of_mean_weights(
    holdfast: Any, finished_run: Path, second: Path, fresh: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    done = holdfast("evaluate", finished_run, second, fresh, *SOUP, "--json")
    assert done.code == 0, done.err
    block = json.loads(done.out)["ensemble"]
    chosen = [m for m in block["members"] if m["weight"]]
    assert block["kind"] == "soup"
    assert block["cost"]["passes"] == 1
    assert block["valid_losses"]["soup"] <= block["valid_losses"]["best"] + 1e-9
    models = [
        AutoModelForSequenceClassification.from_pretrained(Path(m["run"]) / "model").eval()
        for m in chosen
    ]
    soup, states = models[0], [model.state_dict() for model in models]
    mean = {n: torch.stack([s[n].double() for s in states]).mean(0) for n in states[0]}
    soup.load_state_dict({n: t.to(states[0][n].dtype) for n, t in mean.items()})
    tokenizer = AutoTokenizer.from_pretrained(finished_run / "model")
    lines = [
        json.loads(x)
        for x in holdfast("predict", finished_run, second, fresh, *SOUP).out.splitlines()
    ]
    with torch.inference_mode():
        batch = tokenizer([line["text"] for line in lines], return_tensors="pt", padding=True)
        batch.pop("token_type_ids", None)
        wanted = soup(**batch).logits.double().softmax(1).max(1).values
    assert [line["confidence"] for line in lines] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_the_table_says_who_counts_how_much_and_why(
    holdfast: Any, finished_run: Path, second: Path, fresh: Path
) -> None:
    done = holdfast("evaluate", finished_run, second, fresh, *STACK)
    assert "of 2 runs" in done.out
    assert "validation rows of all runs" in done.out.replace("\n", " ")
    assert str(second) in done.out
    assert max(map(len, done.out.splitlines())) <= 200
    plain = json.loads(holdfast("evaluate", finished_run, second, fresh, "--json").out)
    assert plain["ensemble"]["kind"] == "average"
    assert [m["weight"] for m in plain["ensemble"]["members"]] == [0.5, 0.5]
    alone = json.loads(holdfast("evaluate", finished_run, fresh, "--json").out)
    assert "ensemble" not in alone


@pytest.mark.slow
def test_what_cannot_be_put_together_is_refused_with_the_way_out(
    holdfast: Any,
    finished_run: Path,
    second: Path,
    fresh: Path,
    quick: list[str],
    write_csv: Any,
    marked_rows: Any,
    tmp_path: Path,
) -> None:
    done = holdfast("evaluate", finished_run, fresh, *STACK)
    assert done.code == 2
    assert "Name two or more" in done.err
    done = holdfast("predict", finished_run, second, fresh, "--set", "predict.ensemble=stacks")
    assert done.code == 2
    assert "stack" in done.err
    other = write_csv(tmp_path / "other.csv", marked_rows(80, seed=77))
    sets = [word for one in quick for word in ("--set", one)]
    made = holdfast("train", other, "--out", tmp_path / "other", "--quiet", *sets)
    assert made.code == 0, made.err
    done = holdfast("evaluate", finished_run, tmp_path / "other", fresh, *STACK)
    assert done.code == 2
    assert "there are none" in done.err
    assert "data.split.seed" in done.err


def test_an_older_run_without_answers_is_refused(
    holdfast: Any, finished_run: Path, second: Path, fresh: Path, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(second, copy)
    (copy / "answers.parquet").unlink()
    done = holdfast("predict", finished_run, copy, fresh, *STACK)
    assert done.code == 2
    assert "stored none" in done.err


def test_large_models_are_loaded_in_turn_and_say_the_same(
    holdfast: Any, finished_run: Path, second: Path, fresh: Path, monkeypatch: Any
) -> None:
    from holdfast.tasks import ensemble

    before = holdfast("predict", finished_run, second, fresh).out
    monkeypatch.setattr(ensemble, "available_mb", lambda: 0.01)
    done = holdfast("predict", finished_run, second, fresh)
    assert done.out == before
    assert "one at a time" in done.err
