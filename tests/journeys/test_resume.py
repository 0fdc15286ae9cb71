"""``--resume``: what may be continued, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.kills import KillAt

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RunError
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override


@pytest.fixture
def start(quick: list[str], killed: type[BaseException], tmp_path: Path) -> Any:
    """Begin a run on rows that can be changed, and kill it at a step."""

    def begin(source: Path, at: int = 8, every_s: float = 0.0, *settings: str) -> Path:
        recipe = override(Recipe(), [f"data.path={source}", *quick, *settings])
        with pytest.raises(killed):
            train(
                recipe,
                tmp_path / "run",
                listeners=(KillAt("step_done", at, killed),),
                checkpoint_every_s=every_s,
            )
        return tmp_path / "run"

    return begin


def rows(folder: Path, marked_rows: Any, write_csv: Any, changed: int | None = None) -> Path:
    made = marked_rows(80)
    if changed is not None:
        made[changed] = ("other words stand here now w1 w2 w3", made[changed][1])
    path: Path = write_csv(folder / "rows.csv", made)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("side", ["train", "valid", "test"])
def test_rows_that_changed_meanwhile_are_refused(
    start: Any, tmp_path: Path, marked_rows: Any, write_csv: Any, side: str
) -> None:
    from holdfast.prepare.rows import load_and_divide

    source = rows(tmp_path, marked_rows, write_csv)
    run = start(source)
    records = load_and_divide(override(Recipe(), [f"data.path={source}"])).splits.records
    place = records["split"].to_pylist().index(side)
    rows(tmp_path, marked_rows, write_csv, changed=records["row"][place].as_py())
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    with pytest.raises(RunError, match="different rows than its source now has"):
        train(Recipe(), run, resume=True)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_test_rows_in_a_file_of_their_own_may_not_change_either(
    start: Any, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    held = write_csv(tmp_path / "held.csv", marked_rows(30, seed=5))
    run = start(rows(tmp_path, marked_rows, write_csv), 8, 0.0, f"data.test={held}")
    write_csv(held, marked_rows(30, seed=6))
    with pytest.raises(RunError, match="different rows than its source now has"):
        train(Recipe(), run, resume=True)


def test_a_base_model_that_changed_meanwhile_is_refused(
    start: Any, tmp_path: Path, tiny_model: Path, marked_rows: Any, write_csv: Any
) -> None:
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    source = rows(tmp_path, marked_rows, write_csv)
    start(source, 8, 0.0, f"model.name={base}", "train.folds=0")
    weights = load_file(base / "model.safetensors")
    changed = {name: value * 1.5 for name, value in weights.items()}
    save_file(changed, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match="different weights than its base model now has"):
        train(Recipe(), tmp_path / "run", resume=True)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    train(Recipe(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_run_without_a_checkpoint_starts_anew(
    start: Any, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    run = start(rows(tmp_path, marked_rows, write_csv), 3, 1e9)
    assert not list((run / "checkpoints").glob("*.pt"))
    result = train(Recipe(), run, resume=True)
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    looks = [line["step"] for line in lines if line["event"] == "snapshot"]
    assert looks == sorted(set(looks))
    assert looks[-1] == result["last_step"]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_aloud(
    start: Any, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    run = start(rows(tmp_path, marked_rows, write_csv))
    newest = sorted((run / "checkpoints").glob("step-*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    told: list[str] = []
    with decisions_to(lambda item: told.append(f"{item}")):
        train(Recipe(), run, resume=True)
    assert any(f"{newest.name} is damaged" in line for line in told)


@pytest.mark.slow
def test_settings_are_those_that_the_run_began_with(
    start: Any, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    run = start(rows(tmp_path, marked_rows, write_csv))
    told: list[Any] = []
    other = override(Recipe(), ["train.epochs=50", "seed=9"])
    with decisions_to(told.append):
        result = train(other, run, resume=True)
    assert result["seed"] == 0
    assert result["settings"]["train"]["epochs"] == 3
    assert [item.because for item in told if getattr(item, "what", "") == "resumed"] == [
        "all settings are those in its recipe.yaml; settings given now are ignored"
    ]


@pytest.mark.slow
def test_a_run_named_in_place_of_its_rows_is_told_how_it_goes_on(
    start: Any, tmp_path: Path, marked_rows: Any, write_csv: Any, holdfast: Any
) -> None:
    run = start(rows(tmp_path, marked_rows, write_csv))
    (tmp_path / "my runs").mkdir()
    run = run.rename(tmp_path / "my runs" / "one")
    refused = holdfast("train", "--resume", run)
    assert refused.code == 2
    assert "is the folder of a run" in refused.err
    (command,) = [line for line in refused.err.splitlines() if "Continue it with: " in line]
    words = shlex.split(command.partition("Continue it with: holdfast ")[2])
    assert holdfast(*words).code == 0
    assert (run / "result.json").exists()


def test_a_folder_that_is_no_run_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(RunError, match="is not a run"):
        train(Recipe(), tmp_path / "photos", resume=True)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


@pytest.mark.slow
def test_off_never_stops_and_still_restores_the_best(
    marked_csv: Path, quick: list[str], tmp_path: Path
) -> None:
    settings = [
        *quick,
        "control.policy=off",
        "train.patience=1",
        "train.learning_rate=0.05",
        "methods.contrast=false",
        "train.epochs=4",
        "train.metric=loss",
    ]
    result = train(override(Recipe(), [f"data.path={marked_csv}", *settings]), tmp_path / "run")
    assert result["last_step"] == 28
    assert result["actions"] == []
    lines = [
        json.loads(line)
        for line in (tmp_path / "run" / "events.jsonl").read_text().split("\n")
        if line
    ]
    losses = {x["step"]: x["valid_loss"] for x in lines if x["event"] == "snapshot"}
    assert losses[result["best_step"]] == min(losses.values())
    assert result["best_step"] != result["last_step"]
