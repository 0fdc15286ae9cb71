"""The command as a user types it: inside this process, or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOLDFAST = Path(sys.executable).parent / "holdfast"


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


def check_document(arguments: tuple[object, ...], done: Done) -> Done:
    """What a command prints with ``--json`` has the shape that ``holdfast schema`` shows."""
    given = [str(one) for one in arguments]
    if "--json" in given and done.code in (0, 3):
        from holdfast.cli.schema import shape_of

        by_line = given[0] == "chat" or "--every" in given
        shape = shape_of("plan" if "--dry-run" in given else given[0])
        for text in done.out.splitlines() if by_line else [done.out]:
            shape(json.loads(text), "")
    return done


@pytest.fixture
def holdfast(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """Run the console script's function, in an empty folder, without a new process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        from holdfast.cli.main import run as main

        monkeypatch.setattr(sys, "argv", ["holdfast", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        captured = capsys.readouterr()
        return check_document(arguments, Done(int(code), captured.out, captured.err))

    return run


@pytest.fixture(scope="session")
def shell() -> Callable[..., Done]:
    """Run the installed ``holdfast`` in a process of its own."""

    def run(*arguments: object, cwd: Path, text: str | None = None, **env: str) -> Done:
        done = subprocess.run(
            [HOLDFAST, *map(str, arguments)],
            cwd=cwd,
            input=text,
            capture_output=True,
            text=True,
            env=os.environ | env,
            check=False,
            timeout=120,
        )
        return check_document(arguments, Done(done.returncode, done.stdout, done.stderr))

    return run


@pytest.fixture(scope="session")
def own_verdict() -> Callable[[Path], None]:
    """Hold that ``diagnose`` gives a run its own verdict: from its rows, and without them."""

    def check(run: Path) -> None:
        from holdfast.core.records import to_json
        from holdfast.plugins.logs.holdfast_run import run_verdict
        from holdfast.training.evaluation_file import EVALUATIONS_FILE

        told = json.loads((run / "result.json").read_text("utf-8"))
        again = run_verdict(run)
        assert again is not None
        assert to_json(again.verdict) == told["verdict"]
        assert again.best_step == told["best_step"]
        looks = run / EVALUATIONS_FILE
        aside = looks.rename(looks.with_suffix(".aside"))
        written = run_verdict(run / "events.jsonl")
        aside.rename(looks)
        assert written is not None
        assert to_json(written.verdict) == told["verdict"]

    return check


@pytest.fixture(scope="session")
def sets(quick: list[str]) -> list[str]:
    """``quick`` as options of the command."""
    return [part for setting in quick for part in ("--set", setting)]
