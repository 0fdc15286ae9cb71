"""Other steps and other rows through the loop: what they change, and what they must not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from holdfast.core.actions import HalveBatch
from holdfast.core.errors import Defect, Interrupted, TrainingError
from holdfast.core.events import order_listeners
from holdfast.core.updates import Draw, RowPool
from holdfast.methods.balance import Balance
from holdfast.methods.sam import Sam
from holdfast.training.act import start_phase
from holdfast.training.guard import begin_run
from holdfast.training.listeners.examples import ExampleHistory
from holdfast.training.loop import fit
from holdfast.training.run import Run
from holdfast.training.step import train_step

Build = Callable[..., Any]


class Keep:
    """The gradients as they were before the update, and the rows that were heard of."""

    name = "keep"

    def __init__(self) -> None:
        self.gradients: dict[str, torch.Tensor] = {}
        self.rows: list[int] = []

    def loss_ready(self, run: Run) -> None:
        assert run.batch_losses is not None
        self.rows += run.batch_losses.rows.tolist()

    def gradients_ready(self, run: Run) -> None:
        learning = run.trainable_parameters().items()
        self.gradients = {n: p.grad.clone() for n, p in learning if p.grad is not None}


def one_step(made: Any, rows: np.ndarray) -> Keep:
    """What is heard of a step with these rows."""
    keep = Keep()
    torch.manual_seed(0)
    run = begin_run(replace(made, listeners=(keep,)))
    start_phase(run)
    train_step(run, Draw(rows))
    return keep


def plain_sam(network: Any, batch: dict[str, torch.Tensor], rho: float) -> dict[str, torch.Tensor]:
    """The update's gradient by autograd alone, on one padded batch."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    learning = {n: p for n, p in network.named_parameters() if p.requires_grad}

    def slopes() -> dict[str, torch.Tensor]:
        logits = network.head(network.features(**inputs))
        loss = cross_entropy(logits, batch["labels"])
        return dict(zip(learning, torch.autograd.grad(loss, list(learning.values())), strict=True))

    first = slopes()
    norm = torch.sqrt(sum((g**2).sum() for g in first.values()))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in learning.items():
            parameter += rho * first[name] / norm
    second = slopes()
    with torch.no_grad():
        for name, parameter in learning.items():
            parameter -= rho * first[name] / norm
    return second


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_two_pass_step_is_plain_autograd_s(job: Build, phase: Build, accumulate: int) -> None:
    shape = phase(batch_size=4, accumulate=accumulate, clip=None, stepper=Sam(0.3))
    rows = np.arange(5, 5 + 4 * accumulate)
    found, other = one_step(job(phases=(shape,)), rows), job()
    batch = other.task.collate(other.train, rows)
    for name, gradient in plain_sam(other.network, batch, 0.3).items():
        assert torch.allclose(found.gradients[name], gradient, atol=1e-6), name
    plain = one_step(job(phases=(phase(clip=None),)), rows).gradients
    assert not torch.allclose(found.gradients["body.weight"], plain["body.weight"], atol=1e-4)


def test_both_passes_have_the_same_dropout(job: Build, phase: Build) -> None:
    """A millionth of a step away the gradient is the plain one, if the function is."""
    rows = np.arange(12)
    near = one_step(job(phases=(phase(stepper=Sam(1e-6), clip=None),), dropout=0.5), rows)
    plain = one_step(job(phases=(phase(clip=None),), dropout=0.5), rows)
    for name, gradient in plain.gradients.items():
        assert torch.allclose(near.gradients[name], gradient, atol=1e-5), name


def test_a_row_that_passes_twice_is_heard_of_once(job: Build, phase: Build) -> None:
    heard = one_step(job(phases=(phase(stepper=Sam(0.1), accumulate=2),)), np.arange(9))
    assert sorted(heard.rows) == list(range(9))


def test_the_second_pass_leaves_running_statistics_alone(job: Build, phase: Build) -> None:
    def statistics(stepper: Any) -> list[torch.Tensor]:
        made = job(phases=(phase(stepper=stepper),))
        made.network.body = nn.Sequential(made.network.body, nn.BatchNorm1d(8))
        one_step(made, np.arange(12))
        return [buffer.clone() for buffer in made.network.body.buffers()]

    for one, other in zip(statistics(Sam(0.5)), statistics(phase().stepper), strict=True):
        assert torch.equal(one, other)


class LackingAt:
    """A task that finds no memory in some forward passes."""

    def __init__(self, task: Any, *at: int) -> None:
        self._task, self._at, self.passes = task, at, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def forward(self, network: Any, batch: Any) -> Any:
        self.passes += network.training
        if network.training and self.passes in self._at:
            raise MemoryError
        return self._task.forward(network, batch)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 2, 4])
def test_memory_that_runs_out_in_either_pass_changes_nothing_but_the_pieces(
    job: Build, phase: Build, at: int
) -> None:
    roomy, tight = (job(phases=(phase(stepper=Sam(0.2)),)) for _ in range(2))
    object.__setattr__(tight, "task", LackingAt(tight.task, at))
    fit(roomy)
    assert [type(action) for _, action in fit(tight).actions] == [HalveBatch]
    for one, other in zip(roomy.network.parameters(), tight.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_no_number_ends_before_the_weights_are_moved(
    job: Build, phase: Build
) -> None:
    made = job(phases=(phase(stepper=Sam(0.2)),))
    with torch.no_grad():
        made.network.body.bias[0] = float("nan")
    before = made.network.head.weight.detach().clone()
    with pytest.raises(TrainingError, match="not a finite number"):
        one_step(made, np.arange(4))
    assert torch.equal(made.network.head.weight, before)


@pytest.mark.parametrize("stop_at", [2, 7])
def test_a_killed_run_with_both_ends_as_it_would_have(
    job: Build, phase: Build, tmp_path: Path, recorder: Any, stop_at: int
) -> None:
    shape = phase(stepper=Sam(0.1), source=Balance(0.7))
    whole = job(phases=(shape,), dropout=0.3)
    fit(whole)
    recorder.at["step_done"] = lambda run: (
        run.step == stop_at and os.kill(os.getpid(), signal.SIGTERM)
    )
    with pytest.raises(Interrupted):
        fit(job(tmp_path, phases=(shape,), dropout=0.3, listeners=(recorder,)))
    again = job(tmp_path, phases=(shape,), dropout=0.3)
    fit(again, resume=True)
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)


@dataclass(frozen=True, slots=True)
class Backwards:
    """A source of rows in another form: each epoch shifts them by one more, as rows of a set of
    their own, in which they stand from the last to the first."""

    name: ClassVar[str] = "backwards"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return pool.steps_per_pass

    def draw(self, pool: RowPool, step: int) -> Draw:
        epoch, index = divmod(step, pool.steps_per_pass)
        count = len(pool)
        other = pool.for_epoch(epoch, lambda: pool.examples.take(np.arange(count)[::-1]))
        rows = (np.arange(count) + epoch)[index * pool.batch : (index + 1) * pool.batch] % count
        return Draw(rows, other, count - 1 - rows)


def test_rows_in_another_form_are_passed_and_heard_of_as_their_originals(
    job: Build, phase: Build
) -> None:
    """The same rows from a set in which they stand elsewhere: every number is of plain rows."""

    @dataclass(frozen=True, slots=True)
    class Plain(Backwards):
        def draw(self, pool: RowPool, step: int) -> Draw:
            return Draw(Backwards.draw(self, pool, step).rows)

    maps, fitted = [], []
    for source in (Backwards(), Plain()):
        made = job(phases=(phase(source=source, steps=15),), rows=40)
        kept = ExampleHistory(made.train.rows)
        fitted.append(fit(replace(made, listeners=(kept,))))
        maps.append(kept.data_map())
    for name in ("confidence", "variability", "aum", "last", "passes"):
        np.testing.assert_allclose(getattr(maps[0], name), getattr(maps[1], name), atol=1e-6)
    assert fitted[0].history[-1].valid_loss == pytest.approx(fitted[1].history[-1].valid_loss)


def test_a_row_that_is_drawn_twice_counts_twice_in_the_data_map(job: Build, phase: Build) -> None:
    """Against a count of every pass of every row, on two classes of 36 and 4 rows."""
    made = job(phases=(phase(source=Balance(), steps=20),), rows=40)
    made.train.labels[:] = np.arange(40) % 10 == 0
    passed: dict[int, list[float]] = {}

    class Watch:
        name = "watch"

        def loss_ready(self, run: Run) -> None:
            seen = run.batch_losses
            assert seen is not None
            for row, loss in zip(seen.rows.tolist(), seen.losses.tolist(), strict=True):
                passed.setdefault(row, []).append(float(np.exp(-loss)))

    kept = ExampleHistory(made.train.rows)
    fit(replace(made, listeners=(kept, Watch())))
    found = kept.data_map()
    assert found is not None
    assert found.passes.sum() == 20 * 8
    assert max(found.passes) == 20  # five times in each of four epochs
    for row, sure in passed.items():
        assert found.passes[row] == len(sure)
        assert found.confidence[row] == pytest.approx(np.mean(sure), rel=1e-5)
        assert found.last[row] == pytest.approx(sure[-1], rel=1e-5)


def listener(name: str, place: str | None, heard: list[str]) -> Any:
    made = SimpleNamespace(name=name, run_start=lambda run: heard.append(name))
    if place is not None:
        made.place = place
    return made


@pytest.mark.parametrize("seed", range(5))
def test_listeners_hear_in_the_order_that_they_declare_however_they_are_given(
    job: Build, seed: int
) -> None:
    heard: list[str] = []
    declared = {"z": "change", "b": "change", "y": "note", "a": "tell", "x": None}
    given = [listener(name, place, heard) for name, place in declared.items()]
    order = np.random.default_rng(seed).permutation(len(given))
    fit(job(listeners=tuple(given[k] for k in order)))
    assert heard == ["b", "z", "y", "a", "x"]


def test_two_listeners_of_one_name_are_a_defect() -> None:
    with pytest.raises(Defect, match="one name"):
        order_listeners([listener("a", "note", []), listener("a", "tell", [])])
