"""The loss of a student: against PyTorch's own divergences, closed forms and numeric gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from holdfast.core.updates import ForwardPass
from holdfast.methods.teacher import (
    DistillationLoss,
    TeacherOutputs,
    divergence,
    soft_targets,
    squared,
)


def tables(seed: int = 0, n: int = 6, outputs: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    first, second = (3 * torch.randn(n, outputs, generator=made) for _ in range(2))
    return first, second.requires_grad_()


def plain(teacher: torch.Tensor, student: torch.Tensor, t: float, problem: str) -> torch.Tensor:
    """The same loss, written with PyTorch's functions."""
    if problem == "class":
        each = functional.kl_div(
            functional.log_softmax(student / t, dim=-1),
            functional.log_softmax(teacher / t, dim=-1),
            log_target=True,
            reduction="none",
        )
        return t**2 * each.sum(dim=-1)
    two = [torch.distributions.Bernoulli(logits=x / t) for x in (teacher, student)]
    return t**2 * torch.distributions.kl_divergence(*two).mean(dim=-1)


@pytest.mark.parametrize("problem", ["class", "several"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_divergence_and_its_gradient_are_pytorchs(problem: Any, temperature: float) -> None:
    teacher, student = tables()
    mine = divergence(
        soft_targets([teacher], temperature, problem), student, temperature, problem=problem
    )
    theirs = plain(teacher, student, temperature, problem)
    torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=1e-6)
    weights = torch.arange(1.0, 7.0)
    slopes = [torch.autograd.grad((one * weights).sum(), student)[0] for one in (mine, theirs)]
    torch.testing.assert_close(*slopes, rtol=2e-4, atol=1e-5)


def test_two_classes_have_the_closed_form() -> None:
    # p = (¾, ¼), q = (½, ½): ¾ ln 1½ + ¼ ln ½.
    taught = torch.tensor([[0.75, 0.25]])
    found = divergence(taught, torch.zeros(1, 2), 1.0)
    assert float(found) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5), rel=1e-6)


def test_a_sure_teacher_has_a_finite_loss() -> None:
    teacher = torch.tensor([[200.0, -200.0]])
    student = torch.tensor([[0.0, 0.0]], requires_grad=True)
    found = divergence(soft_targets([teacher], 1.0, "class"), student, 1.0)
    assert found.detach().item() == pytest.approx(np.log(2), rel=1e-6)


def passed(logits: torch.Tensor, rows: Any = None, **batch: torch.Tensor) -> ForwardPass:
    n = len(logits)
    return ForwardPass(
        np.arange(n) if rows is None else rows, dict(batch), SimpleNamespace(logits=logits)
    )


@pytest.mark.parametrize("problem", ["class", "several", "number"])
@pytest.mark.parametrize("compared", ["probabilities", "logits"])
def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient(
    problem: Any, compared: Any
) -> None:
    for seed in range(20):
        teacher, _ = tables(seed, n=8, outputs=1 if problem == "number" else 7)
        student = teacher.clone().requires_grad_()
        said = TeacherOutputs([teacher])
        term = DistillationLoss(lambda _, said=said: said, 8, 8, 1.0, 2.0, problem, compared)
        found = term(passed(student), torch.full((8,), 3.0))
        assert (found == 0).all()
        found.sum().backward()
        assert student.grad is not None
        assert (student.grad == 0).all()


def test_several_teachers_teach_the_mean_of_their_probabilities() -> None:
    one, _ = tables(0)
    two, _ = tables(1)
    mean = (torch.softmax(one / 2, -1) + torch.softmax(two / 2, -1)) / 2
    torch.testing.assert_close(soft_targets([one, two], 2.0, "class"), mean)


def test_logits_are_compared_without_what_no_probability_depends_on() -> None:
    teacher, student = tables()
    moved = squared(teacher + 5.0, student, centred=True)
    torch.testing.assert_close(moved, squared(teacher, student, centred=True), rtol=1e-4, atol=1e-5)
    expected = functional.mse_loss(student, teacher, reduction="none").mean(-1)
    torch.testing.assert_close(squared(teacher, student, centred=False), expected)


def test_a_high_temperature_comes_near_to_squared_logits() -> None:
    # 1503.02531, section 2.1: T² KL → (1 ÷ 2C) Σ (centred difference)².
    teacher, student = tables()
    hot = divergence(soft_targets([teacher.double()], 2e2, "class"), student, 2e2)
    limit = squared(teacher, student, centred=True) / 2
    torch.testing.assert_close(hot, limit, rtol=0.05, atol=0.02)


def test_labels_and_teacher_are_mixed_and_rows_without_a_label_have_the_teacher_alone() -> None:
    teacher, student = tables(n=4)
    gold = torch.tensor([1.0, 2.0, 3.0, 100.0])
    term = DistillationLoss(lambda _: TeacherOutputs([teacher]), 3, 4, 0.25, 2.0)
    apart = plain(teacher, student, 2.0, "class")
    expected = torch.cat([0.75 * gold[:3] + 0.25 * apart[:3], apart[3:]])
    torch.testing.assert_close(term(passed(student), gold), expected, rtol=1e-4, atol=1e-5)
    # General rows that pass beside the training rows have nobody who teaches them.
    assert torch.equal(term(passed(student, np.arange(4, 8)), gold), gold)


def test_tokens_are_averaged_by_row_over_those_that_the_teacher_read() -> None:
    teacher, student = tables(n=5)
    known = torch.tensor([True, False, True, True, False])
    counts = torch.tensor([2, 2, 1])
    each = plain(teacher, student, 1.0, "class")
    term = DistillationLoss(lambda _: TeacherOutputs([teacher], known), 3, 3, 1.0, 1.0)
    found = term(passed(student, np.arange(3), counts=counts), torch.zeros(3))
    expected = torch.stack([each[0], (each[2] + each[3]) / 2, torch.tensor(0.0)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    whole = DistillationLoss(lambda _: TeacherOutputs([teacher]), 3, 3, 1.0, 1.0)
    means = torch.stack([each[:2].mean(), each[2:4].mean(), each[4]])
    found = whole(passed(student, np.arange(3), counts=counts), torch.zeros(3))
    torch.testing.assert_close(found, means, rtol=1e-4, atol=1e-5)
