"""One update: the gradient of the whole batch, in whatever pieces it is computed."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from holdfast.core.updates import Draw
from holdfast.methods.agreement import RDrop
from holdfast.methods.losses import LabelSmoothing
from holdfast.training.act import start_phase
from holdfast.training.guard import begin_run
from holdfast.training.loop import fit
from holdfast.training.run import Run
from holdfast.training.step import (
    UPDATE_COST,
    _micro_batches,
    _output,
    draw_of_step,
    seconds_of_updates,
    steps_per_epoch,
    train_step,
)


def one_step(made: Any, rows: np.ndarray | None = None) -> tuple[Run, np.ndarray, dict[str, Any]]:
    """The run after a step, its rows, and the gradients as they were before the update."""
    seen: dict[str, Any] = {}

    class Keep:
        name = "keep"

        def gradients_ready(self, run: Run) -> None:
            for name, parameter in run.trainable_parameters().items():
                seen[name] = None if parameter.grad is None else parameter.grad.clone()

    made = replace(made, listeners=(Keep(),))
    run = begin_run(made)
    start_phase(run)
    draw = draw_of_step(run) if rows is None else Draw(rows)
    train_step(run, draw)
    return run, draw.rows, seen


def whole_batch(made: Any, rows: np.ndarray, loss: Any) -> dict[str, torch.Tensor]:
    """Gradients by plain autograd on one padded batch, rows in the order given."""
    batch = made.task.collate(made.train, rows)
    labels = batch.pop("labels")
    made.network.zero_grad()
    features = made.network.features(**batch)
    loss(features, made.network.head(features), labels).backward()
    found = {n: p.grad.clone() for n, p in made.network.named_parameters() if p.grad is not None}
    made.network.zero_grad()
    return found


def mean_loss(features: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits, labels)


def smoothed(features: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits, labels, label_smoothing=0.2)


def pairs(features: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Contrast by its formula, anchor by anchor."""
    unit = normalize(features, dim=1)
    losses = []
    for i in range(len(labels)):
        others = [a for a in range(len(labels)) if a != i]
        shares = torch.log_softmax(torch.stack([unit[i] @ unit[a] / 0.1 for a in others]), 0)
        same = [k for k, a in enumerate(others) if labels[a] == labels[i]]
        losses.append(-shares[same].mean() if same else shares.sum() * 0)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("accumulate", [1, 2, 3, 5])
@pytest.mark.parametrize("loss", [mean_loss, smoothed])
def test_micro_batches_have_the_gradient_of_the_batch(job, phase, accumulate: int, loss) -> None:
    shape = phase(batch_size=6, accumulate=accumulate, clip=None)
    terms = (LabelSmoothing(0.2),) if loss is smoothed else ()
    made = job(phases=(replace(shape, terms=terms),))
    expected_of = job(phases=(shape,))
    _, rows, seen = one_step(made, np.arange(3, 3 + 6 * accumulate))
    expected = whole_batch(expected_of, rows, loss)
    assert seen.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.allclose(seen[name], gradient, atol=1e-6), name


def test_a_smaller_last_batch_is_averaged_over_its_own_rows(job, phase) -> None:
    made, other = job(phases=(phase(clip=None),)), job(phases=(phase(clip=None),))
    rows = np.array([3, 9, 4])
    _, _, seen = one_step(made, rows)
    for name, gradient in whole_batch(other, rows, mean_loss).items():
        assert torch.allclose(seen[name], gradient, atol=1e-6), name


@pytest.mark.parametrize("size", [8, 16, 30])
def test_a_class_batch_in_length_parts_has_the_gradient_of_all_its_pairs(
    job, contrast_phase, size
) -> None:
    """The parts only save padding: every pair of rows is in the loss."""
    shape = contrast_phase(batch_size=size, clip=None)
    _, rows, seen = one_step(job(phases=(shape,)))
    assert len(rows) == size
    expected = whole_batch(job(phases=(shape,)), rows, pairs)
    for name in ("body.weight", "body.bias"):
        assert torch.allclose(seen[name], expected[name], atol=1e-5), name
    assert seen["head.weight"] is None or not seen["head.weight"].any()


def test_the_head_does_not_move_by_gradient_while_it_is_refitted(job, contrast_phase) -> None:
    made = job(phases=(contrast_phase(),))
    before = made.network.head.weight.detach().clone()
    one_step(made)
    assert torch.equal(made.network.head.weight, before)


def test_per_example_losses_are_those_of_pytorch(job) -> None:
    made = job()
    rows = np.arange(10)
    batch = made.task.collate(made.train, rows)
    logits = 3 * torch.randn(10, 2)
    told = made.task.losses(SimpleNamespace(logits=logits), batch)
    expected = [
        float(torch.logsumexp(line, 0) - line[label])
        for line, label in zip(logits, made.train.labels[rows], strict=True)
    ]
    assert told.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("limit", [None, 0.01, 1e6])
def test_clipping_bounds_the_norm_and_remembers_it_as_it_was(job, phase, limit) -> None:
    run, rows, seen = one_step(job(phases=(phase(clip=limit),)))
    free = whole_batch(job(), rows, mean_loss)
    norm = math.sqrt(sum(float(g.norm()) ** 2 for g in free.values()))
    clipped = math.sqrt(sum(float(g.norm()) ** 2 for g in seen.values()))
    assert run.gradient_norms == [pytest.approx(norm, rel=1e-5)]
    assert clipped == pytest.approx(min(norm, limit or math.inf), rel=1e-3)
    for name in free:
        direction = torch.cosine_similarity(seen[name].flatten(), free[name].flatten(), dim=0)
        assert float(direction) == pytest.approx(1, abs=1e-5)


def test_what_a_listener_adds_after_the_passes_is_clipped_with_the_rest(job, phase) -> None:
    seen: dict[str, float] = {}

    class Penalty:
        name, place = "penalty", "change"

        def backward_done(self, run: Run) -> None:
            for parameter in run.trainable_parameters().values():
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach(), alpha=10)
            seen["norm"] = norm_of(run)

        def gradients_ready(self, run: Run) -> None:
            seen["clipped"] = norm_of(run)

    def norm_of(run: Run) -> float:
        grads = [p.grad for p in run.trainable_parameters().values() if p.grad is not None]
        return math.sqrt(sum(float(g.norm()) ** 2 for g in grads))

    run = begin_run(replace(job(phases=(phase(clip=0.5),)), listeners=(Penalty(),)))
    start_phase(run)
    train_step(run, draw_of_step(run))
    assert seen["norm"] > 1
    assert run.gradient_norms[-1] == pytest.approx(seen["norm"], rel=1e-5)
    assert seen["clipped"] == pytest.approx(0.5, rel=1e-3)


def test_two_passes_of_a_row_have_the_gradient_of_their_mean_and_disagreement(job, phase) -> None:
    """By plain autograd on two passes that draw the same dropout, one after the other."""
    shape = phase(batch_size=6, clip=None, terms=(LabelSmoothing(0.2), RDrop(3.0)))
    made = job(phases=(shape,), dropout=0.4)
    assert (shape.passes, shape.rows_passed) == (2, 2 * 6 * shape.steps)
    run, heard, seen = begin_run(made), [], {}
    run.emit = heard.append
    start_phase(run)
    rows = draw_of_step(run).rows
    rows = rows[np.argsort(made.train.lengths[rows], kind="stable")]
    again = copy.deepcopy(made.network)
    torch.manual_seed(5)
    train_step(run, Draw(rows))
    for name, parameter in run.trainable_parameters().items():
        seen[name] = parameter.grad.clone()
    batch = made.task.collate(made.train, rows)
    torch.manual_seed(5)
    one, two = (made.task.forward(again.train(), batch).logits for _ in range(2))
    plain = [cross_entropy(z, batch["labels"], label_smoothing=0.2) for z in (one, two)]
    p, q = (torch.distributions.Categorical(logits=z) for z in (one, two))
    apart = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    (sum(plain) / 2 + 3.0 * apart.mean() / 2).backward()
    for name, parameter in again.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(seen[name], parameter.grad, atol=1e-6), name
    assert not torch.equal(one, two)
    assert heard.count("loss_ready") == 1


def test_each_group_s_rate_follows_the_schedule(job, phase, recorder) -> None:
    rates: list[tuple[float, float, float]] = []
    recorder.at["step_done"] = lambda run: rates.append(
        (*(g["lr"] for g in run.optimizer.param_groups), run.learning_rate)
    )
    shape = phase(warmup=0.2, schedule="linear", learning_rate=0.1, head_learning_rate=0.01)
    fit(job(phases=(shape,), listeners=(recorder,)))
    scales = [0.5, 1.0, *(1 - k / 8 for k in range(8))]
    for (body, head, shown), scale in zip(rates, scales, strict=True):
        assert (body, head, shown) == pytest.approx((0.1 * scale, 0.01 * scale, 0.1 * scale))


def test_every_row_is_passed_once_an_epoch(job, phase) -> None:
    run = begin_run(job(phases=(phase(batch_size=6),), rows=40))
    start_phase(run)
    assert steps_per_epoch(run) == 7
    for epoch in range(3):
        rows = []
        for index in range(7):
            run.step_in_phase = 7 * epoch + index
            rows += draw_of_step(run).rows.tolist()
        assert sorted(rows) == list(range(40))


def test_the_rows_of_a_step_depend_on_its_place_alone(job, phase) -> None:
    run = begin_run(job(phases=(phase(batch_size=6),)))
    forward = []
    for step in range(14):
        run.step_in_phase = step
        forward.append(draw_of_step(run).rows.tolist())
    for step in (13, 2, 7, 0):
        run.step_in_phase = step
        assert draw_of_step(run).rows.tolist() == forward[step]


def test_dropout_is_on_in_training_and_off_in_measuring(job, recorder) -> None:
    modes: dict[str, set[bool]] = {"loss_ready": set(), "snapshot_taken": set()}
    recorder.at["loss_ready"] = lambda run: modes["loss_ready"].add(run.network.training)
    made = job(dropout=0.5, listeners=(recorder,))
    fitted = fit(made)
    assert modes["loss_ready"] == {True}
    first, again = fitted.history[0], fit(job(dropout=0.5)).history[0]
    assert first.train_losses.tolist() == again.train_losses.tolist()


def test_updates_are_foretold_from_the_first_rows_of_each_phase_and_nothing_is_changed(
    job: Any, phase: Any, contrast_phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that moves 10 ms for each token that passes, padding and all: every update of the
    plan is counted here, and few of them are timed."""
    shapes = (contrast_phase(steps=4, batch_size=16), phase(steps=30), phase(name="twice", steps=3))
    shapes = (*shapes[:2], replace(shapes[2], terms=(RDrop(1.0),)))
    run = begin_run(job(phases=shapes, dropout=0.5))
    now, counted, graded = 0.0, [], []
    forward = type(run.job.task).forward

    def slow(task: Any, network: Any, batch: Any) -> Any:
        nonlocal now
        assert network.training
        graded.append(torch.is_grad_enabled())
        now += 0.01 * batch["input_ids"].numel()
        counted.append(batch["input_ids"].numel())
        return forward(task, network, batch)

    monkeypatch.setattr(type(run.job.task), "forward", slow)
    monkeypatch.setattr("holdfast.training.step.time.perf_counter", lambda: now)
    run.network.eval()
    before, drawn = copy.deepcopy(run.network.state_dict()), torch.get_rng_state()
    foretold = seconds_of_updates(run)
    assert (run.phase_index, run.step_in_phase, run.network.training) == (0, 0, False)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, run.network.state_dict()[k]) for k, value in before.items())
    assert all(graded)  # an update writes what its gradient needs
    timed = sum(counted)
    counted.clear()
    run.network.train()
    with torch.no_grad():
        for number, shape in enumerate(shapes):
            for place in range(shape.steps):
                run.phase_index, run.step_in_phase = number, place
                for part in draw_of_step(run).parts:
                    for piece in _micro_batches(run, part):
                        for _ in range(shape.passes):
                            _output(run, piece)
    assert foretold == pytest.approx(UPDATE_COST * 0.01 * sum(counted))
    assert timed < sum(counted) / 3


def test_rows_of_about_the_mean_length_are_timed(
    job: Any, phase: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin_run(job(phases=(phase(steps=10),)))
    passed: list[int] = []
    forward = type(run.job.task).forward

    def counted(task: Any, network: Any, batch: Any) -> Any:
        passed.append(batch["input_ids"].numel())
        return forward(task, network, batch)

    monkeypatch.setattr(type(run.job.task), "forward", counted)
    every = []
    for place in range(10):
        run.step_in_phase = place
        passed.clear()
        for part in draw_of_step(run).parts:
            for piece in _micro_batches(run, part):
                _output(run, piece)
        every.append(sum(passed))
    passed.clear()
    seconds_of_updates(run)
    mean = sum(every) / 10
    assert len(set(every)) > 1
    assert sum(passed) == min(every, key=lambda one: abs(one - mean))
