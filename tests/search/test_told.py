"""What is said of a search: who won, what mattered, who is beaten in everything, who ends early."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import optuna
import pytest
from sklearn.metrics import log_loss

from holdfast.core.errors import RecipeError, TrainingError
from holdfast.core.records import Snapshot
from holdfast.search.context import SearchContext, run_job, timing_batches
from holdfast.search.job import FitJob
from holdfast.search.space import Dimension, Space
from holdfast.search.study import TrialResult
from holdfast.search.study_block import importance, latency_ms, merge_close_times, pareto_front
from holdfast.search.study_verdict import DEFAULT, judge_trials, trial_name, trial_stop_reason
from holdfast.search.trial_plan import Pruning, choose_pruner, choose_sampler, shuffled_grid


def tried(number: int, losses: Any, cost: float = 100.0, **more: Any) -> TrialResult:
    rows = np.asarray(losses, dtype=np.float64)
    base = TrialResult(
        number=number,
        settings={"train.epochs": number} if number else {},
        origin="sampler" if number else "default",
        state="complete",
        losses=rows,
        correct=(rows < np.log(2)).astype(float),
        metrics={},
        cost=cost,
        seconds=1.0,
        parameters=10,
        verdict="healthy",
        best_step=1,
        last_step=1,
        planned=1,
        because="done",
    )
    return dataclasses.replace(base, **more)


def hard(rng: np.random.Generator, n: int) -> Any:
    return rng.exponential(0.6, n)


def test_a_trial_that_is_better_on_every_row_wins_and_is_expected_to_score_less() -> None:
    rng = np.random.default_rng(0)
    rows = hard(rng, 80)
    trials = [tried(0, rows), tried(1, rows * 0.5), tried(2, rows + 0.3)]
    found = judge_trials(trials, "accuracy", 100)
    assert found.winner.number == 1
    assert not found.noise
    seen = float(np.mean(rows * 0.5 < np.log(2)))
    assert found.expected.low < found.expected.value <= seen < found.expected.high
    assert found.optimism.value == pytest.approx(seen - found.expected.value)
    assert set(found.expected_by_number) == {0, 1, 2}
    assert "the default" in found.because


def test_fewer_test_rows_are_expected_less_surely_and_of_equal_trials_the_cheaper_is_kept() -> None:
    rows = hard(np.random.default_rng(0), 80)
    trials = [tried(0, rows), tried(1, rows * 0.5, 900.0), tried(2, rows * 0.5004, 300.0)]
    few, many = (judge_trials(trials, "accuracy", n) for n in (20, 2000))
    assert few.winner.number == many.winner.number == 2
    assert few.expected.value == many.expected.value
    assert few.expected.low < many.expected.low < many.expected.high < few.expected.high


def test_luck_among_many_trials_is_called_noise_and_the_default_kept() -> None:
    rng = np.random.default_rng(1)
    rows = hard(rng, 60)
    trials = [tried(i, np.abs(rows + (i > 0) * rng.normal(0.02, 0.3, 60))) for i in range(24)]
    found = judge_trials(trials, "accuracy", 100)
    assert found.noise
    assert found.winner.number == 0
    assert found.optimism.value == 0
    assert found.top.number != 0
    assert found.most_promising.number == 0 or found.p_value > 0.05


def test_of_losses_the_expected_one_is_larger_than_what_was_seen() -> None:
    rng = np.random.default_rng(2)
    rows = hard(rng, 80)
    trials = [
        dataclasses.replace(tried(i, np.abs(rows * (1 - 0.2 * i))), correct=None) for i in range(3)
    ]
    found = judge_trials(trials, "loss", 100)
    assert found.winner.number == 2
    seen = float(found.winner.losses.mean())
    assert found.expected.low < seen <= found.expected.value < found.expected.high
    assert found.optimism.value == pytest.approx(found.expected.value - seen)
    assert found.top.number == 2


def test_without_a_whole_trial_the_search_is_refused() -> None:
    broken = dataclasses.replace(tried(0, [np.nan, 1.0]), state="failed", because="no number")
    with pytest.raises(TrainingError, match="no number"):
        judge_trials([broken], "accuracy", 10)
    # A default that failed costs no search: the trials are held against the one in the middle.
    others = [tried(i, np.full(30, 0.1 * i)) for i in (1, 2, 3)]
    found = judge_trials([broken, *others], "accuracy", 10)
    assert found.default is None
    assert found.winner.number in (1, 2)


def test_a_trial_that_is_behind_on_the_rows_of_its_first_folds_has_no_other() -> None:
    rng = np.random.default_rng(3)
    rows = hard(rng, 90)
    whole = [tried(0, rows), tried(1, rows * 0.9)]
    part = np.where(np.arange(90) < 60, rows + 1.5, np.nan)
    assert trial_stop_reason(tried(2, part), whole) is not None
    alike_ = np.where(np.arange(90) < 60, rows * 0.92, np.nan)
    assert trial_stop_reason(tried(3, alike_), whole) is None
    assert trial_stop_reason(dataclasses.replace(tried(4, part), origin="default"), whole) is None
    assert trial_stop_reason(tried(5, part), []) is None
    # It is held against the best of the others, not against any.
    spread = [tried(0, rows), tried(1, rows * 0.2), tried(2, rows + 2)]
    as_default = np.where(np.arange(90) < 60, rows, np.nan)
    assert trial_stop_reason(tried(6, as_default), spread) is not None
    assert trial_name(whole[0]) == DEFAULT


def test_the_sampler_goes_by_the_probability_of_what_was_right() -> None:
    chances = np.array([0.9, 0.2, 0.5])
    assert tried(1, -np.log(chances)).score == pytest.approx(chances.mean())
    assert tried(1, [np.nan, -np.log(0.5)]).score == pytest.approx(0.5)


def completed(values: Any, points: list[dict[str, float]]) -> list[Any]:
    study = optuna.create_study()
    space = {key: optuna.distributions.FloatDistribution(0.0, 1.0) for key in points[0]}
    for value, point in zip(values, points, strict=True):
        trial = optuna.trial.create_trial(value=float(value), params=point, distributions=space)
        study.add_trial(trial)
    return study.get_trials()


@pytest.mark.slow
def test_what_moves_the_score_matters_and_chance_does_not() -> None:
    rng = np.random.default_rng(0)
    points = [{name: float(rng.random()) for name in "abc"} for _ in range(40)]
    moved = importance(completed([p["a"] ** 2 for p in points], points), 0)
    assert moved["matter"] == ["a"]
    assert sum(moved["shares"].values()) == pytest.approx(1, abs=0.01)
    told = [
        importance(completed(np.random.default_rng(seed).random(40), points), seed)["matter"]
        for seed in range(2)
    ]
    assert sum(map(bool, told)) <= 1
    few = importance(completed([p["a"] for p in points[:6]], points[:6]), 0)
    assert "not enough evidence" in few["why"]
    assert few["matter"] == []


def test_the_front_is_what_nobody_beats_in_everything() -> None:
    rng = np.random.default_rng(0)
    points = [tuple(map(float, rng.integers(0, 6, 3))) for _ in range(60)]
    by_hand = {
        point
        for point in points
        if not any(
            all(a <= b for a, b in zip(o, point, strict=True)) and o != point for o in points
        )
    }
    kept = pareto_front(points)
    assert {points[i] for i in kept} == by_hand
    assert len(kept) == len(by_hand)
    assert merge_close_times([1.0, 1.1, 5.0, 5.5, 0.99]) == [0.99, 0.99, 5.0, 5.0, 0.99]


def test_the_time_of_an_answer_is_measured_without_changing_the_model(bench: SearchContext) -> None:
    before = [p.clone() for p in bench.prepared({}).loaded.network.parameters()]
    assert latency_ms(bench, {}) > 0
    after = bench.prepared({}).loaded.network.parameters()
    assert all(bool((one == other).all()) for one, other in zip(before, after, strict=True))


def test_answers_are_timed_on_rows_of_medium_length(bench: SearchContext) -> None:
    prepared = bench.prepared({})
    lengths = np.asarray(prepared.examples.lengths)
    _, batches = timing_batches(prepared, 4)
    timed = [int(batch["attention_mask"].sum()) for batch in batches]
    assert len(timed) == 4
    assert min(timed) <= np.median(lengths) <= max(timed)
    assert len(timing_batches(prepared, 1000)[1]) == len(lengths)


@pytest.mark.slow
def test_refined_losses_are_those_of_the_calibrated_answers(bench: SearchContext) -> None:
    """The best temperature for the rows is found again by a search over many."""
    seen: list[Snapshot] = []

    class Watch:
        def stop_reason(self, key: str, look: Snapshot) -> None:
            seen.append(look)

    job = FitJob("one", bench.train, bench.valid, bench.train[:0], {"train.epochs": 1})
    done = run_job(bench, job, Watch())
    assert done.best is not None
    assert done.refined is not None
    kept = next(look for look in seen if look.step == done.best_step)
    labels = np.asarray(bench.rows.take(bench.valid).column("label"))
    assert kept.valid_logits is not None
    logits = kept.valid_logits.astype(np.float64)

    def chances(temperature: float) -> Any:
        scaled = np.exp(logits / temperature)
        return scaled / scaled.sum(axis=1, keepdims=True)

    best = min(log_loss(labels, chances(t)) for t in np.geomspace(0.01, 100, 4000))
    assert done.refined.mean() == pytest.approx(best, abs=1e-3)
    assert done.refined.mean() == pytest.approx(done.evaluations.refined[done.best])


def look(step: int, loss: float, seen: int = 10) -> Snapshot:
    n = np.full(30, loss)
    return Snapshot(
        step, step / 10, seen, "finetune", n, n, {}, {}, loss, 1.0, 1e-3, 1.0, 0.01, 0.01, 0.0
    )


def test_a_trial_that_diverges_ends_and_one_that_learns_goes_on() -> None:
    watch = Pruning("verdict")
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.05, 30)

    def said(key: str, losses: list[float]) -> list[str | None]:
        told = []
        for step, loss in enumerate(losses):
            one = look(10 * step, loss)
            rows = loss + noise
            told.append(
                watch.stop_reason(
                    key, dataclasses.replace(one, train_losses=rows, valid_losses=rows)
                )
            )
        return told

    assert said("good", [1.1, 0.9, 0.7, 0.6, 0.5]) == [None] * 5
    bad = said("bad", [1.1, 3.0, 9.0, 20.0, 40.0])
    assert bad[0] is None
    assert any(one is not None and "diverging" in one for one in bad)
    watch.follow("spared", None, spared=True)
    assert said("spared", [1.1, 3.0, 9.0, 20.0, 40.0]) == [None] * 5


def test_the_clock_ends_a_trial_but_not_the_default() -> None:
    watch = Pruning("none", until=0.0)
    watch.follow("default", None, spared=True)
    assert watch.stop_reason("default", look(5, 1.0)) is None
    assert watch.stop_reason("other", look(0, 1.0)) is None
    assert "time limit" in str(watch.stop_reason("other", look(5, 1.0)))


def test_halving_ends_what_is_behind_where_others_were() -> None:
    """As Optuna's pruner says of the same reports."""
    watch = Pruning("halving", 100.0)
    from holdfast.search.trial_plan import make_pruner

    study = optuna.create_study(direction="maximize", pruner=make_pruner("halving"))
    ended = []
    for number, loss in enumerate([0.2, 0.3, 0.4, 2.0, 2.5, 3.0]):
        trial = study.ask()
        watch.follow(str(number), trial)
        told = [watch.stop_reason(str(number), look(s, loss, seen=s)) for s in (10, 30, 60, 90)]
        ended.append(any(told))
        if not any(told):
            study.tell(trial, float(np.exp(-loss)))
    assert not ended[0]
    assert all(ended[3:])


def test_the_sampler_and_the_pruner_are_chosen_with_a_reason() -> None:
    numbers = Space((Dimension("train.learning_rate", "number", 1e-5, 1e-3, log=True),))
    choices = Space((Dimension("train.optimizer", "choice", choices=("adamw", "sgd")),))
    assert choose_sampler("auto", choices, 8).chosen == "grid"
    assert choose_sampler("auto", numbers, 8).chosen == "random"
    assert choose_sampler("auto", numbers, 32).chosen == "gp"
    mixed = Space((*numbers, *choices))
    assert choose_sampler("auto", mixed, 32).chosen == "tpe"
    assert choose_sampler("grid", mixed, 32).because == "set in the recipe"
    assert choose_pruner("auto", 0).chosen == "verdict"
    assert choose_pruner("auto", 5).chosen == "race"


def test_a_grid_of_too_many_points_is_counted_without_them_and_refused() -> None:
    large = [Dimension(f"train.{n}", "whole", 1, 2_000_000_000, 1.0) for n in ("epochs", "warmup")]
    assert choose_sampler("auto", Space(tuple(large)), 8).chosen == "random"
    many = [Dimension(n, "whole", 1, 100, 1.0) for n in ("train.epochs", "train.x", "train.y")]
    for space in (Space(tuple(large)), Space(tuple(many))):
        with pytest.raises(RecipeError, match=r"more than 100,000 points"):
            shuffled_grid(space, 0)
    assert len(shuffled_grid(Space(tuple(many[:2])), 0)) == 10_000


def test_an_equal_trial_is_rarely_dropped_where_the_rows_are_sorted_by_class() -> None:
    """It is worse on the first class and better on the second."""
    dropped, draws, n = 0, 150, 240
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        leader = 1 / (1 + np.exp(-rng.normal(1, 0.8, n)))
        shift = np.where(np.arange(n) < n // 2, -0.06, 0.06)
        trial = np.clip(leader + shift + rng.normal(0, 0.05, n), 0.01, 0.99)
        whole = [tried(0, -np.log(leader))]
        dropped += trial_stop_reason(tried(1, -np.log(trial)), whole) is not None
    assert dropped <= 0.1 * draws
