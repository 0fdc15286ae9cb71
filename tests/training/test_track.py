"""What a run logs, in a tracker: everything once, and only when asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.kills import KillAt

from holdfast.core.decisions import record_decisions
from holdfast.core.errors import MachineError, RecipeError
from holdfast.core.records import Decision, Verdict
from holdfast.pipeline.main import train
from holdfast.recipe import Recipe, override
from holdfast.training.listeners.trackers import (
    check_trackers,
    flatten,
    make_tracker,
    verdict_values,
)


def read(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tracking" / "tensorboard"), {"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def looks(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "snapshot"]


@pytest.mark.slow
def test_a_killed_and_resumed_run_stands_in_tensorboard_once(
    tmp_path: Path, marked_csv: Path, quick: list[str], killed: Any
) -> None:
    recipe = override(
        Recipe(),
        [
            f"data.path={marked_csv}",
            *quick,
            "track.to=tensorboard",
            "train.evaluations=4",
            "train.max_steps=8",
        ],
    )
    run = tmp_path / "run"
    with pytest.raises(killed):
        # Without a checkpoint the looks at steps 0 and 3 are taken a second time.
        train(recipe, run, listeners=[KillAt("step_done", 7, killed)], checkpoint_every_s=1e9)
    result = train(recipe, run, resume=True)
    written, shown = looks(run), read(run)
    assert len(written) == 3
    for tag, value in {
        "train/loss": lambda x: x["train_loss"],
        "valid/loss": lambda x: x["valid_loss"],
        "valid/refined_loss": lambda x: x["refined_loss"],
        "valid/accuracy": lambda x: x["valid_metrics"]["accuracy"],
        "run/learning_rate": lambda x: x["learning_rate"],
    }.items():
        events = shown.Scalars(tag)
        assert [event.step for event in events] == [look["step"] for look in written]
        assert [e.value for e in events] == pytest.approx([value(look) for look in written])
    # One for each update, but those that the killed process had not sent yet and did not repeat.
    steps = [event.step for event in shown.Scalars("train/step_loss")]
    assert steps == sorted(set(steps))
    assert set(range(4, 9)) <= set(steps) <= set(range(1, 9))
    words = shown.Tensors("verdict/label/text_summary")
    assert Counter(event.step for event in words) == Counter(look["step"] for look in written)
    assert words[-1].tensor_proto.string_val[0].decode() == result["verdict"]["label"]
    (score,) = shown.Scalars("test/accuracy")
    assert score.value == pytest.approx(result["test"]["metrics"]["accuracy"]["value"])


def test_nothing_is_sent_unless_asked(finished_run: Path) -> None:
    assert not (finished_run / "tracking").exists()


def test_an_absent_package_is_named_with_its_command(monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"needs the package wandb(?s:.*)pip install wandb"):
        check_trackers(["wandb"])
    with pytest.raises(MachineError, match=r"holdfast\[tensorboard\]"):
        check_trackers(["tensorboard"])


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"track\.to"):
        override(Recipe(), ["track.to=[comet]"])


def test_wandb_and_mlflow_go_on_with_their_run_after_a_resume(tmp_path: Path) -> None:
    """Through Accelerate's classes, which read the package only when they start."""
    known = {"id": "abc", "mlflow": "def"}
    wandb = make_tracker("wandb", "mine", "first", tmp_path, known)
    mlflow = make_tracker("mlflow", "mine", "first", tmp_path, known)
    assert (wandb.name, wandb.run_name) == ("wandb", "mine")
    assert (wandb.init_kwargs["id"], wandb.init_kwargs["resume"]) == ("abc", "allow")
    assert (mlflow.name, mlflow.experiment_name, mlflow.run_id) == ("mlflow", "mine", "def")


def test_a_path_is_sent_by_its_last_part_alone(tmp_path: Path) -> None:
    sent = flatten(
        {
            "data": {
                "path": str(tmp_path / "rows.csv"),
                "text": ["a"],
                "mix": [{"path": str(tmp_path / "more.csv"), "weight": 2.0}],
            },
            "seed": 1,
            "distill": {"teacher": [str(tmp_path / "big"), "org/small"]},
            "train": {"metric": f"{tmp_path / 'own'}.py:cost"},
        }
    )
    assert sent == {
        "data.path": "rows.csv",
        "data.text": "['a']",
        "data.mix": "[{'path': 'more.csv', 'weight': 2.0}]",
        "seed": 1,
        "distill.teacher": "['big', 'org/small']",
        "train.metric": "own.py:cost",
    }


@pytest.mark.parametrize("failing", ["log", "finish"])
def test_a_run_goes_on_without_a_tracker_that_fails(
    tmp_path: Path, marked_csv: Path, quick: list[str], monkeypatch: Any, failing: str
) -> None:
    from accelerate.tracking import TensorBoardTracker

    calls = []

    def fail(*_: object, **__: object) -> None:
        calls.append(failing)
        raise OSError("https://user:password@host")

    monkeypatch.setattr(TensorBoardTracker, failing, fail)
    settings = [f"data.path={marked_csv}", *quick, "track.to=tensorboard", "train.max_steps=4"]
    run = tmp_path / "run"
    with record_decisions() as decisions:
        result = train(override(Recipe(), settings), run)
    assert result["test"]["metrics"]
    assert calls == [failing]
    (told,) = [one for one in decisions if one.what == "tensorboard"]
    assert isinstance(told, Decision)
    assert told.prominent
    assert told.because == "it failed with OSError; the run continues without it"
    assert ("it failed with OSError" in (run / "events.jsonl").read_text()) == (failing == "log")


def test_a_tracker_that_cannot_start_is_named_before_the_first_step(
    tmp_path: Path, marked_csv: Path, quick: list[str], monkeypatch: Any
) -> None:
    from accelerate.tracking import TensorBoardTracker

    def refuse(_: object) -> None:
        raise ConnectionError("no server at port 5000")

    monkeypatch.setattr(TensorBoardTracker, "start", refuse)
    settings = [f"data.path={marked_csv}", *quick, "track.to=tensorboard"]
    with pytest.raises(MachineError, match=r"tensorboard, which failed to start .*port 5000"):
        train(override(Recipe(), settings), tmp_path / "run")
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_a_verdict_is_words_and_a_place_in_the_contracts_list() -> None:
    sent = verdict_values(Verdict("overfit", "it rose", 0.9))
    assert sent == {
        "verdict/label": "overfit",
        "verdict/because": "it rose",
        "verdict/number": 3.0,
        "verdict/confidence": 0.9,
    }


def test_a_broken_mark_is_refused_with_the_way_out(tmp_path: Path) -> None:
    from holdfast.core.errors import RunError
    from holdfast.training.listeners.trackers import read_mark

    mark = tmp_path / "tracked.json"
    for odd in ("", "[]", "{}", '{"id": 3}', '{"id": "a", "step": "x"}', "[" * 100_000):
        mark.write_text(odd)
        with pytest.raises(RunError, match=r"tracked\.json") as caught:
            read_mark(mark)
        assert "Delete it" in caught.value.remedy
    mark.write_text('{"id": "a", "step": 3, "scored": true}')
    assert read_mark(mark) == {"id": "a", "step": 3, "scored": True}


# The packages need other versions than the pinned ones; docs/testing.md has the commands.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tracker", ["mlflow", "trackio", "wandb"])
def test_a_killed_and_resumed_run_is_in_a_tracker_once(
    tmp_path: Path,
    marked_csv: Path,
    quick: list[str],
    killed: Any,
    monkeypatch: Any,
    capfd: Any,
    request: pytest.FixtureRequest,
    tracker: str,
) -> None:
    pytest.importorskip(tracker)
    from holdfast.plugins.logs.reader import read_log

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    settings = [f"data.path={marked_csv}", *quick, f"track.to={tracker}", "train.max_steps=8"]
    recipe = override(Recipe(), [*settings, "train.evaluations=4"])
    run = tmp_path / "run"
    if tracker == "wandb":
        import wandb

        request.addfinalizer(wandb.teardown)
    if tracker == "trackio":
        import trackio.utils

        monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
        monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    with pytest.raises(killed):
        train(recipe, run, listeners=[KillAt("step_done", 7, killed)], checkpoint_every_s=1e9)
    result = train(recipe, run, resume=True)
    assert not capfd.readouterr().out
    files = {
        "mlflow": [tmp_path / "mlflow.db"],
        "trackio": [tmp_path / "trackio" / "holdfast.db"],
        "wandb": sorted(run.glob("tracking/wandb/offline-run-*")),
    }[tracker]
    # W&B writes a file for each process that continues a run; its server joins them.
    assert len(files) == (2 if tracker == "wandb" else 1)
    sent = [read_log(file).columns for file in files]
    steps = [step for one in sent for step in one["valid/loss"].positions.tolist()]
    losses = [loss for one in sent for loss in one["valid/loss"].values.tolist()]
    written = looks(run)
    assert steps == [look["step"] for look in written]
    assert losses == pytest.approx([look["valid_loss"] for look in written])
    (score,) = [one["test/accuracy"].values.tolist() for one in sent if "test/accuracy" in one]
    assert score == pytest.approx([result["test"]["metrics"]["accuracy"]["value"]])
    if tracker == "wandb":
        for file in run.glob("tracking/wandb/offline-run-*/*.wandb"):
            assert str(tmp_path).encode() not in file.read_bytes()
