"""Rows that pass beside an update's own, and what the network said before the first step."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy, kl_div

from holdfast.core.updates import Draw, ForwardPass, RowPool
from holdfast.methods.agreement import KLStart
from holdfast.training.act import start_phase
from holdfast.training.guard import begin_run
from holdfast.training.loop import fit
from holdfast.training.plan import EveryRow
from holdfast.training.step import train_step


def gradients_of(made: Any, draw: Draw, ready: Any = lambda run: None) -> dict[str, torch.Tensor]:
    """The gradients of one update, as they were before the optimizer moved."""
    seen: dict[str, torch.Tensor] = {}

    class Keep:
        name = "keep"

        def backward_done(self, run: Any) -> None:
            for name, parameter in run.trainable_parameters().items():
                seen[name] = parameter.grad.clone()

    run = begin_run(replace(made, listeners=(*made.listeners, Keep())))
    start_phase(run)
    ready(run)
    train_step(run, draw)
    return seen


def test_the_gradient_is_that_of_both_lots_of_rows_together(job, phase) -> None:
    shape = phase(clip=None)
    made, same = job(phases=(shape,)), job(phases=(shape,))
    together = Draw(np.array([3, 9, 4, 20, 21]))
    beside = Draw(np.array([90, 91]), made.train, np.array([20, 21]))
    apart = Draw(np.array([3, 9, 4]), auxiliary=beside)
    expected = gradients_of(same, together)
    for name, gradient in gradients_of(made, apart).items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name


@dataclass(frozen=True)
class WithOthers:
    """Every row once an epoch, and the first rows again beside them."""

    examples: Any
    inner: ClassVar[Any] = EveryRow()
    name: ClassVar[str] = "with others"
    has_epochs: ClassVar[bool] = True

    def steps_per_epoch(self, pool: RowPool) -> int:
        return self.inner.steps_per_epoch(pool)

    def draw(self, pool: RowPool, step: int) -> Draw:
        beside = Draw(len(pool) + np.arange(3), self.examples, np.arange(3))
        return replace(self.inner.draw(pool, step), auxiliary=beside)


def test_rows_beside_are_counted_nowhere(job, phase) -> None:
    seen: list[int] = []

    class Hears:
        name = "hears"

        def loss_ready(self, run: Any) -> None:
            seen.extend(run.batch_losses.rows.tolist())

    made = job(phases=(phase(),), listeners=(Hears(),))
    shape = phase(source=WithOthers(made.train))
    made = replace(made, plan=replace(made.plan, phases=(shape,)))
    trained = fit(made)
    assert max(seen) < len(made.train)
    assert trained.examples_seen == len(seen)


def moved(run: Any) -> None:
    """The run stands where it began, and its weights elsewhere."""
    run.initial_tensors = run.copy_tensors()
    with torch.no_grad():
        for parameter in run.trainable_parameters().values():
            parameter += 0.3


def test_the_start_is_asked_without_a_second_model_and_leaves_the_gradient(job, phase) -> None:
    """Against autograd with a copy of the network."""
    shape = replace(phase(clip=None), terms=(KLStart(weight=0.8, share=1.0),))
    made = job(phases=(shape,))
    first = copy.deepcopy(made.network).eval()
    now = copy.deepcopy(made.network).eval()
    with torch.no_grad():
        for parameter in (p for p in now.parameters() if p.requires_grad):
            parameter += 0.3
    batch = made.task.collate(made.train, np.array([3, 9, 4, 11]))
    labels = batch.pop("labels")
    logits = now.head(now.features(**batch))
    with torch.no_grad():
        before = first.head(first.features(**batch))
    apart = kl_div(logits.log_softmax(1), before.softmax(1), reduction="none").sum(1)
    (cross_entropy(logits, labels) + 0.8 * apart.mean()).backward()
    found = gradients_of(made, Draw(np.array([3, 9, 4, 11])), moved)
    for name, parameter in now.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(found[name], parameter.grad, atol=1e-6), name


def test_asking_the_start_changes_no_draw_of_chance_and_no_weight(job, phase) -> None:
    """With dropout, a term that asks and says nothing leaves the run as it is."""

    @dataclass(frozen=True)
    class Asks:
        name: ClassVar[str] = "asks"
        compares_rows: ClassVar[bool] = False

        def __call__(self, passed: ForwardPass, losses: torch.Tensor) -> torch.Tensor:
            assert passed.start is not None
            assert len(passed.start(np.arange(len(losses))).logits) == len(losses)
            return losses

    states = []
    for terms in ((), (Asks(),)):
        made = job(phases=(phase(terms=terms),), dropout=0.5)
        fit(made)
        states.append({n: p.detach().clone() for n, p in made.network.named_parameters()})
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
