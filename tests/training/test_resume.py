"""A run that was killed and continued is the run that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.kills import KillAt

from holdfast.control.stop_rules import Patience
from holdfast.core.events import EVENTS
from holdfast.core.records import Snapshot
from holdfast.methods.closed_form import HeadRefit
from holdfast.methods.contrast import ClassBatches, ContrastTerm
from holdfast.models.probes.probe import fit_probe
from holdfast.training.loop import TrainingResult, fit
from holdfast.training.run import Job


def two_phases(build: Any, phase: Any, folder: Path, *more: Any, **changes: Any) -> Job:
    """Contrast with a refitted head, then fine-tuning with dropout and a plateau: all there is
    to remember."""
    contrast = {"source": ClassBatches(), "terms": (ContrastTerm(),), "head": "refit"}
    phases = (
        phase(name="contrast", steps=4, **contrast),
        phase(name="finetune", steps=8, schedule="plateau", warmup=0.2, accumulate=2),
    )
    refit = HeadRefit(lambda x, y: fit_probe(x, y, classes=2, seed=0, c=0.1), first=True)
    settings: dict[str, Any] = {
        "phases": phases,
        "dropout": 0.2,
        "evaluate_at": (0, 2, 4, 7, 9, 12),
        "listeners": (refit, *more),
        "advisor": Patience(None, lambda snapshot: snapshot.refined_loss),
    }
    made: Job = build(folder, **(settings | changes))
    return made


def journal(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def numbers(snapshot: Snapshot) -> list[Any]:
    return [
        snapshot.step,
        snapshot.refined_loss,
        *snapshot.train_losses,
        *snapshot.valid_losses,
        snapshot.learning_rate,
        snapshot.gradient_norm,
        snapshot.relative_update,
        snapshot.distance,
        snapshot.examples_seen,
    ]


def same(one: tuple[Job, TrainingResult, Path], two: tuple[Job, TrainingResult, Path]) -> None:
    for a, b in zip(one[0].network.parameters(), two[0].network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [numbers(s) for s in one[1].history] == [numbers(s) for s in two[1].history]
    assert (one[1].best_step, one[1].last_step) == (two[1].best_step, two[1].last_step)
    assert one[1].stopped_because == two[1].stopped_because
    assert one[1].actions == two[1].actions
    assert one[1].examples_seen == two[1].examples_seen
    assert journal(one[2]) == journal(two[2])


@pytest.fixture(scope="module")
def undisturbed(job: Any, phase: Any, tmp_path_factory: Any) -> tuple[Job, TrainingResult, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    made = two_phases(job, phase, folder)
    return made, fit(made), folder


MOMENTS = [
    (event, count)
    for event in EVENTS
    for count in (1, 5)
    if not (event in ("run_start", "run_end") and count > 1)
]


@pytest.mark.parametrize(("event", "count"), MOMENTS)
@pytest.mark.parametrize("every_s", [0.0, 1e9])
def test_killed_at_any_event_and_resumed_it_ends_the_same(
    job, phase, tmp_path: Path, undisturbed, killed, event: str, count: int, every_s: float
) -> None:
    kill = KillAt(event, count, killed)
    try:
        fit(two_phases(job, phase, tmp_path, kill, every_s=every_s))
    except killed:
        again = two_phases(job, phase, tmp_path, every_s=every_s)
        same((again, fit(again, resume=True), tmp_path), undisturbed)
    else:
        assert kill.left > 0, "the kill was swallowed"
        assert event in (
            "phase_start",
            "epoch_start",
            "epoch_end",
            "snapshot_due",
            "snapshot_taken",
        )


def test_a_checkpoint_after_every_step_is_what_zero_seconds_mean(
    job, phase, tmp_path: Path, killed
) -> None:
    with pytest.raises(killed):
        fit(two_phases(job, phase, tmp_path, KillAt("step_done", 6, killed)))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00000004.pt", "step-00000005.pt"]


def test_a_run_killed_twice_ends_the_same(job, phase, tmp_path, undisturbed, killed) -> None:
    for resume, count in ((False, 3), (True, 4)):
        with pytest.raises(killed):
            fit(two_phases(job, phase, tmp_path, KillAt("step_done", count, killed)), resume)
    again = two_phases(job, phase, tmp_path)
    same((again, fit(again, resume=True), tmp_path), undisturbed)


def test_patience_goes_on_counting_after_a_resume(job, phase, tmp_path: Path, killed) -> None:
    """The value never improves after step 0: four looks later the run stops, not later."""

    def made(folder: Path, *more: Any) -> Job:
        return two_phases(
            job,
            phase,
            folder,
            *more,
            criterion=lambda s: float(s.step),
            advisor=Patience(4, lambda s: float(s.step)),
        )

    whole = made(tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    expected = fit(whole)
    assert expected.last_step == 9
    (tmp_path / "cut").mkdir()
    with pytest.raises(killed):
        fit(made(tmp_path / "cut", KillAt("step_done", 8, killed)))
    again = made(tmp_path / "cut")
    same((again, fit(again, True), tmp_path / "cut"), (whole, expected, tmp_path / "whole"))


def test_a_run_stopped_in_its_first_phase_can_be_resumed_when_finished(
    job, phase, tmp_path: Path
) -> None:
    """Killed while the test rows were scored: the checkpoint is that of a finished loop."""
    first = two_phases(job, phase, tmp_path, max_minutes=1e-9)
    one = fit(first)
    assert one.last_step == 1
    again = two_phases(job, phase, tmp_path, max_minutes=1e-9)
    same((again, fit(again, True), tmp_path), (first, one, tmp_path))


def test_resume_without_a_checkpoint_starts_anew_and_says_nothing_twice(
    job, phase, tmp_path: Path, undisturbed, killed
) -> None:
    with pytest.raises(killed):
        fit(two_phases(job, phase, tmp_path, KillAt("step_done", 3, killed), every_s=1e9))
    assert journal(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    again = two_phases(job, phase, tmp_path)
    same((again, fit(again, resume=True), tmp_path), undisturbed)


def test_a_resume_may_have_other_listeners(job, phase, tmp_path, undisturbed, killed, recorder):
    with pytest.raises(killed):
        fit(two_phases(job, phase, tmp_path, KillAt("step_done", 6, killed)))
    again = two_phases(job, phase, tmp_path, recorder)
    same((again, fit(again, resume=True), tmp_path), undisturbed)
    assert "run_start" in recorder.heard


def test_other_frozen_weights_than_the_checkpoint_s_are_a_defect(
    job, phase, tmp_path: Path, killed
) -> None:
    from holdfast.core.errors import Defect

    with pytest.raises(killed):
        fit(two_phases(job, phase, tmp_path, KillAt("step_done", 6, killed)))
    again = two_phases(job, phase, tmp_path)
    with torch.no_grad():
        again.network.words.weight.add_(1.0)
    with pytest.raises(Defect, match="frozen weights"):
        fit(again, resume=True)
