"""``holdfast drift``: a run and a file of rows, from the shell and from Python."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import holdfast as door
from holdfast.core.errors import DataError, RunError

KEYS = {"schema", "verdict", "inputs", "accuracy", "alarms", "classes", "facts", "terms"}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, marked_csv: Path, quick: list[str]) -> Path:
    """A run with half of its rows to be judged by."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    folder = tmp_path_factory.mktemp("judged") / "run"
    division = ["data.split.train=0.4", "data.split.valid=0.5", "data.split.test=0.1"]
    train(override(Recipe(), [f"data.path={marked_csv}", *quick, *division]), folder)
    return folder


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Path:
    folder: Path = shutil.copytree(judged, tmp_path / "run")
    return folder


@pytest.fixture
def clean(marked_rows: Any, write_csv: Any, tmp_path: Path) -> Path:
    path: Path = write_csv(tmp_path / "clean.csv", marked_rows(200, seed=77))
    return path


@pytest.fixture
def turned(marked_rows: Any, write_csv: Any, tmp_path: Path) -> Path:
    """Like rows, and from the 200th on others."""
    rows = marked_rows(200, seed=78)
    other = [
        (f"zebra quagga {n % 7} okapi tapir zebra", label) for n, (_, label) in enumerate(rows)
    ]
    path: Path = write_csv(tmp_path / "turned.csv", [*rows, *other])
    return path


def test_like_rows_are_alike(holdfast: Any, run: Path, clean: Path) -> None:
    done = holdfast("drift", run, clean, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert set(found) >= KEYS
    assert (found["schema"], found["verdict"], found["rows"]) == (1, "alike", 200)
    assert found["alarms"] == []
    assert found["accuracy"]["labels"] == 200
    truth = found["accuracy"]["powered"]
    assert truth["low"] <= truth["value"] <= truth["high"]
    # The reference was made, said and kept; the second time it is read.
    assert "reference" in done.err
    assert (run / "reference.npz").is_file()
    again = holdfast("drift", run, clean, "--json")
    assert json.loads(again.out) == found
    assert "reference" not in again.err.replace(str(run), "")


def test_other_rows_are_noticed_dated_and_shown(holdfast: Any, run: Path, turned: Path) -> None:
    done = holdfast("drift", run, turned, "--json")
    assert done.code == 3
    verdict = json.loads(done.out)["verdict"]
    assert holdfast("drift", run, turned, "--fail-on", "differ").code == 3
    expected = 3 if verdict == "harmful" else 0
    assert holdfast("drift", run, turned, "--fail-on", "harmful").code == expected
    found = json.loads(done.out)
    assert found["verdict"] in ("differ", "harmful")
    assert "inputs" in found["differ"]
    first = found["alarms"][0]
    assert 180 <= first["since"] <= 215
    assert first["since"] < first["at"] < 320
    assert {"zebra", "okapi"} & {term["word"] for term in found["terms"]}
    assert "zebra" in found["examples"][0]["text"]
    assert found["accuracy"]["estimated"]["value"] is None
    assert "unlike" in found["accuracy"]["estimated"]["why"]
    shown = holdfast("drift", run, turned)
    assert shown.code == 3
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "cannot be estimated without labels" in " ".join(shown.out.split())


def test_labels_and_rows_that_cannot_be_used_are_said(
    holdfast: Any, run: Path, marked_rows: Any, write_csv: Any, tmp_path: Path
) -> None:
    rows = [(text, f"other {label}") for text, label in marked_rows(60, seed=77)]
    path = write_csv(tmp_path / "renamed.csv", [*rows, ("", "other")])
    done = holdfast("drift", run, path)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "1 row without a text or readable image; 60 labels that are not a class of the" in said
    assert "60 of 60 labels are not a class of the run" in " ".join(done.err.split())
    found = json.loads(holdfast("drift", run, path, "--json").out)
    assert found["left_out"] == {"without_text": 1, "unknown_labels": 60}
    assert found["accuracy"]["labels"] == 0
    refused = holdfast("drift", run, path, "--label", "label")
    assert refused.code == 2
    assert "contains no class of the run" in refused.err


def test_the_python_door_says_the_same(holdfast: Any, run: Path, clean: Path) -> None:
    found = door.drift(run, clean)
    assert found.verdict == "alike"
    assert repr(found) == f"Drifted('alike', 200 rows of {clean}, against {run})"
    said = json.loads(holdfast("drift", run, clean, "--json").out)
    assert json.loads(json.dumps(found.to_json())) == said
    frame = door.drift(run, pd.read_csv(clean))
    assert json.loads(json.dumps(frame.to_json()))["inputs"] == said["inputs"]
    listed = door.drift(run, pd.read_csv(clean)["text"].tolist())
    assert listed.verdict == "alike"


def test_what_cannot_be_told_is_refused(
    holdfast: Any, run: Path, clean: Path, tmp_path: Path, write_csv: Any, marked_rows: Any
) -> None:
    few = write_csv(tmp_path / "few.csv", marked_rows(5, seed=1))
    done = holdfast("drift", run, few)
    assert done.code == 2
    assert "at least 20" in done.err
    assert holdfast("drift", run, clean, "--fail-on", "worse").code == 2
    assert holdfast("drift", run, clean, "--between-alarms", "0").code == 2
    assert holdfast("drift", run, clean, "--label", "nowhere").code == 2
    assert holdfast("drift", tmp_path, clean).code == 2


def test_without_the_rows_that_it_was_made_of(
    holdfast: Any, run: Path, clean: Path, tmp_path: Path
) -> None:
    door.drift(run, clean)
    with np.load(run / "reference.npz") as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    recipe = run / "recipe.yaml"
    # A run that was moved to a machine without its source.
    moved = shutil.copytree(run, tmp_path / "moved")
    (moved / "reference.npz").unlink()
    result = json.loads((moved / "result.json").read_text("utf-8"))
    del result["seal"]
    (moved / "result.json").write_text(json.dumps(result), "utf-8")
    text = recipe.read_text("utf-8")
    path = next(line for line in text.splitlines() if line.strip().startswith("path:"))
    (moved / "recipe.yaml").write_text(text.replace(path, "  path: /nowhere/rows.csv"), "utf-8")
    done = holdfast("drift", moved, clean)
    assert done.code == 2
    assert "reference.npz" in done.err
    assert "recipe.yaml" in done.err
    # With the reference of another model it is refused, not used.
    shutil.copy(run / "reference.npz", moved / "reference.npz")
    with pytest.raises(RunError, match="another run"):
        door.drift(moved, clean)
    (run / "reference.npz").write_bytes(b"not an archive")
    with pytest.raises(RunError, match="cannot be read"):
        door.drift(run, clean)
    assert kept["vectors"].dtype == np.float16
    assert b"marker" not in kept["facts"].tobytes()


def test_a_file_without_labels_has_no_labels(
    run: Path, tmp_path: Path, write_csv: Any, marked_rows: Any
) -> None:
    rows = [(text,) for text, _ in marked_rows(60, seed=5)]
    found = door.drift(run, write_csv(tmp_path / "bare.csv", rows, ("text",))).to_json()
    assert found["accuracy"]["powered"] is None
    assert found["harm"] is None
    with pytest.raises(DataError, match="label"):
        door.drift(run, tmp_path / "bare.csv", label="label")


@pytest.mark.parametrize(("test", "what"), [("0.3", "test rows"), ("0.1", "validation rows")])
def test_a_cross_fitted_run_is_not_compared_with_the_confidence_of_its_folds(
    marked_csv: Path, quick: list[str], clean: Path, tmp_path: Path, test: str, what: str
) -> None:
    """Its out-of-fold predictions are those of models that learned half of the rows: every stream
    of new rows seemed more confident."""
    from holdfast.pipeline.main import train
    from holdfast.recipe import Recipe, override

    settings = [f"data.path={marked_csv}", *quick, "train.folds=2", f"data.split.test={test}"]
    valid = f"data.split.valid={0.5 - float(test)}"
    run = tmp_path / "run"
    train(override(Recipe(), [*settings, valid, "data.split.train=0.5"]), run)
    found = door.drift(run, clean).to_json()
    assert found["reference"]["what"] == what
    assert ("confidence" in found["facts"]) is (what == "test rows")
    assert (found["accuracy"]["estimated"]["value"] is not None) is (what == "test rows")
    assert ("classes" in found["unwatched"]) is (what == "validation rows")
    assert found["accuracy"]["before"]["value"] is not None
    # A pass over test rows is recorded, once: the reference is stored.
    openings = run / "openings.jsonl"
    lines = openings.read_text("utf-8").splitlines() if openings.exists() else []
    assert [json.loads(line)["command"] for line in lines] == ["drift"] * (what == "test rows")
    # A reference that an earlier version stored is made again.
    with np.load(run / "reference.npz") as arrays:
        old = {name: arrays[name] for name in arrays.files}
    facts = json.loads(old["facts"].tobytes()) | {"what": "validation rows"}
    old["facts"] = np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)
    old["number:confidence"] = np.full(facts["n"], 0.3)
    np.savez_compressed(run / "reference.npz", **old)
    assert door.drift(run, clean).to_json() == found
