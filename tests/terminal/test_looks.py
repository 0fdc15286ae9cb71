"""A look in a line: named columns, and "best" only where nothing that is shown got worse."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.core.records import Snapshot
from holdfast.methods.closed_form import HeadRefit
from holdfast.terminal.evaluations import best_mark, evaluation_row, heading
from holdfast.terminal.progress import RunDisplay, expected_seconds

LOOK = Snapshot(
    step=0,
    epoch=0.0,
    examples_seen=0,
    phase="finetune",
    train_losses=np.ones(3),
    valid_losses=np.ones(3),
    train_metrics={},
    valid_metrics={},
    refined_loss=1.0,
    temperature=1.0,
    learning_rate=1e-4,
    gradient_norm=None,
    relative_update=None,
    distance=None,
    seconds=0.0,
)


def look(loss: float, tempered: float, accuracy: float, step: int = 0) -> Snapshot:
    return replace(
        LOOK,
        step=step,
        valid_losses=np.full(3, loss),
        refined_loss=tempered,
        valid_metrics={"accuracy": accuracy},
    )


FIRST = look(1.0, 0.9, 0.6)


@pytest.mark.parametrize(
    ("then", "said"),
    [
        (look(0.9, 0.8, 0.7), "best"),
        (look(1.0, 0.8, 0.6), "best"),  # level in two of three
        (look(1.0, 0.9, 0.6), "kept (newest)"),  # level in all that is shown
        (look(1.2, 0.8, 0.7), "best calibrated"),  # the raw loss got worse
        (look(0.9, 0.8, 0.5), "best calibrated"),  # accuracy got worse
        (look(1.2, 1.0, 0.7), "best accuracy"),
        (look(0.8, 1.0, 0.5), "best loss"),
        (look(1.2, 1.0, 0.5), "kept (newest)"),
    ],
)
def test_best_is_said_only_of_what_is_best(then: Snapshot, said: str) -> None:
    assert best_mark([FIRST, then]) == said


def test_best_is_against_every_earlier_look_not_the_last() -> None:
    assert best_mark([look(0.5, 0.5, 0.9), FIRST, look(0.9, 0.8, 0.8)]).startswith("kept")


def test_a_number_that_is_none_decides_nothing() -> None:
    without = replace(LOOK, valid_losses=np.empty(0), refined_loss=float("nan"))
    assert best_mark([without, replace(without, step=5)]) == "kept (newest)"
    assert "–" in evaluation_row([without], 10, is_best=False)


def test_the_columns_stand_under_their_names_within_eighty() -> None:
    above, names = heading(FIRST)
    last = look(1.2345, 0.98765, 0.7, 1234)
    line = evaluation_row([FIRST, last], 12_345, True, "1 h 02 min")
    plain = line.partition("  best")[0]
    assert plain.split()[:6] == ["1234/12345", "1.000", "1.234", "0.988", "70.0", "%"]
    for name, value in (
        ("step", "12345"),
        ("calibrated", "0.988"),
        ("accuracy", "70.0 %"),
        ("left", "1 h 02 min"),
    ):
        assert names.index(name) + len(name) == plain.index(value) + len(value)
    assert above.index("train") + len("train") == plain.index("1.000") + len("1.000")
    assert max(map(len, (above, names, line))) <= 80


@pytest.mark.parametrize("then", [look(1.2, 1.0, 0.5, 12_345), look(0.9, 0.8, 0.5, 12_345)])
def test_the_longest_line_fits_into_eighty_columns(then: Snapshot) -> None:
    assert 70 < len(evaluation_row([FIRST, then], 12_345, True, "59 min 59 s")) <= 80


def test_without_a_temperature_there_is_no_column_that_repeats_the_loss() -> None:
    first = replace(FIRST, refined_loss=FIRST.valid_loss)
    then = replace(first, step=5)
    assert "calibrated" not in " ".join(heading(first))
    assert evaluation_row([first, then], 75, is_best=True, left="1 min 12 s").split() == [
        *("5/75", "1.000", "1.000", "60.0", "%"),
        *("1", "min", "12", "s", "kept", "(newest)"),
    ]


def test_the_time_that_is_left_stands_apart_however_long_it_is() -> None:
    line = evaluation_row([FIRST, replace(FIRST, step=5)], 75, is_best=False, left="59 min 59 s")
    assert "60.0 % 59 min 59 s" in line


def test_the_first_look_is_not_called_the_best() -> None:
    assert evaluation_row([FIRST], 75, is_best=True).split() == [
        "0/75",
        "1.000",
        "1.000",
        "0.900",
        "60.0",
        "%",
    ]


def run_of(
    *, others: Any = None, passed: int = 60, refits: int = 0, listeners: tuple[Any, ...] = ()
) -> Any:
    phases = [
        SimpleNamespace(rows_passed=2 * 80),  # a two-pass step passes its rows twice
        SimpleNamespace(rows_passed=40),
    ]
    plan = SimpleNamespace(phases=phases, evaluate_at=(0, 5, 10, 15), probe_rows=30, refits=refits)
    observer = SimpleNamespace(rows_passed=passed, seconds=0.01 * passed)
    several = SimpleNamespace(num_processes=2)
    job = SimpleNamespace(
        train=range(70),
        added_examples=range(10),
        valid=range(30),
        overhead_s=others,
        accelerator=several,
        listeners=listeners,
    )
    return SimpleNamespace(plan=plan, job=job, observer=observer)


def test_of_several_processes_a_trained_row_is_three_forward_and_looks_follow() -> None:
    """10 ms a row forward, 30 ms trained; 200 rows are trained, three looks of 60 rows follow.
    How many rows were passed before, by a probe or a look, changes nothing."""
    for passed in (60, 2000):
        assert expected_seconds(run_of(passed=passed)) == pytest.approx((200 * 0.03 + 3 * 0.6, 0))


def test_what_follows_the_last_step_is_part_of_it_and_nothing_is_told_of_no_row() -> None:
    scored = run_of(others=lambda a_row: 500 * a_row + 7)
    assert expected_seconds(scored) == pytest.approx((200 * 0.03 + 3 * 0.6, 5 + 7))
    assert expected_seconds(run_of(passed=0)) is None


def test_a_look_that_refits_the_head_passes_every_training_row_and_fits_it() -> None:
    """Two of three looks pass 70 rows, the 10 beside them and 30 for validation, the third 60."""
    refit = HeadRefit(lambda *_, **__: None, first=True)  # type: ignore[arg-type,return-value]
    refit.seconds = 0.7
    seconds = expected_seconds(run_of(refits=2, listeners=(object(), refit)))
    assert seconds == pytest.approx((200 * 0.03 + 2 * 1.1 + 0.6 + 2 * 0.7, 0))


def test_of_one_process_updates_are_timed_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of()
    run.job.accelerator.num_processes = 1
    monkeypatch.setattr("holdfast.training.step.seconds_of_updates", lambda given: 42.0)
    assert expected_seconds(run) == pytest.approx((42 + 3 * 0.6, 0))


@pytest.mark.parametrize(("at_the_time", "shown"), [(None, "5/60"), (12, "5/12")])
def test_an_evaluation_stands_beside_the_plan_of_its_time(
    at_the_time: int | None, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The decision after it has cut the plan to this step already."""
    last = replace(look(0.9, 0.9, 0.7, 5), planned_steps=at_the_time)
    run: Any = SimpleNamespace(
        step=5,
        examples_seen=50,
        plan=SimpleNamespace(steps=5),
        job=SimpleNamespace(plan=SimpleNamespace(steps=60)),
        history=[FIRST, last],
        last_snapshot=last,
        best=last,
        verdict=None,
        guard=SimpleNamespace(actions=[]),
    )
    RunDisplay(quiet=False).snapshot_taken(run)
    assert capsys.readouterr().err.splitlines()[-1].split()[0] == shown
