"""A finished run opens whatever its verdict, by every command that reads a run.

One small run of each task is trained. Its files are then written again, as a run writes them, with
every verdict that the judge can give, every action, a finding of every check and no answer to any
question; each command must use it as it used the run before.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from holdfast.analyses.analysis import all_analyses
from holdfast.cli.main import app
from holdfast.core.actions import ACTIONS, RollBack, to_record
from holdfast.core.errors import HoldfastError
from holdfast.core.labels import verdict_title
from holdfast.core.records import Finding, Verdict, to_json
from holdfast.core.run_files import read_events, read_result, seal_folder, seal_model, write_result
from holdfast.models.adapters.save import base_folder
from holdfast.pipeline.main import train
from holdfast.plugins.logs.holdfast_run import run_verdict
from holdfast.quality.checks import all_checks
from holdfast.recipe import override
from holdfast.training.engine import verdict_line
from holdfast.training.evaluation_file import EVALUATIONS_FILE
from holdfast.training.journal import Journal

TASKS = {
    "classes": (),
    "several labels": (),
    "numbers": (),
    "tags": (),
    "seq2seq": ("generate.rows=2",),
    "chats": ("generate.rows=2",),
    "pictures": (),
}
QUICK = ("train.max_steps=2", "train.precision=float32", "train.threads=1", "train.matmul=default")
# Of each command what stands behind its name; RUN, ROWS and OUT are put in.
COMMANDS = {
    "predict": "RUN ROWS --quiet",
    "probe": "RUN --json --quiet",
    "errors": "RUN --json --quiet",
    "report": "RUN",
    "explain": "RUN ROWS --rows 1 --json --quiet",
    "fairness": "RUN --rows 2 --json",
    "threshold": "RUN --coverage 0.5 --json",
    "compare": "RUN RUN ROWS --json --quiet",
    "evaluate": "RUN ROWS --json --quiet",
    "diagnose": "RUN --html OUT",
    "export": "RUN --to onnx --out OUT",
    "drift": "RUN ROWS --json",
}
# What such a run cannot do, whatever its verdict: too few rows, or no such thing of the task.
REFUSED = {"export", "fairness", "drift", "threshold"}
# They take a run as well: what they do with it is begun with ``open_run`` and ``Predictor``, as
# ``predict`` does, or they wait for requests, which ``serve`` and the dashboard do below.
OTHERS = (
    "serve dashboard chat distill update promote lr cv tune choose meta train audit demo forget "
    "schema"
)


@dataclass(frozen=True)
class OneOfEach:
    """The verdicts of a task, and one verdict with the evidence and the remedies of all."""

    each: tuple[Verdict, ...]
    union: Verdict


@pytest.fixture(scope="module")
def runs(
    make_sample: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            recipe = override(make_sample(name).recipe, (*QUICK, *TASKS[name]))
            folder = tmp_path_factory.mktemp("verdicts") / "run"
            train(recipe, folder)
            made[name] = folder
        return made[name]

    return run


@pytest.fixture(scope="module")
def told(verdicts: Any) -> Callable[[str], OneOfEach]:
    made: dict[str, OneOfEach] = {}

    def every(task: str) -> OneOfEach:
        if task not in made:
            each = tuple(verdict for _, verdict in verdicts.every_verdict(task))
            evidence = tuple(one for verdict in each for one in verdict.evidence)
            remedies = tuple({one.do: one for v in each for one in v.remedies}.values())
            assert any(one.low is None and one.high is not None for one in evidence)
            union = Verdict(
                "memorizing",
                "It is every verdict at once.",
                0.5,
                since_step=1,
                cause="all of them",
                evidence=evidence,
                remedies=remedies,
                harm="both",
            )
            made[task] = OneOfEach(each, union)
        return made[task]

    return every


def every_action() -> Iterator[Any]:
    values = {"float": 0.5, "int": 1, "str": "sam", "tuple": ("head",)}
    for kind in ACTIONS.values():
        given = {
            one.name: values[re.split(r"[\[ ]", str(one.type))[0]]
            for one in fields(kind)
            if one.default is MISSING and one.default_factory is MISSING
        }
        # Of two lengths it takes one.
        yield kind(**given, **({"epochs": 1.0} if kind.__name__ == "Extend" else {}))


def rewritten(run: Path, to: Path, verdict: Verdict, others: tuple[Verdict, ...] = ()) -> Path:
    """A copy of a run with this verdict, ``others`` in its journal, and one of all else that is
    told."""
    shutil.copytree(run, to)
    # The verdict is then the one that is written down.
    (to / EVALUATIONS_FILE).unlink()
    result = json.loads((run / "result.json").read_text("utf-8"))
    journal, step = Journal(to), result["last_step"]
    for one in (*others, verdict):
        journal.write("verdict", step, **verdict_line(one))
    actions = [*every_action()]
    for action in actions:
        # A way back opens a branch, of which this run has no look.
        if not isinstance(action, RollBack):
            journal.write("action", step, **to_record(action))
    for analysis in all_analyses().values():
        place = result
        for key in analysis.where[:-1]:
            place = place.setdefault(key, {})
        if others:
            place[analysis.where[-1]] = {"why": "nobody asked"}
    result["verdict"] = to_json(verdict)
    result["actions"] = [
        {"step": step, "action": type(one).__name__, "because": one.because} for one in actions
    ]
    result["data"]["findings"] = [
        to_json(Finding(name, severity, 0.5, 1, (0,), f"{name} was found", "Look at it."))
        for name in all_checks()
        for severity in ("info", "warn", "error")
    ]
    del result["seal"]
    assert write_result(to, result, seal_model(to), seal_folder(base_folder(to / "model"))) == ()
    return to


def outcome(command: str, run: Path, folder: Path) -> tuple[int, str]:
    """The exit code of a command on a run and what an error says; it writes into ``folder``."""
    folder.mkdir(parents=True)
    out = folder / f"{command}.html"
    rows = str(read_result(run)["settings"]["data"]["path"])
    words = {"RUN": str(run), "ROWS": rows, "OUT": str(out)}
    arguments = [words.get(word, word) for word in COMMANDS[command].split()]
    done = CliRunner().invoke(app, [command, *arguments])
    error = done.exception
    if error is None or isinstance(error, SystemExit):
        return done.exit_code, ""
    if not isinstance(error, HoldfastError):
        raise error
    return error.exit_code, f"{error.what} {error.rule}".replace(str(run), "RUN").replace(
        str(out), "OUT"
    )


def test_every_command_is_named_here() -> None:
    import typer

    group: Any = typer.main.get_command(app)
    assert set(group.commands) == {*COMMANDS, *OTHERS.split()}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_run_with_every_verdict_is_used_by_every_command(
    name: str, runs: Callable[[str], Path], told: Callable[[str], OneOfEach], tmp_path: Path
) -> None:
    run = runs(name)
    every = told(str(read_result(run)["task"]))
    changed = rewritten(run, tmp_path / "changed" / "run", every.union, every.each)
    refused = {}
    for command in COMMANDS:
        found = outcome(command, changed, tmp_path / "a" / command)
        if found[0] == 0:
            continue
        refused[command] = found
        # What this run cannot do it could not do before.
        plain = Path(shutil.copytree(run, tmp_path / "plain" / command / "run"))
        assert found == outcome(command, plain, tmp_path / "b" / command), command
        assert "result.json" not in found[1]
        assert "events.jsonl" not in found[1]
    assert set(refused) <= REFUSED, refused


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_service_and_a_dashboard_open_it(
    name: str, runs: Callable[[str], Path], told: Callable[[str], OneOfEach], tmp_path: Path
) -> None:
    from starlette.testclient import TestClient

    from holdfast.plugins.dashboard.access import Access
    from holdfast.plugins.dashboard.app import application
    from holdfast.plugins.dashboard.resources import Dashboard
    from holdfast.plugins.dashboard.runs import Runs
    from holdfast.plugins.service.engine.open import open_engine

    run = runs(name)
    result = read_result(run)
    every = told(str(result["task"]))
    changed = rewritten(run, tmp_path / "run", every.union, every.each)
    if result["task"] in ("text-classification", "causal-lm"):
        open_engine(changed).close()
    dashboard = Dashboard(Runs(tmp_path), Access(8081), None)
    with TestClient(
        application(dashboard), base_url="http://127.0.0.1:8081", follow_redirects=True
    ) as client:
        listed = client.get(dashboard.access.url)
        assert listed.status_code == 200
        assert "Memorizing" in listed.text
        base = re.escape(dashboard.access.base)
        links = set(re.findall(rf'href="({base}/runs?/[^"]+)"', listed.text))
        assert links
        for link in sorted(links):
            assert client.get(link).status_code == 200, link


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_each_verdict_is_read_back_and_shown(
    name: str, runs: Callable[[str], Path], told: Callable[[str], OneOfEach], tmp_path: Path
) -> None:
    """Every one is written, read and given again by ``diagnose``; each label is drawn once."""
    run = runs(name)
    drawn: set[str] = set()
    copy = rewritten(run, tmp_path / "run", told("causal-lm").union)
    result = json.loads((copy / "result.json").read_text("utf-8"))
    for verdict in told(str(result["task"])).each:
        assert write_result(copy, {**result, "verdict": to_json(verdict)}) == ()
        again = run_verdict(copy)
        assert again is not None
        assert again.verdict == verdict
        if verdict.label in drawn:
            continue
        drawn.add(verdict.label)
        # Of each task some are drawn, and all of them of some task.
        if len(drawn) % len(TASKS) != list(TASKS).index(name):
            continue
        for command in ("report", "diagnose"):
            assert outcome(command, copy, tmp_path / verdict.label / command)[0] == 0
        page = (copy / "report.html").read_text("utf-8")
        assert verdict_title(verdict.label) in page
    read_events(copy / "events.jsonl")
