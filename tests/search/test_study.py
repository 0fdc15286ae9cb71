"""Trials in a study: the same after a crash at any write, in a file or a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from holdfast.core.errors import RunError
from holdfast.core.records import Decision
from holdfast.data.database_url import mask_password, without_password
from holdfast.search.context import TrialFold
from holdfast.search.job import FitEvaluations, FitJob, FitResult
from holdfast.search.search_loop import SearchLoop
from holdfast.search.space import Dimension, Space
from holdfast.search.space_request import settings_key
from holdfast.search.storage import open_storage
from holdfast.search.study import Proposals, TrialResult, Trials
from holdfast.search.trial_plan import Pruning, TrialPlan, make_pruner, make_sampler

SPACE = Space(
    (
        Dimension("train.learning_rate", "number", 1e-5, 1e-3, log=True),
        Dimension("train.epochs", "whole", 1, 8, 1.0),
        Dimension("train.optimizer", "choice", choices=("adamw", "sgd")),
    )
)
DEFAULT = {"train.learning_rate": 1e-4, "train.epochs": 3, "train.optimizer": "adamw"}
ROWS = 20


def trials(where: str, sampler: str = "tpe", owner: str = "me", **about: Any) -> Trials:
    return Trials(
        open_storage(where),
        where,
        {"rows": "r", "space": SPACE.to_json(), "folds": 0, "metric": "loss", "seed": 0, **about},
        owner,
        Proposals(SPACE, DEFAULT, make_sampler(sampler, 0, 8), make_pruner("none")),
        alone=owner == "me",
    )


def searching(
    of: Trials, most: int = 8, folds: int = 1, default: Any = DEFAULT, grid: Any = None, **more: Any
) -> SearchLoop:
    made = [
        TrialFold(np.arange(ROWS, 2 * ROWS), part)
        for part in np.array_split(np.arange(ROWS), folds)
    ]
    rule = Decision("sampler", "tpe", "set in the recipe")
    how = TrialPlan(SPACE, default, 0.0, grid, made, "loss", most, 0, rule, rule, ())
    return SearchLoop(of, how, Pruning("none"), **more)


def carried_out(job: FitJob) -> FitResult:
    """What a fit with these settings would have given: a function of them."""
    own = {**DEFAULT, **job.settings}
    base = abs(np.log10(own["train.learning_rate"]) + 3.5) + 0.1 * own["train.epochs"]
    losses = base + np.sin(job.valid + 1.0)
    return FitResult(
        key=job.key,
        settings=job.settings,
        evaluations=FitEvaluations(
            np.array([1]), losses[None], None, ({},), None, losses[:1], losses[:1]
        ),
        best=0,
        losses=losses,
        correct=None,
        metrics={"loss": float(losses.mean())},
        best_step=1,
        last_step=1,
        planned=1,
        examples_seen=100,
        seconds=0.0,
        parameters=10,
        verdict={"label": "healthy"},
        ended="done",
        stopped=None,
        recipe={},
    )


def done(of: SearchLoop) -> tuple[TrialResult, ...]:
    for job in of.jobs():
        of.add(carried_out(job))
    return of.results


def plain(tried: tuple[TrialResult, ...]) -> list[Any]:
    return [
        (settings_key(one.settings), one.origin, one.state, one.losses.tolist()) for one in tried
    ]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_one_worker_and_one_seed_give_the_same_trials(tmp_path: Path, sampler: str) -> None:
    first = done(searching(trials(str(tmp_path / "a.journal"), sampler)))
    again = done(searching(trials(str(tmp_path / "b.journal"), sampler)))
    assert plain(first) == plain(again)
    assert len(first) == 8
    assert first[0].settings == {}
    assert [one.origin for one in first[:3]] == ["default", "sampler", "sampler"]
    assert len({settings_key(one.settings) for one in first}) == 8


class Cut(BaseException):
    """The end of a process."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    whole = plain(done(searching(trials(str(tmp_path / "whole.journal")), most=4, folds=2)))
    write, at, seen = JournalFileBackend.append_logs, [0], [0]

    def cut(self: Any, logs: Any) -> None:
        seen[0] += 1
        if seen[0] == at[0] and not after:
            raise Cut
        write(self, logs)
        if seen[0] == at[0]:
            raise Cut

    monkeypatch.setattr(JournalFileBackend, "append_logs", cut)
    cuts = 0
    for at[0] in range(1, 1000):
        where, seen[0] = str(tmp_path / f"{after}-{at[0]}.journal"), 0
        try:
            done(searching(trials(where), most=4, folds=2))
            break
        except Cut:
            cuts += 1
            seen[0] = -1000
        again = searching(trials(where), most=4, folds=2)
        before = len(again.results)
        found = done(again)
        assert plain(found) == whole, at[0]
        assert before <= len(whole)
    assert cuts > 20


def test_a_line_that_a_kill_cut_off_is_taken_away(tmp_path: Path) -> None:
    where = tmp_path / "study.journal"
    whole = plain(done(searching(trials(str(where)), most=6)))
    lines = where.read_bytes().splitlines(keepends=True)
    for keep in (len(lines) // 2, len(lines) - 1):
        cut = tmp_path / f"{keep}.journal"
        cut.write_bytes(b"".join(lines[:keep]) + lines[keep][: len(lines[keep]) // 2])
        assert plain(done(searching(trials(str(cut)), most=6))) == whole


def test_finished_trials_are_not_carried_out_again(tmp_path: Path) -> None:
    where = str(tmp_path / "study.journal")
    first = done(searching(trials(where), most=5))
    more = searching(trials(where), most=7)
    assert plain(more.results) == plain(first)
    asked = list(jobs_of(more))
    assert len(asked) == 2
    assert plain(more.results)[:5] == plain(first)


def jobs_of(of: SearchLoop) -> Iterator[FitJob]:
    for job in of.jobs():
        yield job
        of.add(carried_out(job))


def test_what_a_trial_gave_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    where = str(tmp_path / "study.journal")
    first = done(searching(trials(where), most=4))
    for one, other in zip(first, trials(where).finished(), strict=True):
        assert np.array_equal(one.losses, other.losses)
        assert dict(one.settings) == dict(other.settings)
        assert one.cost == other.cost


@pytest.mark.parametrize(
    ("about", "names"),
    [
        ({"space": [{"key": "train.warmup"}]}, "in another space"),
        ({"rows": "others"}, "on other rows"),
        ({"seed": 1}, "another seed"),
        ({"folds": 5}, "scored on other rows"),
    ],
)
def test_the_study_of_something_else_is_refused(tmp_path: Path, about: Any, names: str) -> None:
    where = str(tmp_path / "study.journal")
    done(searching(trials(where), most=2))
    with pytest.raises(RunError, match=names):
        trials(where, **about)


@pytest.mark.parametrize("content", ["no study\n", '{"op_code": 77}\n', "[1]\n"])
def test_a_file_that_is_no_study_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(RunError, match="is not an Optuna study"):
        open_storage(str(path))
    assert path.read_text() == content
    foreign = tmp_path / "own.journal"
    optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(foreign))), study_name="mine"
    )
    with pytest.raises(RunError, match="did not make"):
        trials(str(foreign))


def test_settings_that_were_tried_are_not_tried_again(tmp_path: Path) -> None:
    small = Space((Dimension("train.optimizer", "choice", choices=("adamw", "sgd")),))
    of = Trials(
        open_storage(str(tmp_path / "s.journal")),
        "s.journal",
        {},
        "me",
        Proposals(
            small,
            {"train.optimizer": "adamw"},
            make_sampler("random", 0, None),
            make_pruner("none"),
        ),
        alone=True,
    )
    one = searching(of, most=50, default={"train.optimizer": "adamw"})
    found = done(one)
    assert [dict(t.settings) for t in found] == [{}, {"train.optimizer": "sgd"}]
    assert "tried before" in one.stop_reason


def test_a_run_that_joins_a_study_has_the_default_and_hears_what_others_finish(
    tmp_path: Path,
) -> None:
    where = str(tmp_path / "s.journal")
    first, second = (searching(trials(where, owner=name)) for name in ("first", "second"))
    jobs = first.jobs()
    default = next(jobs)
    others = second.jobs()
    second.add(carried_out(next(others)))
    first.add(carried_out(default))
    second.add(carried_out(next(others)))
    next(others)
    # The default is the first run's; nobody does it again, and both are held against it.
    assert {one.origin for one in second.results} == {"default", "sampler"}
    assert done(second)[0].settings == {}
    assert [one.origin for one in second.results].count("default") == 1


@pytest.mark.parametrize("grid", [False, True])
def test_a_default_that_a_killed_run_never_finished_is_done_by_another(
    tmp_path: Path, grid: bool
) -> None:
    where = str(tmp_path / "s.journal")
    points = [DEFAULT, {**DEFAULT, "train.epochs": 2}, {**DEFAULT, "train.epochs": 3}]
    more: Any = {"grid": points} if grid else {}
    next(searching(trials(where, owner="killed"), **more).jobs())
    other = searching(trials(where, owner="other"), most=4, **more)
    found = done(other)
    assert [dict(one.settings) for one in found].count({}) == 1
    assert "default" in {one.origin for one in found}
    keys = [settings_key(one.settings) for one in found]
    assert len(set(keys)) == len(keys)


def test_a_trial_that_fails_or_is_dropped_does_not_end_the_search(tmp_path: Path) -> None:
    import dataclasses

    def behind(tried: TrialResult, _: Any) -> str | None:
        return "behind" if tried.settings.get("train.optimizer") == "sgd" else None

    of = searching(
        trials(str(tmp_path / "s.journal"), "random"), most=8, folds=3, trial_stop_rule=behind
    )
    fits = []
    for job in of.jobs():
        fits.append(job.key)
        one = carried_out(job)
        if job.settings.get("train.epochs") == 5:
            one = dataclasses.replace(one, failed="the loss: is no number", losses=np.zeros(0))
        of.add(one)
    states = {one.state for one in of.results}
    assert states == {"complete", "pruned", "failed"}
    assert len(of.results) == 8
    for one in of.results:
        known = np.isfinite(one.losses).sum()
        assert known == {"complete": ROWS, "pruned": 7, "failed": 0}[one.state]
        assert one.is_fully_scored == (one.state == "complete")
    told = {one.because for one in of.results if one.state != "complete"}
    assert told == {"behind", "the loss: is no number"}
    # The sampler learns from whole trials alone.
    stored = {one.number: one.state.name for one in of.trials.study.get_trials()}
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    assert stored == {one.number: names[one.state] for one in of.results}
    # One that is dropped has no other fold.
    assert len(fits) == sum({"complete": 3, "pruned": 1, "failed": 1}[t.state] for t in of.results)


def test_a_fold_that_ends_after_its_trial_was_dropped_changes_nothing(tmp_path: Path) -> None:
    """Of several workers each has a fold of it."""
    where = str(tmp_path / "s.journal")
    of = searching(trials(where), most=2, folds=3, trial_stop_rule=lambda *_: "behind")
    jobs = of.jobs()
    first, second = next(jobs), next(jobs)
    of.add(carried_out(first))
    of.add(carried_out(second))
    assert [one.state for one in of.results] == ["pruned"]


def test_a_search_does_not_end_early_before_eight_trials_were_whole(tmp_path: Path) -> None:
    import dataclasses

    of = searching(
        trials(str(tmp_path / "s.journal"), "random"), 30, search_stop_rule=lambda _: "enough"
    )
    for job in of.jobs():
        one = carried_out(job)
        if job.settings.get("train.optimizer") == "sgd":
            one = dataclasses.replace(one, failed="the loss: is no number", losses=np.zeros(0))
        of.add(one)
    states = [one.state for one in of.results]
    assert states.count("complete") == 8
    assert "failed" in states
    assert of.stop_reason == "enough"


def test_a_trial_whose_rows_are_cut_into_other_pieces_is_not_compared(tmp_path: Path) -> None:
    import dataclasses

    of = searching(trials(str(tmp_path / "s.journal"), "random"), most=3)
    for number, job in enumerate(of.jobs()):
        one = carried_out(job)
        if number == 1:
            one = dataclasses.replace(one, losses=one.losses[:-1])
        of.add(one)
    assert [one.state for one in of.results] == ["complete", "failed", "complete"]
    assert "other pieces" in of.results[1].because
    assert all(len(one.losses) == ROWS for one in of.results)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:s3cret@host:5432/db", "postgresql://ann:***@host:5432/db"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("postgresql://host/db?user=a&password=s3cret", "postgresql://host/db?user=a&password=***"),
        ("postgresql://host/db?password=s3cr@et&a=b", "postgresql://host/db?password=***&a=b"),
        ("postgresql://ann:s3/cr@t@host/db", "postgresql://ann:***@host/db"),
        ("/tmp/study.journal", "/tmp/study.journal"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert mask_password(url) == shown
    assert "s3" not in without_password(f"could not connect to {url}", url) or "@" not in url


@pytest.mark.slow
def test_a_database_gives_the_trials_of_a_file_and_several_runs_share_it(
    postgres: str, tmp_path: Path
) -> None:
    of_file = done(searching(trials(str(tmp_path / "s.journal")), most=6))
    one, two, three = (trials(postgres, owner=name) for name in ("first", "second", "first"))
    began = searching(one, most=6)
    jobs = began.jobs()
    began.add(carried_out(next(jobs)))
    next(jobs)
    # The second trial is under way in one run as another joins: neither does what the other does.
    second = searching(two, most=6)
    assert plain(second.results) == plain(of_file)[:1]
    found = done(second)
    assert len(found) == 6
    # The first run, killed there, goes on with its own.
    again = searching(three, most=7)
    done(again)
    assert plain(again.results)[:2] == plain(of_file)[:2]
    for each in (one, two, three):
        each.close()


def test_another_search_in_one_database_is_another_study(postgres: str) -> None:
    of = trials(postgres, owner="a", rows="others")
    assert len(done(searching(of, most=2))) == 2
    of.close()


def test_a_database_that_does_not_answer_is_refused_without_the_password() -> None:
    with pytest.raises(RunError) as refused:
        open_storage("postgresql://ann:s3cret@/nowhere?host=/no/such/folder")
    assert "s3cret" not in str(refused.value)
    assert "ann:***" in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(RunError, match="is not the URL of a database") as refused:
        open_storage("postgresql://ann:s3cret@host:port/db")
    assert "s3cret" not in str(refused.value)
