"""How many steps, and where a run looks at itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import RecipeError
from holdfast.core.updates import RowPool
from holdfast.methods.contrast import ClassBatches
from holdfast.training.plan import (
    EVALUATION_BUDGET,
    FORWARD_SHARE,
    EveryRow,
    Plan,
    check_phase,
    evaluation_points,
    first_use_steps,
)
from holdfast.training.plan import steps_for as steps_for_epochs


@pytest.mark.parametrize(
    ("epochs", "rows", "batch", "steps"),
    [
        (1, 16, 16, 1),
        (1, 17, 16, 2),
        (3, 100, 16, 21),
        (0.5, 100, 16, 3),
        (0.01, 100, 16, 1),
        (2.999999999999, 100, 10, 30),
        (20, 70, 16, 100),
        (1.5, 10, 16, 1),
        (1, 1, 64, 1),
    ],
)
def test_steps_of_some_epochs(epochs: float, rows: int, batch: int, steps: int) -> None:
    assert steps_for_epochs(epochs, rows, batch) == steps


@given(st.floats(0.05, 60), st.integers(1, 5000), st.integers(1, 64))
def test_epochs_are_a_bound_but_for_the_first_step(epochs: float, rows: int, batch: int) -> None:
    steps = steps_for_epochs(epochs, rows, batch)
    assert steps == 1 or steps <= epochs * math.ceil(rows / batch) + 1e-6


def test_few_rows_and_many_passes_get_what_was_wanted(phase) -> None:
    at, probe, because = evaluation_points((phase(steps=1000, batch_size=16),), 800, 50, 20)
    assert len(at) == 21
    assert at == tuple(range(0, 1001, 50))
    assert probe == 50
    assert "20 were requested" in because


def test_the_probe_has_at_most_five_hundred_rows_and_no_more_than_validation(phase) -> None:
    long = (phase(steps=100_000, batch_size=32),)
    assert evaluation_points(long, 1_000_000, 20_000, 20)[1] == 500
    assert evaluation_points(long, 1_000_000, 77, 20)[1] == 77
    assert evaluation_points(long, 40, 77, 20)[1] == 40


def test_the_probe_shrinks_before_looks_go(phase) -> None:
    """600 steps of 16 rows allow 2,880 forward rows: with 500 of probe and 400 valid 3 looks."""
    at, probe, _ = evaluation_points((phase(steps=600, batch_size=16),), 9600, 400, 4)
    assert probe == 100
    assert len(at) == 5


PHASES = st.lists(
    st.tuples(
        st.sampled_from([EveryRow(), ClassBatches()]), st.integers(1, 400), st.integers(1, 64)
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=200)
@given(PHASES, st.integers(2, 3000), st.integers(0, 800), st.integers(1, 40))
def test_a_look_an_epoch_as_far_as_wanted_at_every_end_and_within_the_budget(
    drawn, rows: int, valid: int, wanted: int
) -> None:
    from holdfast.training.plan import Phase

    phases = tuple(
        Phase(
            name=str(i),
            head="train" if source.has_epochs else "refit",
            source=source,
            steps=steps,
            batch_size=batch,
            learning_rate=1.0,
            head_learning_rate=1.0,
        )
        for i, (source, steps, batch) in enumerate(drawn)
    )
    at, probe, _ = evaluation_points(phases, rows, valid, wanted)
    total = sum(phase.steps for phase in phases)
    assert list(at) == sorted(set(at))
    assert at[0] == 0
    assert at[-1] == total
    assert min(rows, 50) <= probe <= min(rows, 500)
    epochs = sum(
        1 if not p.source.has_epochs else math.ceil(p.steps / math.ceil(rows / p.batch_size))
        for p in phases
    )
    start = needed = 0
    for phase in phases:
        assert start + phase.steps in at
        per = math.ceil(rows / phase.batch_size) if phase.source.has_epochs else phase.steps
        for epoch in range(start, start + phase.steps, per):
            stop = min(epoch + per, start + phase.steps)
            seen = any(epoch < step <= stop for step in at)
            assert seen or epochs > wanted, (at, epoch, stop)
            needed += 1
        start += phase.steps
    refit = rows if any(phase.head == "refit" for phase in phases) else 0
    work = sum(phase.steps * phase.batch_size for phase in phases)
    least = min(probe, max(valid, 1))  # what is filled up to 50 is not counted
    cost = len(at) * (least + valid + refit) * FORWARD_SHARE
    needed = min(needed, max(wanted, len(phases)))
    # Each phase keeps its end, so rounding may cost one look a phase.
    assert len(at) <= max(needed, wanted) + len(phases)
    assert cost <= EVALUATION_BUDGET * work or len(at) <= needed + len(phases)


def test_a_long_run_on_few_rows_looks_as_often_as_is_wanted_and_its_probe_can_show_a_gap(
    phase,
) -> None:
    at, probe, _ = evaluation_points((phase(steps=4 * 60, batch_size=16),), 49, 11, 20)
    assert len(at) == 21
    assert probe == 49
    assert evaluation_points((phase(steps=4 * 6, batch_size=16),), 200, 11, 20)[1] == 50


def test_a_phase_without_a_step_is_refused(phase) -> None:
    with pytest.raises(RecipeError):
        check_phase(phase(steps=0))


def test_warm_up_is_rounded_up(phase) -> None:
    assert phase(steps=15, warmup=0.1).warmup_steps == 2
    assert phase(steps=15, warmup=0.0).warmup_steps == 0


def test_first_seen_is_what_walking_the_steps_finds(phase, contrast_phase, examples) -> None:
    """Over a phase by class, which draws some rows again, and one by epochs."""
    rows = examples(90, 3)
    phases = (contrast_phase(steps=4, batch_size=8), phase(steps=30, batch_size=8))
    expected, step = np.full(90, -1), 0
    for one in phases:
        pool = RowPool(rows, 8, 0, one.name)
        for k in range(one.steps):
            step += 1
            for row in one.source.draw(pool, k).rows:
                expected[row] = step if expected[row] < 0 else expected[row]
    places = np.random.default_rng(0).permutation(90)[:40]
    assert first_use_steps(phases, rows, 0, places).tolist() == expected[places].tolist()


def test_a_row_that_a_short_run_never_uses_is_first_seen_at_minus_one(phase, examples) -> None:
    seen = first_use_steps((phase(steps=2, batch_size=8),), examples(50), 0, np.arange(50))
    assert sorted(seen.tolist()) == [-1] * 34 + [1] * 8 + [2] * 8


def test_a_head_is_refitted_at_the_looks_of_its_phase_but_not_before_any_step(phase) -> None:
    first, then = phase(steps=20, batch_size=8, head="refit"), phase(steps=30, batch_size=8)
    at = (0, 7, 20, 35, 50)
    assert Plan((first, then), at, 50, 0).refits == 2
    assert Plan((then, first), (0, 15, 30, 31, 50), 50, 0).refits == 2
    assert Plan((then,), at, 50, 0).refits == 0
