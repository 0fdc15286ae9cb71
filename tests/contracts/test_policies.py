"""What every policy promises, the built-in ones, the tutorial's and one of a user's file alike:
deterministic, without a memory, within its bounds, and replayed from the log."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.control.ladder import Ladder, usual_rate
from holdfast.control.policy import Advice, Policy, Remedy, advise
from holdfast.control.sight import Can, LossDifference, RemedyTrial, Sight
from holdfast.core.actions import (
    ACTIONS,
    Continue,
    Extend,
    RollBack,
    ScaleLearningRate,
    SetDropout,
    Shorten,
    Stop,
    StrengthenAugmentation,
    SwitchOn,
    to_record,
)
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.labels import Label
from holdfast.fits.policies import load_policy
from holdfast.methods.registry import all_methods

GUIDE = Path(__file__).parents[2] / "docs" / "guard.md"
ALL = tuple(name for name in ACTIONS if name not in ("HalveBatch", "Continue"))
STOP = to_record(Stop("a further gain is unlikely", 0.1, 0.2, 0.1))
WORSE, BETTER = LossDifference(0.2, 0.1, 0.3, 0.99), LossDifference(-0.2, -0.3, -0.1, 0.01)


def sight(**changes: Any) -> Sight:
    """A look half-way through a plan of 100 updates that goes well."""
    plain = Sight(
        step=50,
        look=5,
        branch=0,
        planned=100,
        first_planned=100,
        spent=50,
        most=130,
        apart=10,
        label="learning",
        because="the loss falls",
        confidence=0.9,
        kept_step=50,
        can=Can(
            ALL, {"label_smoothing": {"share": 0.1}, "balance": {}}, 2, True, False, ("a", "b")
        ),
        loss=0.5,
        train_loss=0.3,
        first_train=1.0,
        against_first=BETTER,
        rate=1e-4,
        usual=(1e-5, 1e-3),
        points=(0, 50),
        trials_left=3,
        valid_rows=60,
    )
    return dataclasses.replace(plain, **changes)


def trial(**changes: Any) -> RemedyTrial:
    done = (to_record(ScaleLearningRate("why", 3.0)),)
    return dataclasses.replace(RemedyTrial("a trial", 50, 0, 30, done, over=True), **changes)


def sights() -> Iterator[Sight]:
    """Every verdict and cause at every kind of look, with and without a trial."""
    labels = Label.__args__  # type: ignore[attr-defined]
    causes = (None, "the learning rate is too high", "the learning rate is too low")
    kinds = (
        {},
        {"over": STOP, "kept_step": 30, "points": (0, 30, 50)},
        {"step": 100, "spent": 100, "end": True, "points": (0, 50, 100)},
        {"step": 10, "spent": 10, "look": 1, "kept_step": 0, "points": (0, 10)},
    )
    trials = (None, trial(), trial(kept=True), trial(over=False))
    for label, cause, kind, one, rate in itertools.product(
        labels, causes, kinds, trials, (3e-6, 1e-4, 1e-3, 1e-2)
    ):
        before = {"branch": 1, "kept_before": 30, "points": (0, 30, 50)} if one is not None else {}
        worse = {"against_first": WORSE} if rate > 1e-3 else {}
        more: dict[str, Any] = {**kind, **before, **worse}
        yield sight(label=label, cause=cause, trial=one, rate=rate, **more)


def ends() -> Iterator[Sight]:
    """Ends of plans that trials have changed: a shorter one, a longer one, one without updates
    left. A plan goes back with its run."""
    points = {"points": (0, 50, 60), "kept_step": 50, "kept_before": 50, "branch": 1}
    for label, one, high in itertools.product(
        ("overfit", "underfit", "noisy_labels", "diverging"),
        (None, trial(), trial(kept=True), trial(over=False)),
        (1e-4, 1e-2),
    ):
        now: dict[str, Any] = {**points, "label": label, "trial": one, "rate": high}
        yield sight(step=60, planned=60, spent=90, end=True, plans=(100, 60, 60), **now)
        yield sight(step=60, planned=130, spent=90, over=STOP, plans=(100, 130, 130), **now)
        yield sight(step=60, planned=130, spent=65, over=STOP, plans=(100, 100, 130), **now)
        yield sight(step=60, spent=130, over=STOP, plans=(100,) * 3, trials_left=0, **now)


def two_phases() -> Iterator[Sight]:
    """Ends of a plan of two phases, the second from step 45 on, with many or few updates left."""
    label_kinds = ("overfit", "memorizing", "underfit", "noisy_labels", "diverging", "forgetting")
    for label, one, high, best, spent in itertools.product(
        label_kinds, (None, trial(), trial(kept=True)), (1e-4, 1e-2), (0, 50), (74, 90, 110)
    ):
        points = {"kept_step": best, "kept_before": best, "points": (0, 50, 74), "spent": spent}
        now: dict[str, Any] = {**points, "label": label, "trial": one, "rate": high}
        plan = {"planned": 74, "first_planned": 74, "plans": (74,) * 3, "first_end": 45}
        yield sight(step=74, end=True, branch=int(one is not None), **plan, **now)


class Halver:
    """Halves the rate at the third look, once."""

    def decide(self, sight: Sight) -> Remedy | None:
        if sight.look != 5 or sight.tried or sight.trial:
            return None
        return Remedy("half the rate", (ScaleLearningRate("the third look", 0.5),))


def guide_policy(folder: Path) -> Policy:
    """The class of the guide, by the name that a recipe gives."""
    text = GUIDE.read_text(encoding="utf-8")
    (code,) = re.findall(r"test_policies.py -->\n```python\n(.*?)```", text, re.DOTALL)
    path = folder / "patient.py"
    path.write_text(code, encoding="utf-8")
    return load_policy(f"{path}:Patient")


@pytest.fixture(params=["adapt", "halver", "guide"])
def policy(request: Any, tmp_path: Path) -> Policy:
    if request.param == "guide":
        return guide_policy(tmp_path)
    return load_policy("adapt") if request.param == "adapt" else Halver()


@pytest.mark.slow
def test_it_decides_by_the_sight_alone(policy: Policy) -> None:
    """A second one, asked in another order and after a way through a file, says the same."""
    seen = list(sights())
    first = [advise(policy, one) for one in seen]
    other = type(policy)()
    backwards = [advise(other, one) for one in reversed(seen)][::-1]
    assert first == backwards
    read = [Sight.from_record(json.loads(json.dumps(one.to_record()))) for one in seen]
    assert read == seen
    assert [advise(policy, one) for one in read] == first


def test_it_keeps_its_bounds(policy: Policy) -> None:
    for one in itertools.chain(sights(), ends(), two_phases()):
        advice = advise(policy, one)
        names = [type(action).__name__ for action in advice.actions]
        assert set(names) <= {*one.can.actions, "Continue"}
        end = _end(one, advice)
        if advice.trial is not None and advice.trial != one.trial:
            assert end <= advice.trial.from_step + one.room
        none_left = dataclasses.replace(one, trials_left=0)
        assert advise(policy, none_left).trial in (None, one.trial)


def _end(one: Sight, advice: Advice) -> int:
    """Where the run then ends, by what each action makes of its plan; it must be able to."""
    step, plan = one.step, one.planned
    for action in advice.actions:
        if isinstance(action, RollBack):
            step, plan = action.to_step, one.planned_from(action.to_step)
        elif isinstance(action, Extend):
            plan += action.steps or 0
        elif isinstance(action, Shorten):
            first = max(step + 1, one.first_end)
            assert first <= action.to_step < plan, "the loop would refuse it"
            plan = action.to_step
    return plan


def test_a_trial_goes_on_until_it_is_over(policy: Policy) -> None:
    going = sight(branch=1, trial=trial(over=False), kept_before=30, step=60, look=7)
    assert advise(policy, going) == Advice((), going.trial, ())


def test_a_trial_of_which_nothing_is_kept_is_undone(policy: Policy) -> None:
    began = trial(step=60)
    failed = sight(branch=1, trial=began, over=STOP, kept_before=30, kept_step=30, trials_left=0)
    advice = advise(policy, failed)
    back, stop = advice.actions
    assert (back.to_step, back.branch) == (60, 0)  # type: ignore[union-attr]
    assert isinstance(stop, Stop)
    assert advice.ended_trials == (failed.trial,)
    assert advice.trial is None


def test_a_trial_that_was_begun_too_early_goes_on_as_it_was_within_what_is_left(
    policy: Policy,
) -> None:
    began = trial(over=False, step=40, from_step=40)
    failed = sight(
        branch=1, trial=began, over=STOP, kept_before=40, kept_step=40, spent=100, trials_left=0
    )
    back, cut = advise(policy, failed).actions
    assert back == RollBack(back.because, 40, 0)
    assert cut == Shorten(cut.because, 70)


def test_a_trial_from_which_the_last_phase_cannot_be_reached_is_undone_and_the_run_ends() -> None:
    began = trial(over=False, step=40, from_step=40)
    failed = sight(
        branch=1, trial=began, over=STOP, kept_before=40, kept_step=40, spent=100, trials_left=0
    )
    ends = {}
    for first_end in (70, 71):
        _, end = advise(Ladder(), dataclasses.replace(failed, first_end=first_end)).actions
        ends[first_end] = type(end).__name__
    assert ends == {70: "Shorten", 71: "Stop"}


def test_a_remedy_from_which_the_last_phase_cannot_be_reached_is_refused() -> None:
    class FromTheStart:
        def decide(self, sight: Sight) -> Remedy:
            return Remedy("mine", (RollBack("why", 0), ScaleLearningRate("why", 0.5)))

    one = sight(spent=100, first_end=30)
    assert advise(FromTheStart(), one).trial is not None
    with pytest.raises(RunError, match="cannot reach step 31, where the last phase begins"):
        advise(FromTheStart(), dataclasses.replace(one, first_end=31))


def test_a_trial_that_is_kept_is_said_and_the_run_stops_as_it_would(policy: Policy) -> None:
    kept = sight(
        branch=1, trial=trial(kept=True), over=STOP, kept_before=30, kept_step=50, trials_left=0
    )
    kept = dataclasses.replace(kept, planned=80)
    said, stop = advise(policy, kept).actions
    assert said == Continue(said.because, 50)
    assert "better than that of step 30" in said.because
    assert to_record(stop) == STOP


@pytest.mark.parametrize("label", ["healthy", "learning"])
def test_a_run_that_is_well_is_left_alone(label: Any) -> None:
    for change in ({}, {"over": STOP, "step": 60}, {"end": True, "step": 100}):
        found = advise(Ladder(), sight(label=label, **change)).actions
        assert [to_record(one) for one in found] == ([STOP] if "over" in change else [])


def test_of_runs_that_are_well_one_too_slow_to_get_anywhere_is_helped() -> None:
    """The exception that the guide names: the plan ends long before the rows are learned."""
    idle = {"look": 4, "step": 40, "kept_step": 40, "first_train": 0.69, "train_loss": 0.68}
    for rate in (3e-6, 1e-4):
        found = Ladder().decide(sight(label="learning", rate=rate, **idle))
        assert isinstance(found, Remedy)
        assert "learning rate" in found.name


def test_a_rate_below_those_known_to_work_is_raised_though_a_probe_left_little_to_learn() -> None:
    """From a linear probe at step 0 the training loss is near zero, and falls at any rate."""
    probe = {"look": 2, "step": 30, "kept_step": 30, "first_train": 0.2, "train_loss": 0.11}
    found = Ladder().decide(sight(label="learning", rate=3e-6, at_floor=True, **probe))
    assert isinstance(found, Remedy)
    assert found.name == "the usual learning rate from here on"
    low, _ = sight().usual or (0.0, 0.0)
    for change in ({"rate": low}, {"rate": 3e-6, "against_first": WORSE}):
        assert Ladder().decide(sight(label="learning", at_floor=True, **probe, **change)) is None


def test_a_rate_far_too_high_is_lowered_though_the_run_gained_over_its_probe() -> None:
    """From the third evaluation on: before, it is too early to say what the rate gains."""
    usual = usual_rate(sight()) or 0.0
    hot = {"label": "learning", "rate": 6 * usual, "points": (0,), "against_first": BETTER}
    hot |= {"first_train": 0.2, "chance": 0.69}
    found = Ladder().decide(sight(**hot, look=2, step=30))
    assert isinstance(found, Remedy)
    assert found.name == "the usual learning rate from the beginning"
    assert [type(action).__name__ for action in found.actions] == ["RollBack", "ScaleLearningRate"]
    later = {"look": 2, "step": 30}
    for change in ({"look": 1, "step": 10}, {**later, "rate": 4 * usual}):
        assert Ladder().decide(sight(**{**hot, **change})) is None
    # With a new head the usual rate is known to be better for texts, and not for images.
    new_head = {**hot, **later, "first_train": 0.7}
    assert Ladder().decide(sight(**new_head)) == found
    images = dataclasses.replace(sight().can, pictures=True)
    assert Ladder().decide(_with(sight(**new_head), images)) is None


def test_a_rate_that_does_not_fall_is_not_said_to_be_brought_down() -> None:
    """A constant rate, say: to end sooner lowers nothing."""
    said = {}
    for falls in (True, False):
        can = Can(ALL, {"gce": {}, "kl_start": {}}, 2, True, True, ("a", "b"), falls=falls)
        actions = [a for one in sights() for a in advise(Ladder(), _with(one, can)).actions]
        said[falls] = {type(a).__name__ for a in actions if "decays to zero" in a.because}
    assert said == {True: {"Shorten"}, False: set()}


def _with(one: Sight, can: Can) -> Sight:
    return dataclasses.replace(one, can=can)


def test_the_methods_that_the_ladder_names_exist() -> None:
    """Whatever could be switched on is on offer, so that a name that is none is never taken."""
    asked: set[str] = set()

    class Everything(dict[str, Any]):
        def __contains__(self, name: object) -> bool:
            asked.add(str(name))
            return False

    can = Can(ALL, Everything(), 0, True, False, ("a", "b"))
    for one in sights():
        advise(Ladder(), _with(dataclasses.replace(one, trial=None, skew=20.0, silent=0.5), can))
    assert asked >= {"kl_start", "l2_sp", "label_smoothing"}
    assert asked <= set(all_methods())


def test_little_learned_is_not_said_of_rows_that_got_worse() -> None:
    slow = {"rate": 3e-6, "step": 30, "spent": 30, "first_train": 0.6, "points": (0, 30)}
    cold = sight(**slow, train_loss=0.59, against_first=LossDifference())
    for label in ("learning", "underfit"):
        one = dataclasses.replace(cold, label=label)
        names = [type(found).__name__ for found in advise(Ladder(), one).actions]
        assert names[:2] == ["RollBack", "ScaleLearningRate"]
        for train in (0.9, None):
            lost = dataclasses.replace(one, train_loss=train)
            assert advise(Ladder(), lost).actions == ()
    worse = dataclasses.replace(cold, against_first=WORSE)
    assert advise(Ladder(), worse).actions == ()


BY_VERDICT = to_record(Stop("memorizing, and no gain at 3 evaluations in a row"))
WAITED = to_record(Stop("no improvement of the validation score, at 3 evaluations"))


@pytest.mark.parametrize("label", ["learning", "inconclusive", "memorizing", "underfit"])
def test_a_run_that_has_learned_is_not_stopped_while_its_rate_is_high(label: Any) -> None:
    """As it is under ``off``, the state of a high rate is not the last word."""
    over = BY_VERDICT if label == "memorizing" else STOP
    early = {"label": label, "step": 30, "spent": 30, "kept_step": 20, "points": (0, 20, 30)}
    for left in (0, 3):
        goes_on = Advice((), None, (), "30 % of the plan is too early to stop")
        assert advise(Ladder(), sight(**early, over=over, trials_left=left)) == goes_on
    late = {**early, "step": 60, "spent": 60}
    constant = {**early, "can": dataclasses.replace(sight().can, falls=False)}
    for one in (late, constant):
        found = advise(Ladder(), sight(**one, over=over, trials_left=0))
        assert [to_record(action) for action in found.actions] == [over]


def test_where_a_trial_that_failed_began_too_early_to_stop_the_run_goes_on() -> None:
    """By where it began, not by where the trial has come to, and however the trial ended."""
    one = {"branch": 1, "kept_before": 20, "kept_step": 20, "points": (0, 20, 30), "spent": 60}
    ends: tuple[dict[str, Any], ...] = (
        {"step": 40, "over": STOP},
        {"step": 40, "end": True, "planned": 40},
        {"step": 70, "end": True, "planned": 70, "label": "diverging"},
    )
    for end in ends:
        for at, goes_on in ((30, True), (60, False)):
            failed = sight(**{**one, **end}, trial=trial(step=at, from_step=20), trials_left=0)
            names = [type(found).__name__ for found in advise(Ladder(), failed).actions]
            assert names == (["RollBack"] if goes_on else ["RollBack", "Stop"])
    broke = trial(step=30, from_step=20, name="a third of the learning rate")
    failed = sight(**{**one, **ends[0]}, trial=broke, trials_left=0)
    assert isinstance(advise(Ladder(), failed).actions[-1], Stop)


def test_where_stopping_early_is_right_it_is_stopped() -> None:
    early = {"step": 30, "spent": 30, "points": (0, 20, 30), "trials_left": 0}
    for change in (
        {"label": "healthy", "over": STOP},
        {"label": "diverging", "over": to_record(Stop("diverging: it breaks"))},
        {"label": "inconclusive", "over": WAITED},
        {"label": "inconclusive", "over": STOP, "kept_step": 0},
    ):
        one = sight(**{"kept_step": 20, **early, **change})
        assert [to_record(found) for found in advise(Ladder(), one).actions] == [one.over]


class On:
    """Goes on whatever happens."""

    def decide(self, sight: Sight) -> Continue:
        return Continue("I say so")


def test_a_policy_may_go_on_where_it_would_be_stopped_as_long_as_updates_are_left() -> None:
    assert advise(On(), sight(over=STOP)).actions == ()
    spent = advise(On(), sight(over=STOP, spent=130)).actions
    assert [to_record(one) for one in spent] == [STOP]
    failed = sight(branch=1, trial=trial(), over=STOP, kept_before=30, kept_step=30)
    assert [type(one).__name__ for one in advise(On(), failed).actions] == ["RollBack"]
    ended = dataclasses.replace(failed, trial=trial(step=100))
    assert [type(one).__name__ for one in advise(On(), ended).actions] == ["RollBack", "Stop"]


def test_a_trial_with_nothing_to_show_in_time_is_undone_while_the_plan_can_be_finished() -> None:
    began = trial(over=False, step=40, from_step=40, in_time=True)
    one = {"branch": 1, "kept_before": 40, "kept_step": 40, "trial_looks": 1, "label": "learning"}
    # 60 updates are left of the plan at step 40, and looks are 10 apart.
    for spent, undone in ((60, False), (61, True)):
        going = sight(**one, spent=spent, trial=began)
        names = [type(found).__name__ for found in advise(Ladder(), going).actions]
        assert names == (["RollBack"] if undone else [])
        for change in ({"kept": True}, {"in_time": False}):
            assert not sight(**one, spent=spent, trial=trial(**{**_own(began), **change})).failing


def _own(one: RemedyTrial) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}


def test_a_higher_rate_must_show_something_in_time_and_the_usual_one_need_not() -> None:
    """A run at a rate far below the usual one has nothing to lose."""
    idle = {"look": 4, "step": 40, "kept_step": 40, "first_train": 0.69, "train_loss": 0.68}
    for rate, in_time in ((3e-6, False), (1e-4, True)):
        begun = advise(Ladder(), sight(label="learning", rate=rate, **idle, points=(0, 40))).trial
        assert begun is not None
        assert begun.in_time is in_time


def test_a_restart_of_a_run_that_gains_must_show_something_in_time() -> None:
    """A run that learns nothing at its rate has no plan that is worth finishing."""
    high = {"label": "inconclusive", "cause": "the learning rate is too high", "rate": 1e-3}
    for against, in_time in ((BETTER, True), (LossDifference(), False), (WORSE, False)):
        begun = advise(Ladder(), sight(**high, against_first=against)).trial
        assert begun is not None
        assert (begun.from_step, begun.in_time) == (0, in_time)
        # It began again before the checkpoint that is kept, and is no worse for that.
        late = {"branch": 1, "kept_before": 50, "kept_step": 50, "step": 20, "trial_looks": 2}
        going = sight(**late, spent=71, trial=begun, against_before=WORSE)
        assert going.failing is in_time


def test_a_restart_of_a_run_that_is_not_shown_to_fail_must_show_something_in_time() -> None:
    """High, but within the known range, and the loss fell by less than the rows can show."""
    high = {"label": "learning", "rate": 1e-3, "look": 2, "step": 40, "usual": (1e-5, 2e-3)}
    unproven = LossDifference(-1.2, -2.6, 0.1, 0.04)
    begun = advise(Ladder(), sight(**high, against_first=unproven)).trial
    assert begun is not None
    assert begun.in_time
    above = advise(Ladder(), sight(**{**high, "rate": 3e-3}, against_first=unproven)).trial
    assert above is not None
    assert not above.in_time


def broken(*actions: Any, **changes: Any) -> RunError:
    class Policy:
        def decide(self, sight: Sight) -> Remedy:
            return Remedy("mine", actions)

    with pytest.raises(RunError) as caught:
        advise(Policy(), sight(**changes))
    assert "mine" in caught.value.what
    return caught.value


def test_what_a_policy_may_not_is_refused_with_the_rule() -> None:
    assert "must be a sequence of changes" in broken().rule
    assert "must be a sequence of changes" in broken(Stop("x")).rule
    assert "must be a sequence of changes" in broken(SetDropout("x", 0.1), RollBack("x", 0)).rule
    error = broken(RollBack("x", 20))
    assert error.value == 20
    assert "names a branch" in broken(RollBack("x", 0, 1)).rule
    assert "0, 50" in error.remedy
    error = broken(SetDropout("x", 0.1), can=Can(("Stop", "RollBack")))
    assert error.value == "SetDropout"
    assert "RollBack, Stop" in error.remedy
    assert "cannot join" in broken(SwitchOn("x", "nothing")).rule
    assert "augments more" in broken(StrengthenAugmentation("x", 3)).rule
    assert "the 80 updates left" in broken(Shorten("x", 131)).rule


@pytest.mark.parametrize(
    "given",
    [
        "stop",
        True,
        (Stop("a tuple"),),
        SetDropout("no remedy", 0.1),
        Remedy("", (SetDropout("x", 0.1),)),
        Remedy("one", SetDropout("x", 0.1)),  # type: ignore[arg-type]
        Remedy("unsaid", (SetDropout(None, 0.1),)),  # type: ignore[arg-type]
        Stop(None),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_answer_is_refused(given: Any) -> None:
    class Policy:
        def decide(self, sight: Sight) -> Any:
            return given

    with pytest.raises(RunError, match=r"must return Remedy\(name, actions\), Stop\(because\)"):
        advise(Policy(), sight())


def test_a_policy_that_fails_is_named_with_its_error() -> None:
    class Fails:
        def decide(self, sight: Sight) -> None:
            raise ValueError("not today")

    with pytest.raises(RunError, match="policy Fails: failed at step 50: ValueError: not today"):
        advise(Fails(), sight())


def test_what_a_policy_writes_into_its_sight_is_nobody_elses() -> None:
    class Writes:
        def decide(self, sight: Sight) -> None:
            sight.can.methods.clear()  # type: ignore[attr-defined]

    seen = sight()
    assert advise(Writes(), seen).actions == ()
    assert seen == sight()


def test_actions_may_come_in_a_list_and_a_longer_run_in_epochs() -> None:
    class Longer:
        def decide(self, sight: Sight) -> Remedy:
            return Remedy("longer", [Extend("x", epochs=2.5)])  # type: ignore[arg-type]

    back, longer, cut = advise(Longer(), sight(epoch=20)).actions
    assert isinstance(back, RollBack)
    assert longer == Extend("x", steps=50)
    assert cut == Shorten(cut.because, 130)
    assert advise(Longer(), sight(epoch=10)).actions[1:] == (Extend("x", steps=25),)


def test_a_plan_that_would_be_too_long_is_cut_to_what_is_left() -> None:
    class Again:
        def decide(self, sight: Sight) -> Remedy:
            return Remedy("again", (RollBack("x", 0), SetDropout("x", 0.1)))

    actions = advise(Again(), sight()).actions
    assert isinstance(actions[-1], Shorten)
    assert actions[-1].to_step == 80
    assert "130 updates" in actions[-1].because


def test_where_a_run_cannot_go_back_a_trial_begins_here_and_is_turned_round() -> None:
    can = Can(("Stop", "ScaleLearningRate"))
    begun = advise(Halver(), sight(can=can, points=()))
    assert [type(one).__name__ for one in begun.actions] == ["ScaleLearningRate"]
    failed = sight(can=can, points=(), trial=begun.trial, over=STOP, trials_left=0)
    turned, stop = advise(Halver(), failed).actions
    assert turned.factor == 2.0  # type: ignore[union-attr]
    assert to_record(stop) == STOP


def test_a_policy_is_found_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from pathlib import Path\n"
        "class Good:\n    def decide(self, sight): return None\n"
        "class Needs:\n    def __init__(self, x): pass\n"
        "class Other:\n    pass\n"
    )
    assert isinstance(load_policy(f"{path}:Good"), Policy)
    for spec, told in (
        (f"{path}:Goo", "does not define"),
        (f"{path}:Needs", "without arguments"),
        (f"{path}:Other", "no method decide"),
        (f"{tmp_path}/no.py:Good", "does not exist"),
    ):
        with pytest.raises(RecipeError, match=told) as caught:
            load_policy(spec)
        if spec.endswith(":Goo"):
            assert "It defines: Good, Needs, Other." in str(caught.value)
    path.write_text("from pathlib import Path as Imported\n")
    with pytest.raises(RecipeError, match=r"It defines: Imported\."):
        load_policy(f"{path}:Good")
    path.write_text("import nothing_of_this_name\n")
    with pytest.raises(RecipeError, match="fails on import"):
        load_policy(f"{path}:Good")
