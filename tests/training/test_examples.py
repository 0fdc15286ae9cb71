"""The data map: made of the training's own losses, and whole after a kill."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from holdfast.core.errors import Interrupted
from holdfast.pipeline.main import train as train_run
from holdfast.recipe import Recipe, override
from holdfast.training.listeners.examples import ExampleHistory, evaluation_data_map
from holdfast.training.loop import fit
from holdfast.training.run import BatchLosses

Build = Callable[..., Any]


class Watch:
    """Keeps the logits of every row at every pass, in the order they came."""

    name = "watch"

    def __init__(self) -> None:
        self.logits: dict[int, list[Any]] = {}
        self.forwards = 0

    def loss_ready(self, run: Any) -> None:
        passed = run.batch_losses
        self.forwards += len(passed.rows)
        for row, line in zip(passed.rows, passed.logits.detach().numpy(), strict=True):
            self.logits.setdefault(int(row), []).append(line)


def run_with(job: Any, *more: Any) -> tuple[Any, ExampleHistory]:
    kept = ExampleHistory(job.train.rows)
    return fit(replace(job, listeners=(kept, *more))), kept


def test_the_map_is_what_brute_force_makes_of_every_pass(job: Build, phase: Build) -> None:
    watch = Watch()
    made = job(classes=3, phases=(phase(steps=25),))
    _, kept = run_with(made, watch)
    found = kept.data_map()
    assert found is not None
    for row, lines in watch.logits.items():
        own = made.train.labels[row]
        sure = softmax(np.array(lines), axis=1)[:, own]
        margins = [line[own] - np.delete(line, own).max() for line in lines]
        right = [margin > 0 for margin in margins]
        assert found.passes[row] == len(lines) == 5
        assert found.confidence[row] == pytest.approx(sure.mean(), rel=1e-5)
        assert found.variability[row] == pytest.approx(sure.std(), abs=1e-5)
        assert found.aum[row] == pytest.approx(np.mean(margins), rel=1e-4, abs=1e-6)
        falls = sum(one and not other for one, other in itertools.pairwise(right))
        assert found.forgotten[row] == falls
        last_wrong = max([i for i, ok in enumerate(right) if not ok], default=-1)
        assert found.learnt_at[row] == (last_wrong + 1 if right[-1] else -1)


def rows_forward(made: Any, count: Callable[[Any], Any]) -> int:
    """How many rows go through the network while ``count`` fits the job."""
    passed: list[int] = []
    forward = made.network.features

    def counted(**batch: Any) -> Any:
        passed.append(len(batch["input_ids"]))
        return forward(**batch)

    made.network.features = counted
    count(made)
    return sum(passed)


def test_no_row_is_passed_forward_for_the_map(job: Build) -> None:
    assert rows_forward(job(), run_with) == rows_forward(job(), fit)


@pytest.mark.parametrize("stop_at", [3, 7])
def test_a_run_killed_inside_a_pass_ends_with_the_same_map(
    job: Build, tmp_path: Path, recorder: Any, stop_at: int
) -> None:
    import os
    import signal

    _, whole = run_with(job(dropout=0.3))

    def kill(run: Any) -> None:
        if run.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    recorder.at["step_done"] = kill
    made = job(tmp_path, dropout=0.3)
    with pytest.raises(Interrupted):
        run_with(made, recorder)
    again = job(tmp_path, dropout=0.3)
    kept = ExampleHistory(again.train.rows)
    fit(replace(again, listeners=(kept,)), resume=True)
    one, other = whole.data_map(), kept.data_map()
    assert one is not None
    assert other is not None
    for name in ("confidence", "variability", "aum", "last", "learnt_at", "forgotten"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.kind == other.kind


def test_contrast_says_nothing_of_single_rows(job: Build, contrast_phase: Build) -> None:
    made = job(phases=(contrast_phase(),))
    _, kept = run_with(made)
    assert kept.data_map() is None


def test_kinds_follow_the_course_of_a_row() -> None:
    import torch

    kept = ExampleHistory(np.arange(6))
    courses = {
        0: [0.9] * 4,
        1: [0.1, 0.2, 0.3, 0.9],
        2: [0.1] * 4,
        3: [0.9, 0.8, 0.2, 0.2],
        4: [0.6, 0.1, 0.1, 0.7],
    }
    for at in range(4):
        for row, sure in courses.items():
            values = torch.tensor([[sure[at], float("nan"), float(sure[at] > 0.5)]])
            kept._add(np.array([row]), values.numpy())
        kept._pass += 1
    found = kept.data_map()
    assert found is not None
    assert found.kind == ("easy", "memorized", "unlearnable", "forgotten", "relearned", "unclear")
    assert np.isnan(found.confidence[5])
    assert found.passes[5] == 0


def test_validation_rows_have_a_map_of_looks(job: Build) -> None:
    fitted = fit(job())
    looks = [s for s in fitted.history if s.step]
    found = evaluation_data_map(np.arange(16), fitted.history)
    assert found is not None
    mean = np.exp(-np.stack([s.valid_losses for s in looks])).mean(axis=0)
    np.testing.assert_allclose(found.confidence, mean, rtol=1e-6)
    assert evaluation_data_map(np.arange(0), fitted.history) is None
    assert evaluation_data_map(np.arange(16), fitted.history[:1]) is None


def fake_run(step: int, rows: np.ndarray, losses: np.ndarray) -> Any:
    batch = BatchLosses(rows, torch.from_numpy(losses), None, None)
    phase = SimpleNamespace(compares_rows=False)
    return SimpleNamespace(step=step, batch_losses=batch, phase=phase)


def course_with_spike(history: ExampleHistory, steps: range, spike_at: int | None) -> None:
    """Losses that fall from 2 to 0.2 with some noise, in epochs of 10 updates of four rows."""
    for step in steps:
        rng = np.random.default_rng(step)
        rows = np.arange(4) + 4 * (step % 10)
        losses = 0.2 + 1.8 * np.exp(-step / 20) + rng.normal(0, 0.02, 4)
        losses[2] += 9.0 if step == spike_at else 0.0
        run = fake_run(step, rows, losses)
        history.loss_ready(run)
        if step % 10 == 9:
            history.epoch_end(run)


@pytest.mark.parametrize("spike_at", [23, 38, 39])
def test_the_rows_of_a_spike_are_named(spike_at: int) -> None:
    history = ExampleHistory(np.arange(100, 140))
    course_with_spike(history, range(60), spike_at)
    # A spike at the end of an epoch is seen in the next one.
    [spike] = history.spikes
    assert spike.step == spike_at + 1
    assert spike.rows == tuple(100 + 4 * (spike_at % 10) + i for i in range(4))
    finding = history.spike_finding()
    assert finding is not None
    assert f"at 1 step ({spike_at + 1})" in finding.because
    assert finding.rows == spike.rows
    halved = ExampleHistory(np.arange(100, 140))
    course_with_spike(halved, range(spike_at + 1), spike_at)
    resumed = ExampleHistory(np.arange(100, 140))
    resumed.load_state_dict(halved.state_dict())  # type: ignore[arg-type]
    course_with_spike(resumed, range(spike_at + 1, 60), spike_at)
    assert resumed.spikes == history.spikes


def test_a_course_without_a_spike_names_none_and_many_are_noise() -> None:
    history = ExampleHistory(np.arange(40))
    course_with_spike(history, range(200), None)
    assert not history.spikes
    assert history.spike_finding() is None
    for step in range(200, 400):
        rows, losses = np.arange(4) + 4 * (step % 10), np.full(4, 0.2)
        losses[0] += 9.0 if step % 9 == 0 else 0.0
        run = fake_run(step, rows, losses)
        history.loss_ready(run)
        if step % 10 == 9:
            history.epoch_end(run)
    assert len(history.spikes) > 12
    assert history.spike_finding() is None


@pytest.mark.slow
def test_a_run_names_the_odd_row_whose_batch_jumps(tmp_path: Path, tiny_llama: Path) -> None:
    rows = [{"instruction": f"Say {i % 7}.", "response": f"It is {i % 7}."} for i in range(60)]
    rows[17]["response"] = "zq#@~^|\\}{><" * 6
    path = tmp_path / "say.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = [
        "task=causal-lm",
        f"data.path={path}",
        f"model.name={tiny_llama}",
        "train.epochs=6",
        "train.batch_size=2",
        "train.learning_rate=0.01",
        "train.threads=1",
        "train.precision=float32",
        "generate.rows=0",
        "control.policy=off",
    ]
    result = train_run(override(Recipe(), settings), tmp_path / "run")
    found = [one for one in result["data"]["findings"] if one["check"] == "loss_spikes"]
    assert found
    # Each of its batches jumps, and it is the one row that they share.
    assert found[0]["rows"] == [17]
