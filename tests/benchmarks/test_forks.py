"""A fork's courses are what a run does that takes the action at once; regret is what it says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.core.actions import (
    Extend,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    Shorten,
    Stop,
    from_record,
)
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import make_job
from holdfast.training.loop import fit
from holdfast.training.machine.machine import make_accelerator

SETTINGS = {
    "methods.contrast": False,
    "methods.probe_first": False,
    "train.epochs": 6,
    "train.learning_rate": 1e-2,
    "train.metric": "loss",
    "train.evaluations": 6,
    "control.policy": "off",
}
CELL = {"model": "vectors", "start": "new", "rows": 48, "data": "made", "course": "good", "seed": 0}


CONTINUE, STOP = "continue", "stop"


def made():
    """48 labelled texts, 40 test texts, three classes that vectors of eight numbers nearly tell."""
    from forked.courses import Course
    from forked.stand_in import KNOWN, case
    from peers.rows import Rows

    rng = np.random.default_rng(0)
    texts = [f"text number {i}" for i in range(88)]
    labels = [("one", "two", "three")[i % 3] for i in range(88)]
    for i, text in enumerate(texts):
        vector = rng.normal(size=8).astype(np.float32)
        vector[i % 3] += 1.0
        KNOWN["vectors", text] = torch.from_numpy(vector[None])
    test = Rows(tuple(texts[48:]), tuple(labels[48:]))
    built = case("vectors", texts[:48], labels[:48], test, SETTINGS)
    return Course(built, np.arange(36), np.arange(36, 48))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        from forked import explore as exploring
        from forked.menu import MENU
        from forked.replay import joined, read

        folder = tmp_path_factory.mktemp("forks")
        names = [name for name in MENU if name != "brought down"]
        told = exploring.explore(CELL, made(), folder / "run.npz", names)
        more = exploring.explore(CELL, made(), folder / "more.npz", ["brought down"])
        assert more["continuations"]
        told["continuations"] += more["continuations"]
        return told, joined(read(folder / "run.npz"), read(folder / "more.npz"))


class Once:
    """Does at one look what a continuation did."""

    def __init__(self, step, actions):
        self.step, self.actions, self.done = step, actions, False

    def decide(self, verdict, history):
        if history[-1].step != self.step or self.done:
            return ()
        self.done = True
        return self.actions

    def restore_points(self, history):
        return {snapshot.step for snapshot in history}

    def rolled_back(self, state):
        pass

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


@pytest.mark.slow
def test_a_course_is_the_run_that_takes_the_action_at_once(recorded):
    told, run = recorded
    assert told["forks"] == 3
    assert told["continuations"] == sum(len(fork.outcomes) - 2 for fork in run.forks)
    course = made()
    checked = 0
    for fork in run.forks:
        for name in ("lower", "back, lower", "robust", "longer", "brought down", CONTINUE):
            if name not in fork.outcomes:
                continue
            outcome = fork.outcomes[name]
            taken = next(
                one["taken"]
                for one in run.found
                if one["action"] == name and one["fork"] in (0, fork.step)
            )
            actions = tuple(from_record(**one) for one in taken)
            ready = make_training_plan(course.case.prepared, course.train, course.valid)
            job, _ = make_job(ready, make_accelerator("float32"))
            trained = fit(replace(job, advisor=Once(fork.step, actions)))
            last = run.snapshots[outcome.looks[-1]]
            assert trained.history[-1].step == last.step
            assert np.array_equal(trained.history[-1].valid_logits, last.valid_logits)
            assert trained.best_step == run.snapshots[outcome.kept].step
            checked += 1
    assert checked >= 8
    # Scoring a kept state that is not the present one must leave the run as it was.
    assert any("back, lower" in fork.outcomes for fork in run.forks)


def test_what_stops_is_the_state_kept_until_then(recorded):
    _, run = recorded
    for fork in run.forks:
        kept = run.snapshots[fork.outcomes[STOP].kept]
        assert kept.step <= fork.step
        assert fork.steps(STOP) == fork.step / run.steps
        assert fork.steps(CONTINUE) == 1.0
        assert fork.steps("longer") == pytest.approx(1.5, abs=0.05)
    assert len({fork.step for fork in run.forks}) == 3


def test_a_recipe_s_policy_is_asked_at_every_fork(recorded, monkeypatch):
    from forked.replay import asked

    _, run = recorded
    monkeypatch.setattr("forked.replay.course", lambda cell, tested: made())
    steps = {fork.step for fork in run.forks}
    assert asked("off", run) == dict.fromkeys(steps, CONTINUE)
    assert set(asked("stop", run)) == steps


def outcome(name, right, kept=0):
    from forked.replay import Outcome

    return Outcome(name, np.array(right, dtype=bool), 0.0, (0,), kept)


def test_regret_is_measured_on_rows_that_did_not_choose():
    from forked.policies import always
    from forked.replay import Forked

    rng = np.random.default_rng(1)
    names = [CONTINUE, *(f"a{i}" for i in range(7))]
    raw, fair = [], []
    for _ in range(60):
        # Eight courses that are alike: the best on the rows that judge is luck, and no regret.
        alike = {name: outcome(name, rng.random(2000) < 0.7) for name in names}
        fork = Forked(None, 1, alike)
        raw.append(fork.raw_regret("a0"))
        fair.append(fork.regret("a0"))
    assert np.mean(raw) > 1.0
    assert abs(np.mean(fair)) < 0.4
    # One that is better by far is found by either.
    better = Forked(None, 1, {**alike, "b": outcome("b", rng.random(2000) < 0.9)})
    ahead = better.outcomes["b"].accuracy - better.outcomes["a1"].accuracy
    assert better.regret("a1") == pytest.approx(100 * ahead)
    assert better.regret("b") == 0
    assert always("nowhere legal")(better) == CONTINUE


def test_validation_alone_undoes_and_chooses(recorded):
    from forked.policies import always, by_validation, kept_if_better

    _, run = recorded
    for fork in run.forks:
        chosen = by_validation(fork)
        assert chosen == CONTINUE or fork.better(chosen, CONTINUE)
        for name in fork.outcomes:
            kept = kept_if_better(always(name))(fork)
            assert kept in (name, CONTINUE)
            assert (kept == name) == (name in (STOP, CONTINUE) or fork.better(name, STOP))


def test_advice_counts_as_the_entry_that_it_comes_nearest_to():
    from forked.menu import kind_of

    lower, higher = ScaleLearningRate("", 0.5), ScaleLearningRate("", 10)
    assert kind_of((), 9) == CONTINUE
    assert kind_of((Stop(""),), 9) == STOP
    assert kind_of((RollBack("", 3), lower), 9) == "back, lower"
    assert kind_of((RollBack("", 0), higher), 9) == "higher"
    assert kind_of((lower, SetDropout("", 0.2)), 9) == "lower"
    assert kind_of((RollBack("", 9), SetDropout("", 0.2)), 9) == "dropout"
    assert kind_of((RollBack("", 3), Shorten("", 8)), 9) == "brought down"
    assert kind_of((Extend("", steps=3),), 9) == "longer"


def test_faults_are_as_large_as_they_are_said_to_be():
    from forked.courses import sizes, with_wrong

    labels = ["a", "b", "c", "d"] * 25
    wrong = with_wrong(labels, {"seed": 3, "data": "cr"})
    assert sum(one != other for one, other in zip(labels, wrong, strict=True)) == 20
    assert set(wrong) == set(labels)
    falling = sizes(["a", "b", "c", "d"], 400, seed=0)
    assert max(falling.values()) / min(falling.values()) == pytest.approx(20, rel=0.1)
    assert sum(falling.values()) == pytest.approx(400, abs=3)
