"""What every registered schedule promises, found by discovery."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from holdfast.core.errors import RecipeError
from holdfast.methods.optimizers import SCHEDULES, build_schedule, falls_to_zero

ALL = list(SCHEDULES)
SHAPES = [(1, 0), (1, 1), (10, 0), (10, 1), (10, 3), (10, 10), (97, 10), (1000, 100)]


@pytest.mark.parametrize("name", ALL)
def test_every_scale_is_between_zero_and_one(name: str) -> None:
    for steps, warmup in SHAPES:
        schedule = build_schedule(name, steps, warmup)
        scales = [schedule.scale(step) for step in range(steps + 3)]
        assert min(scales) >= 0
        assert max(scales) <= 1


@pytest.mark.parametrize("name", ALL)
def test_the_warm_up_rises_to_one_and_the_first_update_moves(name: str) -> None:
    schedule = build_schedule(name, 50, 5)
    scales = [schedule.scale(step) for step in range(5)]
    if name != "one_cycle":
        assert scales == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert 0 < scales[0] < scales[1] < scales[2] < scales[3] < scales[4] == 1


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (97, 10)])
def test_after_the_warm_up_it_never_rises(name: str, steps: int, warmup: int) -> None:
    schedule = build_schedule(name, steps, warmup)
    scales = [schedule.scale(step) for step in range(max(0, warmup - 1), steps)]
    assert scales == sorted(scales, reverse=True)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (97, 10), (10, 9)])
def test_no_update_inside_a_phase_is_wasted(name: str, steps: int, warmup: int) -> None:
    schedule = build_schedule(name, steps, warmup)
    assert all(schedule.scale(step) > 0 for step in range(steps))


@pytest.mark.parametrize("name", ALL)
def test_the_scale_depends_on_the_step_and_the_state_alone(name: str) -> None:
    """So that a resumed run goes on; the state must pass through JSON and the like."""
    losses = [1.0, 0.9, 0.95, 0.97, 0.98, 0.99, 0.5, 0.6, 0.7]
    whole, cut = build_schedule(name, 60, 6), build_schedule(name, 60, 6)
    for loss in losses[:4]:
        whole.observe(loss)
        cut.observe(loss)
    again = build_schedule(name, 60, 6)
    again.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    for loss in losses[4:]:
        whole.observe(loss)
        again.observe(loss)
    for step in (0, 3, 20, 59):
        assert again.scale(step) == whole.scale(step)


@pytest.mark.parametrize("name", ALL)
def test_which_end_at_nothing(name: str) -> None:
    """What the controller may promise of a shorter plan."""
    assert falls_to_zero(name) == (name in ("linear", "cosine", "one_cycle"))


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="cosine"):
        build_schedule("cosin", 10, 1)


ORACLES = {
    "linear": lambda o, w, n: transformers.get_linear_schedule_with_warmup(o, w, n),
    "cosine": lambda o, w, n: transformers.get_cosine_schedule_with_warmup(o, w, n),
    "constant": lambda o, w, n: transformers.get_constant_schedule_with_warmup(o, w),
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (40, 4), (97, 10)])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_after_the_warm_up_it_is_that_of_transformers(name: str, steps: int, warmup: int) -> None:
    """Theirs rises from 0 at the first update, which wastes it; ours from 1 ÷ warm-up."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = ORACLES[name](optimizer, warmup, steps)
    ours = build_schedule(name, steps, warmup)
    for step in range(steps):
        expected = theirs.get_last_lr()[0]
        if step < warmup:
            expected += 1 / warmup
        assert ours.scale(step) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("steps", "warmup"), [(10, 3), (40, 12), (97, 10), (60, 2)])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_one_cycle_is_that_of_pytorch(steps: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, pct_start=warmup / steps, cycle_momentum=False
    )
    ours = build_schedule("one_cycle", steps, warmup)
    for step in range(steps):
        assert ours.scale(step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


@pytest.mark.parametrize(("steps", "warmup"), [(40, 4), (97, 10), (50, 1)])
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_inverse_sqrt_is_that_of_transformers_one_update_on(steps: int, warmup: int) -> None:
    """Theirs is at its highest after the warm-up, ours at its last update."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = transformers.get_inverse_sqrt_schedule(optimizer, warmup)
    ours = build_schedule("inverse_sqrt", steps, warmup)
    for step in range(steps):
        optimizer.step()
        theirs.step()
        assert ours.scale(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)


PLATEAU = [
    ([], 1.0),
    ([1.0], 1.0),
    ([1.0, 1.1], 1.0),
    ([1.0, 1.1, 1.2], 0.5),
    ([1.0, 1.1, 0.9, 1.0], 1.0),
    ([1.0, 1.1, 1.1, 1.1], 0.5),
    ([1.0, 1.1, 1.1, 1.1, 1.1], 0.25),
    ([1.0, 1.0, 1.0], 0.5),
    ([3.0, 2.0, 1.0, 0.5], 1.0),
    ([1.0, float("nan"), float("nan")], 0.5),
    ([1.0, 1.1, 1.2, 0.9, 1.0, 1.0], 0.25),
]


@pytest.mark.parametrize(("losses", "factor"), PLATEAU)
def test_plateau_halves_after_two_looks_without_improvement(losses, factor: float) -> None:
    schedule = build_schedule("plateau", 100, 0)
    for loss in losses:
        schedule.observe(loss)
    assert schedule.scale(50) == factor
