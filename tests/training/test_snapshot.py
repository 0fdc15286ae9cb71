"""Snapshots: paired rows, in evaluation mode, against plain autograd-free arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.training.guard import begin_run
from holdfast.training.loop import fit
from holdfast.training.snapshot import take_snapshot


def plain_losses(network: Any, task: Any, examples: Any, positions: Any) -> list[float]:
    """Row by row, without padding."""
    network.eval()
    found = []
    with torch.no_grad():
        for position in positions:
            batch = task.collate(examples, [int(position)])
            labels = batch.pop("labels")
            logits = network.head(network.features(**batch)).double()
            found.append(float(torch.logsumexp(logits, 1) - logits[0, labels]))
    return found


def test_losses_are_those_of_each_row_alone_in_the_order_of_the_rows(job) -> None:
    made = job(dropout=0.5)
    run = begin_run(made)
    made.network.train()
    snapshot = take_snapshot(run)
    assert made.network.training, "the mode is put back"
    assert snapshot.train_losses.tolist() == pytest.approx(
        plain_losses(made.network, made.task, made.train, run.probe), rel=1e-5
    )
    assert snapshot.valid_losses.tolist() == pytest.approx(
        plain_losses(made.network, made.task, made.valid, range(16)), rel=1e-5
    )


def test_features_that_are_known_are_not_computed_again_and_give_the_same_losses(job) -> None:
    """The linear probe has just passed every row through the network."""
    made = job()
    run = begin_run(made)
    for examples in (made.train, made.valid):
        everything = np.arange(len(examples))
        known = run.observer.features(made.network, examples, everything)
        run.observer.remember_features(examples, known)
    passes = []
    handle = made.network.body.register_forward_hook(lambda *_: passes.append(1))
    snapshot = take_snapshot(run)
    assert not passes
    for losses, examples, positions in (
        (snapshot.train_losses, made.train, run.probe),
        (snapshot.valid_losses, made.valid, range(16)),
    ):
        wanted = plain_losses(made.network, made.task, examples, positions)
        assert losses.tolist() == pytest.approx(wanted, rel=1e-5)
    passes.clear()
    take_snapshot(run)
    assert passes, "the next look is at a network that has changed"
    handle.remove()


def test_every_look_sees_the_same_rows(job) -> None:
    fitted = fit(job(evaluate_at=(0, 3, 7, 10)))
    assert {len(s.train_losses) for s in fitted.history} == {12}
    assert {len(s.valid_losses) for s in fitted.history} == {16}


def test_no_learning_means_equal_looks(job, phase) -> None:
    """With a rate of zero every row's loss stays: the looks are paired."""
    still = phase(learning_rate=0.0, head_learning_rate=0.0)
    history = fit(job(phases=(still,), evaluate_at=(0, 4, 10), dropout=0.4)).history
    for snapshot in history[1:]:
        assert snapshot.train_losses.tolist() == history[0].train_losses.tolist()
        assert snapshot.valid_losses.tolist() == history[0].valid_losses.tolist()
        assert snapshot.relative_update == 0
        assert snapshot.distance == 0


def test_how_far_the_weights_moved(job, recorder) -> None:
    weights: list[torch.Tensor] = []

    def flat(run: Any) -> torch.Tensor:
        return torch.cat([t.flatten().double() for t in run.copy_tensors().values()])

    recorder.at["snapshot_taken"] = lambda run: weights.append(flat(run))
    history = fit(job(evaluate_at=(0, 4, 10), listeners=(recorder,))).history
    start, middle, end = weights
    assert history[0].relative_update is None
    assert history[2].relative_update == pytest.approx(
        float((end - middle).norm() / middle.norm()), rel=1e-4
    )
    assert history[2].distance == pytest.approx(
        float((end - start).norm() / start.norm()), rel=1e-4
    )


def test_the_gradient_norm_is_the_mean_since_the_look_before(job, recorder) -> None:
    norms: list[float] = []
    recorder.at["gradients_ready"] = lambda run: norms.append(run.gradient_norms[-1])
    history = fit(job(evaluate_at=(0, 4, 10), listeners=(recorder,))).history
    assert history[0].gradient_norm is None
    assert history[1].gradient_norm == pytest.approx(np.mean(norms[:4]))
    assert history[2].gradient_norm == pytest.approx(np.mean(norms[4:]))


def test_the_phase_and_the_epoch_are_named(job, phase) -> None:
    phases = (phase(name="one", steps=5), phase(name="two", steps=10))
    history = fit(job(phases=phases, evaluate_at=(0, 5, 10, 15))).history
    assert [s.phase for s in history] == ["start", "one", "two", "two"]
    assert [s.epoch for s in history] == [0, 1, 2, 3]
    assert [s.examples_seen for s in history] == [0, 40, 80, 120]


def test_accuracy_and_refined_loss_are_those_of_the_kept_logits(job) -> None:
    made = job()
    snapshot = fit(made).history[-1]
    assert snapshot.valid_logits is not None
    right = snapshot.valid_logits.argmax(1) == made.valid.labels
    assert snapshot.valid_metrics["accuracy"] == right.mean()
    scaled = snapshot.valid_logits.astype(np.float64) / snapshot.temperature
    log_shares = scaled - np.log(np.exp(scaled).sum(1, keepdims=True))
    own = -log_shares[np.arange(16), made.valid.labels].mean()
    assert snapshot.refined_loss == pytest.approx(own, rel=1e-5)
    assert snapshot.refined_loss <= snapshot.valid_loss + 1e-9


def test_the_journal_keeps_means_and_no_rows(job) -> None:
    summary = fit(job()).history[-1].summary()
    assert not any(isinstance(value, (list, np.ndarray)) for value in summary.values())
    assert summary["train_rows"] == 12
    assert math.isfinite(summary["refined_loss"])
