"""``--resume`` on a run whose files were damaged after it was killed: what can be known again is,
what cannot is said, and the weights and the score are those of a run that was left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.kills import KillAt

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import InputError, RunError
from holdfast.core.records import Decision
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.training.checkpoint import write_sealed

BEGUN, EVENTS = "checkpoints/begun.json", "events.jsonl"


@pytest.fixture(scope="module")
def asked(marked_csv: Path, quick: list[str]) -> Recipe:
    return override(Recipe(), [f"data.path={marked_csv}", *quick, "train.max_steps=8"])


@pytest.fixture(scope="module")
def alone(asked: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(asked, folder)
    return folder


@pytest.fixture(scope="module")
def cut(asked: Recipe, tmp_path_factory: pytest.TempPathFactory, killed: Any) -> Path:
    """A run that was killed at step 6, with two checkpoints."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(killed):
        train(asked, folder, listeners=(KillAt("step_done", 6, killed),), checkpoint_every_s=0.0)
    assert len(list((folder / "checkpoints").glob("*.pt"))) == 2
    return folder


@pytest.fixture
def again(cut: Path, tmp_path: Path) -> Callable[[Callable[[Path], Any]], list[Decision]]:
    """Damage a copy, continue it, and give what was told of it."""

    def resume(damage: Callable[[Path], Any]) -> list[Decision]:
        told: list[Any] = []
        shutil.copytree(cut, tmp_path / "run")
        damage(tmp_path / "run")
        with decisions_to(told.append):
            train(Recipe(), tmp_path / "run", resume=True)
        return [one for one in told if isinstance(one, Decision)]

    return resume


def flip(path: Path, seed: int = 0) -> None:
    random, data = np.random.default_rng(seed), bytearray(path.read_bytes())
    data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    path.write_bytes(data)


def newest(run: Path, back: int = 0) -> Path:
    return sorted((run / "checkpoints").glob("step-*.pt"))[-1 - back]


def same(run: Path, alone: Path, decisions: bool = True, moved: bool = False) -> None:
    """The model, the tables and the score are those of the run that was left alone."""
    tables = () if moved else ("splits.parquet",)
    for name in ("model/model.safetensors", "predictions.parquet", *tables):
        marks = [hashlib.sha256((x / name).read_bytes()).hexdigest() for x in (run, alone)]
        assert marks[0] == marks[1], name
    found, wanted = (json.loads((x / "result.json").read_text("utf-8")) for x in (run, alone))
    for name in ("test", "valid", "verdict", "best_step", "last_step", "baseline"):
        for block in (found, wanted):
            block["test"].pop("opened_at", None)
        assert found[name] == wanted[name], name
    if decisions:
        kept = [[d["what"] for d in block["decisions"]] for block in (found, wanted)]
        assert kept[0] == kept[1]


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / EVENTS).read_text("utf-8").splitlines()]


@pytest.mark.slow
def test_a_newest_checkpoint_a_journal_and_a_beginning_that_were_damaged(
    again: Any, alone: Path, tmp_path: Path
) -> None:
    """All three at once: what each was comes from the older checkpoint."""
    names: list[str] = []

    def damage(run: Path) -> None:
        names.append(newest(run).name)
        flip(newest(run))
        (run / EVENTS).unlink()
        BEGINNINGS["torn"](run / BEGUN)

    told = {one.what: one for one in again(damage)}
    assert f"{names[0]} is damaged" in told["checkpoint"].because
    assert told["begun.json"].chosen == "restored from a checkpoint"
    assert told["journal"].chosen == "written again"
    same(tmp_path / "run", alone)
    noted = {line.get("what"): line.get("because") for line in journal(tmp_path / "run")}
    assert noted["checkpoint"] == told["checkpoint"].because
    assert noted["journal"] == told["journal"].because
    lines = [
        x["event"]
        for x in journal(tmp_path / "run")
        if x.get("what") not in ("journal", "checkpoint")
    ]
    assert lines == [line["event"] for line in journal(alone)]


def test_a_torn_last_line_is_nobodys_loss(again: Any, alone: Path, tmp_path: Path) -> None:
    def tear(run: Path) -> None:
        with (run / EVENTS).open("ab") as file:
            file.write(b'{"event": "no')

    assert "journal" not in [one.what for one in again(tear)]
    same(tmp_path / "run", alone)
    found, wanted = ([x["event"] for x in journal(y)] for y in (tmp_path / "run", alone))
    assert found == wanted


def test_all_checkpoints_damaged_is_refused_and_nothing_is_lost(again: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint that can be used"):
        again(lambda run: (flip(newest(run)), newest(run, 1).write_bytes(b"")))
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.pt"))) == 2


BEGINNINGS = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "gone": lambda path: path.unlink(),
    "a list": lambda path: path.write_text("[]"),
    "odd": lambda path: path.write_text('{"rows": 3, "findings": {}, "decisions": null}'),
    "deep": lambda path: path.write_text("[" * 100_000),
    "changed": lambda path: path.write_text(path.read_text().replace('s": "', 's": "0')),
}


@pytest.mark.parametrize("damage", sorted(BEGINNINGS))
def test_any_broken_beginning_is_seen(cut: Path, tmp_path: Path, damage: str) -> None:
    from holdfast.runs.start import _read

    path = Path(shutil.copy(cut / BEGUN, tmp_path / "begun.json"))
    sound, wrong = _read(path)
    assert wrong is None
    assert {"rows", "findings", "decisions", "settings"} <= sound.keys()
    BEGINNINGS[damage](path)
    assert _read(path)[1]


@pytest.mark.slow
def test_without_checkpoint_and_beginning_it_starts_anew_and_says_what_is_lost(
    again: Any, alone: Path, tmp_path: Path
) -> None:
    told = again(lambda run: shutil.rmtree(run / "checkpoints"))
    said = [one for one in told if one.what == "begun.json"]
    assert [one.chosen for one in said] == ["recreated"]
    assert "cannot be checked" in said[0].because
    same(tmp_path / "run", alone, decisions=False)


def test_another_runs_checkpoint_is_not_used(again: Any, tmp_path: Path) -> None:
    def swap(run: Path) -> None:
        state = torch.load(newest(run), weights_only=True)
        for path in (run / "checkpoints").glob("*.pt"):
            path.unlink()
        write_sealed(run / "checkpoints" / f"step-{state['step']:08d}.pt", state, "other rows")

    with pytest.raises(RunError, match="belongs to another run"):
        again(swap)


RECIPES = {
    "empty": lambda text: "",
    "torn": lambda text: text[: len(text) // 2],
    "a value": lambda text: text.replace("max_steps: 8", "max_steps: 9"),
    "a list": lambda text: "- 1\n",
    "deep": lambda text: "[" * 20_000,
    "bytes": lambda text: "\0",
}


@pytest.mark.parametrize("damage", sorted(RECIPES))
def test_a_broken_recipe_is_refused(again: Any, tmp_path: Path, damage: str) -> None:
    def change(run: Path) -> None:
        path = run / "recipe.yaml"
        assert RECIPES[damage](path.read_text()) != path.read_text()
        path.write_text(RECIPES[damage](path.read_text()))

    with pytest.raises(InputError, match=r"recipe\.yaml") as caught:
        again(change)
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.pt"))) == 2


@pytest.mark.slow
def test_rows_may_move_and_a_result_that_is_broken_before_the_report_is_made_again(
    cut: Path,
    alone: Path,
    marked_csv: Path,
    tmp_path: Path,
    killed: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import holdfast.pipeline.main as main

    def die(*_: Any) -> None:
        raise killed

    run = Path(shutil.copytree(cut, tmp_path / "run"))
    moved = Path(shutil.copy(marked_csv, tmp_path / "moved.csv"))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace(str(marked_csv), str(moved)))
    with monkeypatch.context() as patch:
        patch.setattr(main, "write_pages", die)
        with pytest.raises(killed):
            train(Recipe(), run, resume=True)
    with (run / EVENTS).open("a") as file:
        file.write('{"event": "no')
    told: list[Any] = []
    with decisions_to(told.append):
        train(Recipe(), run, resume=True)
    assert "result.json" in [getattr(one, "what", "") for one in told]
    same(run, alone, moved=True)
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_rows_in_memory_whose_file_is_broken(
    marked_rows: Any, quick: list[str], tmp_path: Path, killed: Any
) -> None:
    import pyarrow as pa

    texts, labels = zip(*marked_rows(60), strict=True)
    held = {"data": pa.table({"text": list(texts), "label": list(labels)})}
    run, recipe = tmp_path / "run", override(Recipe(), [*quick, "train.max_steps=2"])
    with pytest.raises(killed):
        train(recipe, run, in_memory=held, listeners=(KillAt("run_start", 1, killed),))
    path = run / "data.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"data\.parquet") as caught:
        train(recipe, run, in_memory=held, resume=True)
    assert "Delete it" in caught.value.remedy
    path.unlink()
    assert train(recipe, run, in_memory=held, resume=True)["test"]["n"] > 0
