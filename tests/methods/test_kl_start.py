"""The divergence from the start against SciPy's, and that it takes no part where it must not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch.nn.functional import cross_entropy

from holdfast.core.errors import Defect
from holdfast.core.updates import ForwardPass
from holdfast.methods.agreement import KLStart, divergence, fixed_share_of_rows


def tables(rows: int = 9, classes: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return tuple(4 * torch.randn(rows, classes, generator=made) for _ in range(2))


def test_over_all_classes_it_is_that_of_scipy() -> None:
    start, now = tables()
    told = divergence(start, now)
    expected = entropy(softmax(start.numpy(), axis=1), softmax(now.numpy(), axis=1), axis=1)
    assert told.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_with_the_target_masked_it_is_that_of_the_tables_without_its_column() -> None:
    start, now = tables()
    targets = torch.arange(9) % 6
    told = divergence(start, now, targets)
    for row, target in enumerate(targets.tolist()):
        left = [np.delete(softmax(one[row].numpy()), target) for one in (start, now)]
        assert float(told[row]) == pytest.approx(entropy(*left), rel=1e-4)


def test_what_is_learnt_of_the_target_alone_costs_nothing() -> None:
    start, _ = tables()
    targets = torch.arange(9) % 6
    sure = start.clone()
    sure[torch.arange(9), targets] += 12
    assert divergence(start, sure, targets).abs().max() < 1e-5
    assert divergence(start, sure).min() > 0.1


def language(
    rows: np.ndarray, counts: list[int], seed: int = 0
) -> tuple[ForwardPass, torch.Tensor]:
    """A pass of a model that writes: ``counts`` target tokens of each row, and their mean loss."""
    start, now = tables(sum(counts), 11, seed)
    expected = torch.arange(sum(counts)) % 11
    batch = {"expected": expected, "counts": torch.tensor(counts)}
    ends = np.cumsum([0, *counts])

    def before(places: np.ndarray) -> SimpleNamespace:
        kept = np.concatenate([np.arange(ends[i], ends[i + 1]) for i in places])
        return SimpleNamespace(logits=start[kept])

    each = cross_entropy(now, expected, reduction="none")
    losses = torch.segment_reduce(each, "mean", lengths=batch["counts"])
    return ForwardPass(rows, batch, SimpleNamespace(logits=now), before), losses


def test_a_row_pays_the_mean_over_its_target_tokens() -> None:
    rows, counts = np.arange(5), [3, 1, 4, 2, 5]
    passed, losses = language(rows, counts)
    told = KLStart(weight=0.7, share=1.0)(passed, losses) - losses
    start = passed.start(np.arange(5)).logits
    each = divergence(start, passed.output.logits, passed.batch["expected"]).split(counts)
    assert told.tolist() == pytest.approx([0.7 * float(one.mean()) for one in each], rel=1e-4)


def test_a_share_of_the_rows_pays_the_more_and_is_the_same_in_every_order() -> None:
    assert len(fixed_share_of_rows(np.arange(20_000), 0.4)) == pytest.approx(8000, rel=0.03)
    assert fixed_share_of_rows(np.arange(50), 1.0).tolist() == list(range(50))
    some = set(fixed_share_of_rows(np.arange(30), 0.4).tolist())
    order = np.random.default_rng(0).permutation(30)
    assert set(order[fixed_share_of_rows(order, 0.4)].tolist()) == some
    passed, losses = language(np.arange(12), [2] * 12)
    full = KLStart(share=1.0)(passed, losses) - losses
    part = KLStart(share=0.4)(passed, losses) - losses
    mine = fixed_share_of_rows(np.arange(12), 0.4)
    assert 0 < len(mine) < 12
    assert torch.allclose(part[mine], full[mine] / 0.4, atol=1e-4)
    assert not np.delete(part.numpy(), mine).any()


def test_classes_are_compared_over_all_of_them() -> None:
    start, now = tables(6, 2)
    batch = {"labels": torch.arange(6) % 2}
    passed = ForwardPass(
        np.arange(6),
        batch,
        SimpleNamespace(logits=now),
        lambda at: SimpleNamespace(logits=start[at]),
    )
    told = KLStart(share=1.0)(passed, torch.zeros(6))
    assert told.tolist() == pytest.approx(divergence(start, now).tolist(), rel=1e-5)
    assert not KLStart(share=1.0, over="others")(passed, torch.zeros(6)).any()


def test_a_pass_without_a_start_is_a_defect() -> None:
    passed = ForwardPass(
        np.arange(2), {"labels": torch.zeros(2, dtype=torch.long)}, torch.zeros(2, 2)
    )
    with pytest.raises(Defect, match="without the base model's output"):
        KLStart(share=1.0)(passed, torch.zeros(2))
