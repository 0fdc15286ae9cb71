"""The worker: does one case after the other as the command does, and tells what came of each."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CLEAR_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def command(arguments: Sequence[str]) -> int:
    """``holdfast …``, as the console script."""
    from holdfast.cli.main import run

    sys.argv = ["holdfast", *arguments]
    try:
        run()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    return 0


def dry_run(arguments: Sequence[str]) -> int:
    return command(["train", *arguments, "--dry-run", "--quiet"])


def load(arguments: Sequence[str]) -> int:
    """Everything of ``train`` up to the division: reading, columns, audit, splits."""
    from holdfast.prepare.rows import load_and_divide

    return _train_until(arguments, load_and_divide)


def recipe(arguments: Sequence[str]) -> int:
    """The recipe that ``train`` makes of a file and of ``--set``, and its text again."""
    from holdfast.recipe import Recipe, read_recipe

    def again(made: Recipe) -> None:
        Path("again.yaml").write_text(made.to_yaml(), encoding="utf-8")
        read = read_recipe(Path("again.yaml"))
        Path("again.yaml").unlink()
        if read != made:
            raise AssertionError("a recipe that is written and read again is another one")

    return _train_until(arguments, again)


def model(arguments: Sequence[str]) -> int:
    """Load a model's folder as the task of that name does."""
    from holdfast.models.encoders.classifier import load_classifier
    from holdfast.models.generators.causal import load_causal
    from holdfast.models.generators.seq2seq import load_seq2seq
    from holdfast.models.vision.vision import load_vision

    (name,) = arguments
    loads: dict[str, Callable[[], object]] = {
        "model": lambda: load_classifier(name, ["a", "b"]),
        "causal": lambda: load_causal(name),
        "seq2seq": lambda: load_seq2seq(name),
        "vision": lambda: load_vision(name, ["a", "b"]),
    }
    return _netted(loads[name])


def _train_until(arguments: Sequence[str], work: Callable[[Any], object]) -> int:
    """``train`` with its training replaced by ``work`` on the recipe."""
    from holdfast.cli import train

    kept = train._dry_run
    train._dry_run = lambda _, recipe, *__: work(recipe)  # type: ignore[assignment]
    try:
        return command(["train", *arguments, "--dry-run"])
    finally:
        train._dry_run = kept


def _netted(work: Callable[[], object]) -> int:
    from holdfast.cli import main
    from holdfast.core.errors import HoldfastError

    try:
        work()
    except HoldfastError as error:
        return main._refuse(error)
    except Exception as error:
        return main._exit_unexpected(error)
    return 0


def python(arguments: Sequence[str]) -> int:
    """A line of Python: how the watch itself is tried."""
    exec(arguments[0], {})
    return 0


WAYS: dict[str, Callable[[Sequence[str]], int]] = {
    "command": command,
    "dry run": dry_run,
    "load": load,
    "recipe": recipe,
    "model": model,
    "python": python,
}


def work(asked: int, told: int) -> None:
    """Read cases from one pipe, a JSON line each, and write outcomes to the other."""
    with os.fdopen(asked, "r") as cases, os.fdopen(told, "w") as outcomes:
        outcomes.write("ready\n")
        outcomes.flush()
        for line in cases:
            case = json.loads(line)
            outcomes.write(json.dumps(_one(case)) + "\n")
            outcomes.flush()


def _one(case: dict[str, Any]) -> dict[str, object]:
    folder = str(case["folder"])
    said = os.open(str(case["said"]), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(said, number)
    os.close(said)
    os.chdir(folder)
    with contextlib.suppress(OSError):
        CLEAR_PEAK.write_text("5")
    before, began = _kib("VmRSS"), time.process_time()
    broke = ""
    try:
        code = WAYS[str(case["way"])]([str(one) for one in case["arguments"]])
    except BaseException:
        code, broke = -1, traceback.format_exc()
    took = time.process_time() - began
    with contextlib.suppress(ValueError, OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return {"code": code, "seconds": took, "mb": (_kib("VmHWM") - before) / 1024, "broke": broke}


def _kib(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return 0
