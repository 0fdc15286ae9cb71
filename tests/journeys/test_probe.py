"""``holdfast probe`` as it is typed: of a run, of a model from elsewhere, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import holdfast
from holdfast.cli.main import app
from holdfast.core.errors import ModelError, RecipeError, RunError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


def _asked(*arguments: str) -> Any:
    found = CliRunner().invoke(app, ["probe", *arguments, "--json", "--quiet"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def memorized(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, marked_rows: Any, write_csv: Any
) -> tuple[Path, Path, Path]:
    """A run on random labels, which can only be learned by heart, and its files of training and of
    other rows."""
    folder = tmp_path_factory.mktemp("memorized")
    random = np.random.default_rng(0)
    rows = [(text, str(random.choice(["yes", "no"]))) for text, _ in marked_rows(170)]
    source, test = folder / "rows.csv", folder / "test.csv"
    write_csv(source, rows[:110])
    write_csv(test, rows[110:])
    settings = [
        f"data.path={source}",
        f"data.test={test}",
        f"model.name={tiny_model}",
        "train.epochs=60",
        "train.learning_rate=0.003",
        "train.batch_size=16",
        "train.evaluations=4",
        "train.threads=1",
        "control.policy=off",
        "train.keep=last",
    ]
    train(override(Recipe(), settings), folder / "run")
    import csv

    import pyarrow.parquet as parquet

    split = parquet.read_table(folder / "run" / "splits.parquet").to_pylist()
    learned = sorted(line["row"] for line in split if line["split"] == "train")
    with (folder / "members.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *(rows[at] for at in learned)])
    return folder / "run", folder / "members.csv", test


@pytest.mark.slow
def test_a_run_that_learned_by_heart_is_told_so_with_its_rows(memorized: Any) -> None:
    run, _, _ = memorized
    found = _asked(str(run))
    memory = found["memorization"]
    assert found["schema"] == 1
    assert set(memory) >= {"auc", "tpr", "blind_auc", "exposed"}
    assert memory["verdict"] == "memorized"
    assert memory["auc"]["low"] > 0.6
    assert memory["blind_auc"]["low"] <= 0.5
    assert memory["risk_by"] == "loss trace"
    assert len(memory["exposed"]) == 10
    risks = [one["risk"] for one in memory["exposed"]]
    assert risks == sorted(risks, reverse=True)
    assert "memorized its training rows" in (run / "report.html").read_text("utf-8")
    assert holdfast.probe(run) == found


def test_the_answer_reads_at_80_columns(memorized: Any) -> None:
    found = CliRunner().invoke(app, ["probe", str(memorized[0]), "--quiet"])
    assert found.stdout.startswith("The model ")
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_a_model_from_elsewhere_gives_what_its_run_did(memorized: Any, tmp_path: Path) -> None:
    run, members, others = memorized
    model = tmp_path / "model"
    shutil.copytree(run / "model", model)
    stored = _asked(str(run))["memorization"]
    given = ("--members", str(members), "--others", str(others))
    found = _asked(str(model), *given)["memorization"]
    assert found["attacks"]["loss"]["auc"]["value"] == pytest.approx(
        stored["attacks"]["loss"]["auc"]["value"], abs=1e-3
    )
    assert found["risk_by"] == "conditioned"


def test_a_run_of_an_older_version_is_asked_again(memorized: Any, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(memorized[0], old)
    (old / "answers.parquet").unlink()
    result = json.loads((old / "result.json").read_text("utf-8"))
    result["probes"]["memorization"] = None
    # As a version that sealed nothing left it.
    result.pop("seal")
    (old / "result.json").write_text(json.dumps(result), encoding="utf-8")
    found = _asked(str(old))["memorization"]
    stored = _asked(str(memorized[0]))["memorization"]
    assert found["auc"]["value"] == pytest.approx(stored["auc"]["value"], abs=1e-3)


def test_one_file_alone_is_refused(memorized: Any) -> None:
    run, members, _ = memorized
    with pytest.raises(RecipeError, match="both"):
        holdfast.probe(run, members=members)


def test_pictures_are_refused_by_name(tmp_path: Path, memorized: Any) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"architectures": ["ResNetForImageClassification"], "model_type": "resnet"})
    )
    with pytest.raises(ModelError, match="pictures"):
        holdfast.probe(tmp_path, members=memorized[1], others=memorized[2])


def test_a_language_model_against_its_start(tiny_llama: Path, tmp_path: Path) -> None:
    """Two copies of one model have moved nowhere; a file against itself is one file."""
    words = [" ".join(f"w{(7 * i + j) % 50}" for j in range(24)) for i in range(40)]
    members, others = tmp_path / "members.jsonl", tmp_path / "others.jsonl"
    for file, rows in ((members, words[:20]), (others, words[20:])):
        file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), "utf-8")
    given = ("--members", str(members), "--others", str(others))
    found = _asked(str(tiny_llama), *given, "--start", str(tiny_llama))["memorization"]
    assert found["attacks"]["ratio"]["auc"]["value"] == pytest.approx(0.5)
    assert found["attacks"]["errors"]["auc"]["value"] == pytest.approx(0.5)
    assert found["verdict"] != "memorized"
    assert "answers completed verbatim" in found["extraction"]["because"]


def test_the_model_of_a_run_that_was_changed_is_refused(memorized: Any, tmp_path: Path) -> None:
    run, members, others = memorized
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    weights = changed / "model" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    with pytest.raises(RunError):
        holdfast.probe(changed, members=members, others=others)


def test_what_few_rows_cannot_tell_is_null(memorized: Any, tmp_path: Path) -> None:
    """JSON has no NaN: strict readers refuse the document."""
    run, members, _ = memorized
    few = tmp_path / "few.csv"
    few.write_text("".join(members.read_text("utf-8").splitlines(keepends=True)[:6]), "utf-8")
    given = ("--members", str(few), "--others", str(members), "--json", "--quiet")
    found = CliRunner().invoke(app, ["probe", str(run), *given])
    assert found.exit_code == 0, found.output
    assert "NaN" not in found.stdout
    told = json.loads(found.stdout)["memorization"]
    assert told["verdict"] == "undecided"
    assert told["attacks"]["loss"]["p_value"] is None
