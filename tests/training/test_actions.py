"""Actions in a run: each does what it says, survives a kill, and is undone by going back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.core.actions import (
    ACTIONS,
    Action,
    Extend,
    Freeze,
    ResetHead,
    Reshuffle,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    SetWeightDecay,
    Shorten,
    Stop,
    StrengthenAugmentation,
    SwitchOn,
    Unfreeze,
    from_record,
    to_record,
)
from holdfast.core.branches import snapshot_events_on_branch
from holdfast.core.errors import Interrupted, RecipeError, RunError
from holdfast.core.events import RollsBack
from holdfast.core.records import Branch, Snapshot, Verdict
from holdfast.terminal.progress import RunDisplay
from holdfast.training.guard import begin_run
from holdfast.training.loop import TrainingResult, fit
from holdfast.training.run import Job

WHY = "a test wants it"
LOOKS = (0, 2, 4, 6, 8, 10)


class Script:
    """Takes each action at the n-th look of its life, whatever it sees. ``keep`` are the steps to
    which it may go back; how many looks it has lived through is what it knows for good."""

    def __init__(self, actions: dict[int, tuple[Action, ...]], keep: Sequence[int] = ()) -> None:
        self.actions, self.keep, self.looks, self.returned = actions, tuple(keep), 0, 0

    def decide(self, verdict: Verdict, history: Sequence[Snapshot]) -> tuple[Action, ...]:
        self.looks += 1
        return self.actions.get(self.looks, ())

    def restore_points(self, history: Sequence[Snapshot]) -> tuple[int, ...]:
        return self.keep

    def rolled_back(self, state: dict[str, Any]) -> None:
        self.returned += 1
        assert state["looks"] < self.looks

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks, "returned": self.returned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.looks, self.returned = state["looks"], state["returned"]


def weights(made: Job) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in made.network.named_parameters()}


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def last(history: Sequence[Snapshot]) -> int:
    return len(history) - 1


@pytest.fixture
def build(job: Any, phase: Any) -> Any:
    """A run of ten steps with dropout and decay, whose last state is the one that is kept."""

    def make(folder: Path | None = None, **changes: Any) -> Job:
        plain = phase(weight_decay=0.1, schedule="plateau", warmup=0.2)
        settings = {"phases": (plain,), "dropout": 0.3, "evaluate_at": LOOKS, "choose": last}
        made: Job = job(folder, **(settings | changes))
        return made

    return make


class At:
    """Hears one event, and does something at its n-th time."""

    name = "at"

    def __init__(self, event: str, count: int, what: Any) -> None:
        self.left, self.what = count, what
        setattr(self, event, self.hear)

    def hear(self, run: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.what(run)


class After(At):
    """A second one beside it."""

    name = "after"


def seen_at(step: int, build: Any, action: Action, **changes: Any) -> dict[str, Any]:
    """What a run looks like right after the step ``step``, where ``action`` was taken at the look
    of step 4."""
    found: dict[str, Any] = {}

    def look(run: Any) -> None:
        found.update(
            rate=run.learning_rate,
            decay=[group["weight_decay"] for group in run.optimizer.param_groups],
            dropout=run.network.dropout.p,
            weights={n: p.detach().clone() for n, p in run.network.named_parameters()},
        )

    listener = At("step_done", step, look)
    made = build(advisor=Script({3: (action,)}), listeners=(listener,), **changes)
    found["fitted"], found["job"] = fit(made), made
    return found


def test_the_rate_is_scaled_for_every_step_after_it(build: Any, phase: Any) -> None:
    steady = (phase(schedule="constant"),)
    halved = ScaleLearningRate(WHY, 0.5)
    assert seen_at(4, build, halved, phases=steady)["rate"] == 0.05
    assert seen_at(5, build, halved, phases=steady)["rate"] == 0.025
    assert seen_at(10, build, halved, phases=steady)["rate"] == 0.025


def test_two_scalings_multiply(build: Any, phase: Any) -> None:
    found: list[float] = []
    listener = At("step_done", 7, lambda run: found.append(run.learning_rate))
    halved = (ScaleLearningRate(WHY, 0.5),)
    steady = (phase(schedule="constant"),)
    fit(build(advisor=Script({2: halved, 3: halved}), listeners=(listener,), phases=steady))
    assert found == [0.05 * 0.25]


def test_a_schedule_that_has_halved_the_rate_keeps_it_so_after_an_action(build: Any) -> None:
    """A plateau's rate is its own state, which no plan knows."""
    found: list[float] = []

    def worsen(run: Any) -> None:
        before = run.schedule.scale(run.step_in_phase)
        for _ in range(50):
            run.schedule.observe(1e9)
        found.extend((before, run.schedule.scale(run.step_in_phase)))

    def compare(run: Any) -> None:
        found.append(run.schedule.scale(run.step_in_phase))

    listeners = (At("step_done", 4, worsen), After("step_done", 5, compare))
    fit(build(advisor=Script({3: (SetWeightDecay(WHY, 0.2),)}), listeners=listeners))
    before, halved, after = found
    assert halved < before
    assert after == halved


def test_a_scaled_rate_moves_weights_as_far_as_such_a_rate_does(build: Any, phase: Any) -> None:
    """Plain gradient descent moves in proportion to its rate, by what PyTorch does itself."""
    plain = (phase(schedule="constant", optimizer="sgd"),)
    before = seen_at(4, build, Stop(WHY), phases=plain, dropout=0.0)["weights"]
    whole = seen_at(5, build, ScaleLearningRate(WHY, 1.0), phases=plain, dropout=0.0)["weights"]
    third = seen_at(5, build, ScaleLearningRate(WHY, 1 / 3), phases=plain, dropout=0.0)["weights"]
    for name in ("body.weight", "head.weight"):
        moved = (whole[name] - before[name]) / 3
        torch.testing.assert_close(third[name] - before[name], moved, rtol=1e-3, atol=1e-7)


def test_decay_is_set(build: Any) -> None:
    assert seen_at(4, build, SetWeightDecay(WHY, 0.7))["decay"] == [0.1, 0.1]
    assert seen_at(5, build, SetWeightDecay(WHY, 0.7))["decay"] == [0.7, 0.7]


def test_dropout_is_set_and_the_network_leaves_with_its_own(build: Any) -> None:
    found = seen_at(5, build, SetDropout(WHY, 0.9))
    assert found["dropout"] == 0.9
    assert found["job"].network.dropout.p == 0.3
    with pytest.raises(RunError, match="all dropouts of the network are off"):
        seen_at(5, build, SetDropout(WHY, 0.9), dropout=0.0)


def test_what_is_frozen_does_not_move_and_the_rest_does(build: Any) -> None:
    """Neither by its gradient nor by the weight decay or the momentum that an optimizer keeps."""
    at, end = (
        seen_at(step, build, Freeze(WHY, ("body.*",)), choose=last)["weights"] for step in (4, 10)
    )
    assert torch.equal(at["body.weight"], end["body.weight"])
    assert torch.equal(at["body.bias"], end["body.bias"])
    assert not torch.equal(at["head.weight"], end["head.weight"])


def test_what_was_frozen_learns_again(build: Any) -> None:
    script = Script({2: (Freeze(WHY, ("body.*",)),), 4: (Unfreeze(WHY, ("body.weight",)),)})
    seen: list[dict[str, torch.Tensor]] = []
    keep = At("step_done", 6, lambda run: seen.append(weights(run.job)))
    made = build(advisor=script, listeners=(keep,))
    fit(made)
    end = weights(made)
    assert not torch.equal(seen[0]["body.weight"], end["body.weight"])
    assert torch.equal(seen[0]["body.bias"], end["body.bias"])
    assert all(p.requires_grad for n, p in made.network.named_parameters() if "words" not in n)


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (Freeze(WHY, ("nowhere",)), "no trainable layer has this name"),
        (Freeze(WHY, ("words.*",)), "no trainable layer has this name"),
        (Unfreeze(WHY, ("nowhere",)), "no unfreezable layer has this name"),
        (Shorten(WHY, 4), "cannot end there"),
        (Shorten(WHY, 10), "cannot end there"),
        (SwitchOn(WHY, "nothing"), "no phase that is still to come accepts it"),
        (StrengthenAugmentation(WHY), "no phase that is still to come accepts it"),
        (Freeze(WHY, ("*",)), "no trainable parameter would be left"),
        (Unfreeze(WHY, ("body.*",)), "trainable already"),
    ],
)
def test_what_cannot_be_done_is_refused(build: Any, action: Action, told: str) -> None:
    with pytest.raises(RunError, match=told):
        seen_at(5, build, action)


def test_what_a_phase_leaves_alone_is_not_counted_as_left_to_learn(
    build: Any, phase: Any, contrast_phase: Any
) -> None:
    """A contrast phase refits its head and learns the body alone. At its last look it is over."""
    phases = (contrast_phase(steps=4), phase(steps=6))
    frozen = {"phases": phases, "evaluate_at": LOOKS}
    with pytest.raises(RunError, match="would be left in the phase 'contrast'"):
        fit(build(advisor=Script({2: (Freeze(WHY, ("body.*",)),)}), **frozen))
    assert fit(build(advisor=Script({3: (Freeze(WHY, ("body.*",)),)}), **frozen)).last_step == 10


@pytest.mark.parametrize("more", [Extend(WHY, steps=5), Extend(WHY, epochs=1)])
@pytest.mark.parametrize("look", [2, 6])
def test_a_run_is_extended_and_looked_at_as_often_to_its_new_end(
    build: Any, more: Extend, look: int
) -> None:
    """At the last look too, where the run would have been over."""
    fitted = fit(build(advisor=Script({look: (more,)})))
    assert fitted.last_step == 15
    assert [s.step for s in fitted.history] == [*LOOKS, 12, 14, 15]
    planned = {s.step: s.planned_steps for s in fitted.history}
    assert planned[LOOKS[look - 1]] is None
    assert planned[15] == 15
    assert "all 15 planned steps" in fitted.stopped_because


def test_an_extended_schedule_is_that_of_the_longer_phase(build: Any, phase: Any) -> None:
    """Beside a run that was planned so from its beginning; the warm-up keeps its steps."""
    short = (phase(schedule="linear", warmup=0.2),)
    long = (phase(schedule="linear", warmup=2 / 15, steps=15),)
    rates = [
        [snapshot.learning_rate for snapshot in fitted.history[3:]]
        for fitted in (
            fit(build(phases=short, advisor=Script({2: (Extend(WHY, 5),)}))),
            fit(build(phases=long, evaluate_at=(*LOOKS, 12, 14, 15))),
        )
    ]
    assert rates[0] == pytest.approx(rates[1])


@pytest.mark.parametrize("end", [5, 6, 7, 9])
def test_a_shortened_run_ends_there_with_its_schedule_at_its_end(
    build: Any, phase: Any, end: int
) -> None:
    """Beside a run that was planned so from its beginning; the warm-up keeps its steps."""
    shapes = [phase(schedule="linear", warmup=2 / n, steps=n, weight_decay=0.1) for n in (10, end)]
    looks = (*(step for step in LOOKS if step < end), end)
    cut = fit(build(phases=shapes[:1], advisor=Script({3: (Shorten(WHY, end),)})))
    planned = fit(build(phases=shapes[1:], evaluate_at=looks))
    assert [s.step for s in cut.history] == list(looks)
    assert cut.history[-1].planned_steps == cut.last_step == end
    rates = [[s.learning_rate for s in run.history[3:]] for run in (cut, planned)]
    assert rates[0] == pytest.approx(rates[1])


def test_what_is_shortened_may_be_extended_again(build: Any) -> None:
    script = Script({2: (Shorten(WHY, 6),), 4: (Extend(WHY, steps=4),)})
    assert fit(build(advisor=script)).last_step == 10


def with_words(network: Any, phase: Any) -> list[dict[str, Any]]:
    """Groups of whatever learns, the words too where they do."""
    rate, decay = phase.learning_rate, phase.weight_decay
    layers = (network.words, network.body, network.head)
    chosen = [[p for p in layer.parameters() if p.requires_grad] for layer in layers]
    return [{"params": ps, "lr": rate, "weight_decay": decay} for ps in chosen if ps]


def test_layers_that_never_learned_begin_to(build: Any) -> None:
    """The word vectors of this network are frozen from the start."""
    script = Script({3: (Unfreeze(WHY, ("words.*",)),)})
    found: list[dict[str, torch.Tensor]] = []
    listeners = (
        At("step_done", 4, lambda run: found.append(weights(run.job))),
        After("step_done", 10, lambda run: found.append(weights(run.job))),
    )
    made = build(listeners=listeners, advisor=script, groups=with_words)
    loaded = weights(made)
    fit(made)
    assert torch.equal(found[0]["words.weight"], loaded["words.weight"])
    assert not torch.equal(found[1]["words.weight"], loaded["words.weight"])
    assert equal(found[1], weights(made))


def test_what_began_to_learn_is_as_it_was_loaded_where_an_earlier_state_is_kept(build: Any) -> None:
    def second(history: Sequence[Snapshot]) -> int:
        return min(1, len(history) - 1)

    thaw = Script({3: (Unfreeze(WHY, ("words.*",)),)})
    plain, thawed = build(choose=second), build(choose=second, advisor=thaw, groups=with_words)
    fit(plain)
    fit(thawed)
    assert equal(weights(plain), weights(thawed))


def test_rows_come_in_another_order_after_a_reshuffle_and_each_once(build: Any) -> None:
    """Five steps are an epoch of 40 rows."""
    drawn: dict[str, list[list[int]]] = {"plain": [], "shuffled": []}
    for name, script in (("plain", {}), ("shuffled", {1: (Reshuffle(WHY),)})):

        class Note:
            name = "note"

            def __init__(self, into: list[list[int]]) -> None:
                self.into = into

            def loss_ready(self, run: Any) -> None:
                self.into.append(run.batch_losses.rows.tolist())

        fit(build(advisor=Script(script), listeners=(Note(drawn[name]),)))
    whole = [sorted(row for rows in drawn[name][:5] for row in rows) for name in drawn]
    assert whole == [list(range(40))] * 2
    assert drawn["plain"] != drawn["shuffled"]


def test_a_reset_head_is_the_first_one_without_a_memory(build: Any) -> None:
    found: dict[str, Any] = {}

    def look(run: Any) -> None:
        head = run.network.head.weight
        found.update(first=run.initial_tensors["head.weight"], now=head.detach().clone())
        found.update(moments=float(run.optimizer.state[head]["step"]))

    # A rate of nothing leaves the head where the reset has put it.
    still = (ResetHead(WHY), ScaleLearningRate(WHY, 1e-12))
    made = build(advisor=Script({3: still}), listeners=(At("step_done", 5, look),))
    start = weights(made)["head.weight"]
    fit(made)
    torch.testing.assert_close(found["now"], start, rtol=0, atol=1e-9)
    assert torch.equal(found["first"], start)
    assert found["moments"] == 1.0


class Tilt:
    """A loss term that is easy to see: every loss times a factor."""

    name, compares_rows = "tilt", False

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, passed: Any, losses: torch.Tensor) -> torch.Tensor:
        return self.factor * losses


class Pull:
    """A listener that changes the run by what it has counted, and says when it comes and goes."""

    name, place = "pull", "change"

    def __init__(self, heard: list[str]) -> None:
        self.heard, self.count = heard, 0

    def run_start(self, run: Any) -> None:
        self.heard.append("start")

    def run_end(self, run: Any) -> None:
        self.heard.append("end")
        with torch.no_grad():
            run.network.body.bias.add_(100.0)

    def step_done(self, run: Any) -> None:
        self.count += 1
        with torch.no_grad():
            run.network.body.bias.add_(0.01 * self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Pulling:
    """Additions with one method, of a term and a listener."""

    notches = 2

    def __init__(self) -> None:
        self.heard: list[str] = []

    def accepts(self, phase: Any) -> bool:
        return phase.name == "finetune"

    def complete_settings(self, name: str, given: Any, on: Any) -> dict[str, Any]:
        return {"factor": 3.0, **given}

    def add_to(self, phase: Any, methods: Any, notches: int) -> Any:
        if not self.accepts(phase):
            return phase
        terms = tuple(Tilt(settings["factor"]) for settings in methods.values())
        return replace(phase, terms=(*phase.terms, *terms, *([Tilt(0.5)] * notches)))

    def listeners(self, name: str, settings: Any) -> tuple[Any, ...]:
        return (Pull(self.heard),)


def test_a_method_that_is_switched_on_changes_every_step_after_it(build: Any) -> None:
    additions, seen = Pulling(), []
    note = At("step_done", 5, lambda run: seen.append([t.name for t in run.phase.terms]))
    on = {"advisor": Script({3: (SwitchOn(WHY, "pulling"),)}), "additions": additions}
    plain, made = build(), build(listeners=(note,), **on)
    fit(plain)
    fitted = fit(made)
    assert seen == [["tilt"]]
    assert additions.heard == ["start", "end"]
    assert not equal(weights(plain), weights(made))
    (action,) = [action for _, action in fitted.actions]
    assert action == SwitchOn(WHY, "pulling")


def test_a_method_may_be_switched_on_again_with_other_settings(build: Any) -> None:
    additions, seen = Pulling(), []
    note = At("step_done", 9, lambda run: seen.append([t.factor for t in run.phase.terms]))
    twice = {3: (SwitchOn(WHY, "pulling"),), 4: (SwitchOn(WHY, "pulling", {"factor": 5.0}),)}
    fit(build(listeners=(note,), advisor=Script(twice), additions=additions))
    assert seen == [[5.0]]
    assert additions.heard == ["start", "end", "start", "end"]


def test_rows_are_enriched_as_far_as_it_goes(build: Any) -> None:
    seen: list[int] = []
    note = At("step_done", 9, lambda run: seen.append(len(run.phase.terms)))
    more = (StrengthenAugmentation(WHY),)
    fit(build(listeners=(note,), advisor=Script({2: more, 3: more}), additions=Pulling()))
    assert seen == [2]
    with pytest.raises(RunError, match="at most 2 notches"):
        fit(build(advisor=Script({2: more, 3: more, 4: more}), additions=Pulling()))


def test_a_phase_that_takes_nothing_is_left_as_it_is(build: Any, phase: Any) -> None:
    phases = (phase(name="one", steps=4), phase(steps=6))
    seen: list[int] = []

    class Note:
        name = "note"

        def step_done(self, run: Any) -> None:
            seen.append(len(run.phase.terms))

    script = Script({1: (SwitchOn(WHY, "pulling"),)})
    fit(build(phases=phases, advisor=script, listeners=(Note(),), additions=Pulling()))
    assert seen == [0] * 4 + [1] * 6


def back(to: int, *more: Action) -> tuple[Action, ...]:
    return (RollBack(WHY, to), *more)


def test_going_back_and_on_gives_what_was_there_the_first_time(build: Any, tmp_path: Path) -> None:
    """Weights, optimizer, plateau, generators and rows: the second way from step 4 is the first."""
    undisturbed, turned = build(tmp_path / "a"), build(tmp_path / "b")
    for made in (undisturbed, turned):
        made.journal._path.parent.mkdir()
    object.__setattr__(turned, "advisor", Script({5: back(4)}, keep=[4]))
    plain, twice = fit(undisturbed), fit(turned)
    assert equal(weights(undisturbed), weights(turned))
    assert [s.step for s in twice.history] == list(LOOKS)
    for one, two in zip(plain.history, twice.history, strict=True):
        assert (one.step, one.valid_losses.tolist()) == (two.step, two.valid_losses.tolist())
        for name in ("learning_rate", "gradient_norm", "relative_update", "distance"):
            assert getattr(one, name) == getattr(two, name), (one.step, name)
    # Three looks more were taken, and their rows were learnt from.
    lines = journal(tmp_path / "b")
    looks = [(e["step"], e.get("branch", {}).get("number", 0)) for e in lines if "epoch" in e]
    assert looks == [*((s, 0) for s in (0, 2, 4, 6, 8)), *((s, 1) for s in (6, 8, 10))]
    (action,) = [line for line in lines if line["event"] == "action"]
    assert action["settings"] == {"to_step": 4}
    assert action["branch"] == {"number": 1, "parent": 0, "from_step": 4}
    assert twice.examples_seen == plain.examples_seen + 4 * 8


def test_what_listeners_count_goes_back_too(build: Any) -> None:
    class Count:
        name = "count"

        def __init__(self) -> None:
            self.heard, self.steps = 0, 0

        def step_done(self, run: Any) -> None:
            self.heard, self.steps = self.heard + 1, self.steps + 1

        def state_dict(self) -> dict[str, Any]:
            return {"steps": self.steps}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.steps = state["steps"]

    count = Count()
    fit(build(advisor=Script({5: back(4)}, keep=[4]), listeners=(count,)))
    assert (count.heard, count.steps) == (14, 10)


def test_the_verdict_is_again_the_one_of_the_look_that_it_went_back_to(
    build: Any, tmp_path: Path
) -> None:
    def monitor(history: Sequence[Snapshot], kept: int | None = None) -> Verdict:
        late = history[-1].step >= 8 and not history[-1].branch.number
        return Verdict("overfit" if late else "learning", "a test says so", 0.5)

    fitted = fit(build(tmp_path, advisor=Script({5: back(4)}, keep=[4]), monitor=monitor))
    told = [(e["step"], e["label"]) for e in journal(tmp_path) if e["event"] == "verdict"]
    assert told == [(0, "learning"), (8, "overfit"), (4, "learning")]
    assert fitted.verdict.label == "learning"


def test_going_back_twice_to_one_look_is_going_back_to_the_same(build: Any) -> None:
    """What was learnt on the first way from it has not been written into it."""
    undisturbed = build()
    twice = build(advisor=Script({5: back(4), 7: back(4)}, keep=[4]))
    fit(undisturbed)
    fitted = fit(twice)
    assert equal(weights(undisturbed), weights(twice))
    assert [s.branch.number for s in fitted.history] == [0, 0, 0, 2, 2, 2]


class Trying(Script):
    """Leaves a branch for another, and may return."""

    def returns_to(self) -> tuple[int, int] | None:
        return (0, 8)


def test_a_branch_that_was_left_is_returned_to_as_if_it_had_never_been_left(
    build: Any, tmp_path: Path
) -> None:
    """From step 8 back to 4, on to 6, and back into the first branch at 8."""
    changes = (ScaleLearningRate(WHY, 9.0), SetDropout(WHY, 0.9))
    script = {5: back(4, *changes), 6: (RollBack(WHY, 8, 0),)}
    undisturbed, tried = build(), build(tmp_path, advisor=Trying(script, keep=[4, 8]))
    plain, returned = fit(undisturbed), fit(tried)
    assert equal(weights(undisturbed), weights(tried))
    assert [(s.step, s.branch) for s in returned.history] == [(s, Branch()) for s in LOOKS]
    for one, two in zip(plain.history, returned.history, strict=True):
        assert one.valid_losses.tolist() == two.valid_losses.tolist()
    assert [s.step for s in returned.evaluations] == [0, 2, 4, 6, 8, 6, 10]
    living = [line["step"] for line in snapshot_events_on_branch(journal(tmp_path))]
    assert living == list(LOOKS)


def test_a_branch_that_was_not_to_be_returned_to_is_refused(build: Any) -> None:
    script = Script({5: back(4), 6: (RollBack(WHY, 8, 0),)}, keep=[4, 8])
    with pytest.raises(RunError, match="returns to a branch without a restore point"):
        fit(build(advisor=script))


def test_what_lies_behind_a_rollback_cannot_be_gone_to(build: Any) -> None:
    script = Script({5: back(2), 6: back(6)}, keep=[2, 6])
    with pytest.raises(RunError, match=r"without a restore point.*6") as caught:
        fit(build(advisor=script))
    assert "available now: [2]" in caught.value.remedy


def test_going_back_to_before_the_first_step_is_beginning_again(build: Any, phase: Any) -> None:
    """Over the end of a phase, too: the first one begins anew, with its own optimizer."""
    phases = (phase(name="one", steps=4, weight_decay=0.1), phase(name="two", steps=6))
    undisturbed = build(phases=phases)
    again = build(phases=phases, advisor=Script({5: back(0)}, keep=[0]))
    plain, twice = fit(undisturbed), fit(again)
    assert equal(weights(undisturbed), weights(again))
    assert [(s.step, s.phase) for s in twice.history] == [(s.step, s.phase) for s in plain.history]


def test_going_back_undoes_an_action(build: Any) -> None:
    """Every kind of them, taken at the look to which the run returns."""
    everything = (
        ScaleLearningRate(WHY, 5.0),
        SetWeightDecay(WHY, 0.9),
        SetDropout(WHY, 0.0),
        Freeze(WHY, ("head.bias",)),
        Extend(WHY, steps=7),
        Unfreeze(WHY, ("words.*",)),
        SwitchOn(WHY, "pulling"),
        StrengthenAugmentation(WHY),
        ResetHead(WHY),
        Reshuffle(WHY),
    )
    undisturbed, additions = build(), Pulling()
    script = Script({3: everything, 5: back(4)}, keep=[4])
    changed = build(advisor=script, additions=additions, groups=with_words)
    plain, undone = fit(undisturbed), fit(changed)
    assert equal(weights(undisturbed), weights(changed))
    assert additions.heard == ["start", "end"]
    assert undone.last_step == 10
    assert [s.planned_steps for s in undone.history] == [None] * len(plain.history)


def test_going_back_with_another_rate_is_another_way(build: Any) -> None:
    script = Script({5: back(4, ScaleLearningRate(WHY, 0.1))}, keep=[4])
    undisturbed, turned = build(), build(advisor=script)
    fit(undisturbed)
    fitted = fit(turned)
    assert not equal(weights(undisturbed), weights(turned))
    assert [s.branch.number for s in fitted.history] == [0, 0, 0, 1, 1, 1]
    assert script.returned == 1


def test_a_branch_may_be_left_from_a_branch(build: Any) -> None:
    """Back to 2 from 6, on to 6, back to 4 of the second branch, back to 2 of the first."""
    script = Script({4: back(2), 6: back(4), 8: back(2)}, keep=[2, 4])
    fitted = fit(build(advisor=script))
    branches = {s.step: s.branch for s in fitted.history}
    assert list(branches) == list(LOOKS)
    assert branches[2] == Branch()
    assert branches[4] == branches[10] == Branch(3, 0, 2)


def test_the_best_state_is_one_of_the_branch_that_is_alive(build: Any) -> None:
    """The state of step 6 was the best; going back to 4 leaves nothing of it, and the second one of
    step 6 is better than what is left."""
    wanted = {4: 1.0, 6: 0.0}
    found: list[tuple[int, int]] = []

    def choose(history: Sequence[Snapshot]) -> int:
        values = [wanted.get(s.step, 9.0) + s.branch.number / 2 for s in history]
        return values.index(min(values))

    class Note:
        name = "note"

        def snapshot_taken(self, run: Any) -> None:
            found.append((run.step, run.best.step))

    advisor = Script({4: back(4)}, keep=[4])
    made = build(advisor=advisor, choose=choose, listeners=(Note(),))
    fitted = fit(made)
    assert found[3:5] == [(4, 4), (6, 6)]
    assert fitted.best_step == 6
    assert next(s for s in fitted.history if s.step == 6).branch.number == 1


def test_who_watches_is_told_what_was_done_and_what_was_left(build: Any, capsys: Any) -> None:
    script = Script({5: back(4, ScaleLearningRate(WHY, 0.1))}, keep=[4])
    fit(build(advisor=script, listeners=(RunDisplay(False),)))
    text = capsys.readouterr().err
    lines = text.splitlines()
    steps = [line.split()[0] for line in lines if "/10 " in line]
    assert steps == [f"{step}/10" for step in (0, 2, 4, 6, 8, 6, 8, 10)]
    assert f"Action    rolled back to step 4, learning rate × 0.1: {WHY}" in text


def test_time_is_told_once_and_counted_anew_after_going_back(build: Any, capsys: Any) -> None:
    """To the first look too; what was left counts towards no step that is to come."""
    show, begun = RunDisplay(False), set()

    class Note:
        name, place = "note", "note"

        def snapshot_taken(self, run: Any) -> None:
            begun.add(show._first_step)

    script = Script({5: back(0, ScaleLearningRate(WHY, 0.1))}, keep=[0])
    fit(build(advisor=script, listeners=(show, Note())))
    assert capsys.readouterr().err.count("before the first step") == 1
    assert len(begun - {None}) == 2


def test_an_ordinary_run_keeps_no_restore_point(build: Any) -> None:
    """One costs as much as the optimizer; an advisor that cannot go back has none."""
    kept: list[Any] = []
    note = At("snapshot_taken", 3, lambda run: kept.append(dict(run.guard.restore_points)))

    class Silent(Script):
        restore_points = None  # type: ignore[assignment]

    assert not isinstance(object(), RollsBack)
    fit(build(advisor=Script({}), listeners=(note,)))
    assert kept == [{}]


KILLS = [("step_done", count) for count in (3, 5, 7, 9, 11, 13, 16)]
SCRIPT: dict[int, tuple[Action, ...]] = {
    2: (Freeze(WHY, ("body.bias",)), SetDropout(WHY, 0.6)),
    3: (SetWeightDecay(WHY, 0.4), Extend(WHY, steps=3)),
    5: back(
        4,
        ScaleLearningRate(WHY, 0.5),
        Unfreeze(WHY, ("body.bias", "words.*")),
        SwitchOn(WHY, "pulling"),
        Reshuffle(WHY),
    ),
    6: (ResetHead(WHY), StrengthenAugmentation(WHY)),
    7: back(6, Extend(WHY, epochs=1)),
}


def scripted(build: Any, folder: Path, *more: Any) -> Job:
    script = Script(SCRIPT, keep=[4, 6])
    made: Job = build(
        folder, advisor=script, listeners=more, additions=Pulling(), groups=with_words
    )
    return made


def journal(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(("event", "count"), [*KILLS, ("snapshot_taken", 5), ("snapshot_due", 8)])
def test_a_run_full_of_actions_is_resumed_bit_for_bit(
    build: Any, tmp_path: Path, killed: Any, event: str, count: int
) -> None:
    def kill(run: Any) -> None:
        raise killed

    undisturbed, torn = tmp_path / "whole", tmp_path / "torn"
    for folder in (undisturbed, torn):
        folder.mkdir()
    whole = scripted(build, undisturbed)
    wanted: TrainingResult = fit(whole)
    with pytest.raises(killed):
        fit(scripted(build, torn, At(event, count, kill)))
    again = scripted(build, torn)
    found = fit(again, resume=True)
    assert equal(weights(whole), weights(again))
    assert found.actions == wanted.actions
    assert len(found.actions) == 13
    assert (found.last_step, found.best_step) == (wanted.last_step, wanted.best_step) == (15, 15)
    assert found.examples_seen == wanted.examples_seen
    assert journal(torn) == journal(undisturbed)
    assert [s.branch for s in found.history] == [s.branch for s in wanted.history]


def test_the_first_checkpoint_may_be_one_of_a_run_with_a_frozen_layer(
    build: Any, tmp_path: Path
) -> None:
    """The mark of the weights that never change does not hold those that are frozen for a while."""
    script = {3: (Freeze(WHY, ("body.*",)),)}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = build(tmp_path / "a", advisor=Script(script))
    fit(whole)
    stop = At("batch_ready", 6, lambda run: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        fit(build(tmp_path / "b", advisor=Script(script), listeners=(stop,), every_s=1e9))
    again = build(tmp_path / "b", advisor=Script(script), every_s=1e9)
    fit(again, resume=True)
    assert equal(weights(whole), weights(again))


def test_every_action_can_be_applied_by_our_loop(build: Any) -> None:
    """By the engine or by the run: an action that a table forgot would be refused in the middle."""
    run = begin_run(build())
    assert set(run.guard._appliers) == set(ACTIONS.values())


EACH: list[Action] = [
    Stop(WHY),
    Stop(WHY, gain=0.1, error=0.2, chance=0.3),
    RollBack(WHY, 3),
    ScaleLearningRate(WHY, 0.5),
    SetWeightDecay(WHY, 0.0),
    SetDropout(WHY, 0.2),
    Freeze(WHY, ("block.0", "block.1")),
    Extend(WHY, epochs=0.5),
    Shorten(WHY, 7),
    SwitchOn(WHY, "balance", {"target": "even", "strength": 0.5}),
    SwitchOn(WHY, "sam"),
    StrengthenAugmentation(WHY, 2),
    ResetHead(WHY),
    Reshuffle(WHY),
]


@pytest.mark.parametrize("action", EACH, ids=lambda action: type(action).__name__)
def test_a_record_is_read_back_as_the_action(action: Action) -> None:
    record = json.loads(json.dumps(to_record(action)))
    assert ACTIONS[record["action"]] is type(action)
    assert from_record(**record) == action


def test_settings_have_the_names_of_a_recipe() -> None:
    assert to_record(SetWeightDecay(WHY, 0.1))["settings"] == {"train.weight_decay": 0.1}
    assert to_record(Stop(WHY))["settings"] == {}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ScaleLearningRate(WHY, 0.0),
        lambda: ScaleLearningRate(WHY, float("nan")),
        lambda: SetWeightDecay(WHY, -0.1),
        lambda: SetDropout(WHY, 1.0),
        lambda: Extend(WHY),
        lambda: Extend(WHY, steps=1, epochs=1),
        lambda: Extend(WHY, steps=0),
        lambda: StrengthenAugmentation(WHY, 0),
    ],
)
def test_an_action_out_of_its_range_is_refused_where_it_is_made(make: Any) -> None:
    with pytest.raises(RecipeError):
        make()


def test_its_files_hold_the_branch_that_is_alive(build: Any, tmp_path: Path) -> None:
    """The looks are read back as they were, and the log of the run is the one of that branch."""
    from holdfast.core.run_facts import RunFacts
    from holdfast.plugins.logs.holdfast_run import read
    from holdfast.training.evaluation_file import read_evaluations, write_evaluations

    script = Script({5: back(4, ScaleLearningRate(WHY, 0.1))}, keep=[4])
    fitted = fit(build(tmp_path, advisor=script))
    write_evaluations(tmp_path / "looks.npz", fitted.history, RunFacts(), fitted.best_step, "0")
    kept = read_evaluations(tmp_path / "looks.npz")
    assert [(s.step, s.branch) for s in kept.history] == [
        (s.step, s.branch) for s in fitted.history
    ]
    log = read(tmp_path / "events.jsonl")
    losses = log.columns["valid_loss"]
    assert losses.positions.tolist() == list(LOOKS)
    assert losses.values.tolist() == pytest.approx([s.valid_loss for s in fitted.history])
