"""A whole run that goes back and takes another way: what its files and its page say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.kills import KillAt

import holdfast.fits.fit as job_module
from holdfast.core.actions import Action, Freeze, RollBack, ScaleLearningRate, SetDropout
from holdfast.core.records import Snapshot, Verdict, to_json
from holdfast.fits.policies import checkpoint_rule
from holdfast.models.compute.prefix import train_mode
from holdfast.pipeline.main import train
from holdfast.plugins.logs.holdfast_run import run_verdict
from holdfast.recipe import Recipe, override
from holdfast.report.run_files import read_run


class Once:
    """Goes back from its fourth look to its second, once, and on with a third of the rate, more
    dropout and its first layers frozen."""

    def __init__(self) -> None:
        self.looks, self.back_to = 0, -1

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        self.looks += 1
        if self.looks == 2:
            self.back_to = history[-1].step
        if self.looks != 4:
            return ()
        return (
            RollBack("a test wants it", self.back_to),
            ScaleLearningRate("a test wants it", 1 / 3),
            SetDropout("a test wants it", 0.3),
            # A network that is frozen from its front on draws no dropout there.
            Freeze("a test wants it", ("embeddings", "block.0")),
        )

    def restore_points(self, history: Sequence[Snapshot]) -> tuple[int, ...]:
        return (self.back_to,)

    def rolled_back(self, state: dict[str, Any]) -> None:
        assert state["looks"] == 2

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks, "back_to": self.back_to}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.looks, self.back_to = state["looks"], state["back_to"]


class ModesOf:
    """Which modules train, right after the actions, and what a resumed run would say of it."""

    name = "modes"

    def __init__(self) -> None:
        self.found: tuple[list[bool], list[bool]] | None = None
        self.looks = 0

    def batch_ready(self, run: Any) -> None:
        if run.adjustments.frozen and self.found is None and run.network.training:
            as_it_is = [module.training for module in run.network.modules()]
            train_mode(run.network)
            self.found = (as_it_is, [module.training for module in run.network.modules()])


def events(run: Path) -> list[dict[str, Any]]:
    """What it saw, judged and did; the notes hold what was measured of the machine."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    told = [line for line in lines if line["event"] != "note"]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in told]


@pytest.fixture(scope="module")
def setting(marked_csv: Path, quick: list[str]) -> Recipe:
    told = ["train.epochs=4", "methods.contrast=false"]
    return override(Recipe(), [f"data.path={marked_csv}", *quick, *told])


def once(ready: Any, of_kind: Any, _: object, *, acts: bool = True) -> Any:
    return checkpoint_rule(ready, of_kind), Once()


@pytest.fixture(scope="module")
def went_back(setting: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("back") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "deciders", once)
        train(setting, run)
    return run


def test_the_result_names_what_was_done_and_the_looks_of_both_ways_are_written(
    went_back: Path,
) -> None:
    result = json.loads((went_back / "result.json").read_text())
    done = [action["action"] for action in result["actions"]]
    assert done == ["RollBack", "ScaleLearningRate", "SetDropout", "Freeze"]
    lines = events(went_back)
    looks = [e for e in lines if e["event"] == "snapshot"]
    steps = [look["step"] for look in looks]
    assert steps[4:6] == steps[2:4], "the two looks that it left, and theirs of the other way"
    branches = [look.get("branch", {}).get("number", 0) for look in looks]
    assert branches == [0] * 4 + [1] * (len(looks) - 4)
    (back,) = [e for e in lines if e.get("action") == "RollBack"]
    assert back["settings"]["to_step"] == steps[1]
    # The same rows were drawn after it, and a third of the rate moved the weights less.
    assert looks[4]["learning_rate"] == pytest.approx(looks[2]["learning_rate"] / 3)
    assert looks[4]["relative_update"] < looks[2]["relative_update"]


def test_what_is_frozen_from_the_front_on_draws_no_dropout_from_then_on(
    setting: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_module, "deciders", once)
    modes = ModesOf()
    train(setting, tmp_path / "run", listeners=[modes])
    assert modes.found is not None
    as_it_is, as_resumed = modes.found
    assert as_it_is == as_resumed
    assert not all(as_it_is)


def test_the_page_draws_what_the_run_left_and_the_log_is_judged_as_it_ended(
    went_back: Path,
) -> None:
    page = (went_back / "report.html").read_text("utf-8")
    assert "discarded 2 evaluations, whose curves are drawn faint" in page
    assert 'class="curve valid left"' in page
    shown = read_run(went_back)
    ended = [look["step"] for look in shown.snapshots]
    assert ended == sorted(set(ended)), "the solid curves are those of one way"
    assert [look["step"] for look in shown.left] == ended[2:4]
    result = json.loads((went_back / "result.json").read_text())
    found = run_verdict(went_back)
    assert found is not None
    assert to_json(found.verdict) == result["verdict"]
    assert found.best_step == result["best_step"]


@pytest.mark.slow
def test_killed_after_it_went_back_and_resumed_it_ends_the_same(
    went_back: Path, setting: Recipe, tmp_path: Path, killed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as parquet

    monkeypatch.setattr(job_module, "deciders", once)
    run = tmp_path / "run"
    with pytest.raises(killed):
        train(setting, run, listeners=[KillAt("snapshot_taken", 5, killed)], checkpoint_every_s=0.0)
    train(setting, run, resume=True)
    for name in ("predictions.parquet",):
        assert parquet.read_table(run / name).equals(parquet.read_table(went_back / name))
    assert events(run) == events(went_back)
