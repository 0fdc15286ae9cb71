"""A fork's courses are what a run does that takes the action at once; regret is what it says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.core.actions import RollBack
from holdfast.fits.compose import make_training_plan
from holdfast.fits.fit import make_job
from holdfast.training.loop import fit
from holdfast.training.machine.machine import make_accelerator

SETTINGS = {
    "methods.contrast": False,
    "methods.probe_first": False,
    "train.epochs": 6,
    "train.learning_rate": 2e-2,
    "train.metric": "loss",
    "train.evaluations": 6,
}
CELL = {"data": "made", "fault": "none", "seed": 0, "fork": 0.5}


@pytest.fixture(scope="module")
def forks():
    """The benchmark, on 48 labelled and 40 test texts of three classes that vectors nearly tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        import forks
        from peers.rows import Rows
        from peers.stand_in import KNOWN, case

        rng = np.random.default_rng(0)
        texts = [f"text number {i}" for i in range(88)]
        labels = [("one", "two", "three")[i % 3] for i in range(88)]
        for i, text in enumerate(texts):
            vector = rng.normal(size=8).astype(np.float32)
            vector[i % 3] += 1.0
            KNOWN["vectors", text] = torch.from_numpy(vector[None])
        test = Rows(tuple(texts[48:]), tuple(labels[48:]))
        made = case("vectors", texts[:48], labels[:48], test, SETTINGS)
        rows = forks.Rows(made.prepared, np.arange(36), np.arange(36, 48), made.test)

        def planned(cell, policy):
            of_policy = {"control.policy": policy}
            return rows, make_training_plan(rows.prepared, rows.train, rows.valid, of_policy)

        patch.setattr(forks, "planned", planned)
        yield forks


class Once:
    """Does at one evaluation what a course did."""

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
def test_a_course_is_the_run_that_takes_the_action_at_once(forks, monkeypatch):
    taken = {}
    for name, make in forks.MENU.items():

        def recorded(fork, name=name, make=make):
            taken[name] = make(fork)
            return taken[name]

        monkeypatch.setitem(forks.MENU, name, recorded)
    explorer = forks.explored(CELL)
    possible = [name for name, actions in taken.items() if actions]
    assert len(possible) >= 5
    assert set(explorer.right) == {forks.GO_ON, forks.STOP, *possible}
    # Scoring a checkpoint that is not the present state must leave the run as it was.
    assert any(isinstance(one, RollBack) for name in possible for one in taken[name])
    for name in (forks.GO_ON, *possible):
        rows, plan = forks.planned(CELL, "off")
        scorer = forks.Explorer(CELL, rows, plan, ())
        job, _ = make_job(plan, make_accelerator("float32"), listeners=[scorer])
        fit(replace(job, advisor=Once(explorer.step, taken.get(name, ()))))
        assert np.array_equal(scorer.score(), explorer.right[name]), name
    assert any(
        not np.array_equal(one, explorer.right[forks.STOP]) for one in explorer.right.values()
    )


@pytest.mark.slow
def test_the_policy_decides_from_the_fork_on(forks):
    result = forks.run_one(CELL)
    assert result["same_at_fork"]
    assert forks.right_of({**result, **CELL}).keys() >= {forks.ADAPT, forks.GO_ON, forks.STOP}
    assert forks.by_fault([{**result, **CELL}]).count("none") == 1


def test_regret_is_measured_on_rows_that_did_not_choose(forks):
    rng = np.random.default_rng(1)
    names = [forks.GO_ON, forks.STOP, *forks.MENU]
    fair = []
    for _ in range(60):
        # Nine courses that are alike: the best on the rows that judge is luck, and no regret.
        alike = {name: rng.random(2000) < 0.7 for name in names}
        fair.append(forks.regret(alike, forks.STOP))
    assert abs(np.mean(fair)) < 0.4
    # One that is better by far is found by either half.
    better = {**alike, forks.GO_ON: rng.random(2000) < 0.9}
    ahead = better[forks.GO_ON].mean() - better[forks.STOP].mean()
    assert forks.regret(better, forks.STOP) == pytest.approx(100 * ahead)
    assert forks.regret(better, forks.GO_ON) == 0


def test_each_fault_has_early_and_late_forks(forks):
    cells = forks.cells()
    assert len({str(cell) for cell in cells}) == len(cells)
    for fault in {cell["fault"] for cell in cells}:
        shares = [cell["fork"] for cell in cells if cell["fault"] == fault]
        assert shares.count(0.25) == shares.count(0.5)
