"""Are faults caught? Plants one after the other in a copy of the code and runs the tests that
should see it.

Most are faults of composition: the wrong rows are passed on, a setting is forgotten on the way, a
decision is made and not told. Each is one line of text that is exchanged for another; a line that
is not found exactly once is *stale* and must be anchored anew. A test file that fails without any
fault catches nothing, so each is run as it is, too.

A line of ``benchmarks/results/planted_faults.jsonl`` is a finished cell; a cell whose fault, tests
or code have changed is run again. ``docs/testing.md`` shows the table.

    python benchmarks/planted_faults.py               # what is not there yet
    python benchmarks/planted_faults.py --list        # what would be planted, and what is stale
    python benchmarks/planted_faults.py --only NAME   # one of them, with what the tests say
    python benchmarks/planted_faults.py --minutes 3   # stop after that; a later call goes on
    python benchmarks/planted_faults.py --table       # the table in Markdown
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "planted_faults.jsonl"
SECONDS = 150
UNRUN = 99
WHOLE = "tests/journeys/test_composition.py"


@dataclass(frozen=True)
class Fault:
    """``old`` in the file ``where`` (from ``src/holdfast``) becomes ``new``; ``tests`` are the
    files, or single tests of them, one of which should fail."""

    name: str
    what: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def room(self) -> str:
        return self.where.split("/")[0].removesuffix(".py")

    def found(self, source: Path) -> bool:
        path = source / "holdfast" / self.where
        return path.is_file() and path.read_text("utf-8").count(self.old) == 1


def faults() -> tuple[Fault, ...]:
    from planted import FAULTS

    return tuple(Fault(*fault) for fault in FAULTS)


def mark(fault: Fault | None, tests: Sequence[str]) -> str:
    """What a cell stands for: the fault, its tests, and the file that it changes."""
    files = [ROOT / name.partition("::")[0] for name in tests]
    parts = [repr(fault), *(path.read_text("utf-8") for path in files)]
    if fault is not None:
        parts.append((ROOT / "src" / "holdfast" / fault.where).read_text("utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def planted(source: Path, fault: Fault | None) -> Iterator[None]:
    """The fault in the copy ``source``, taken out again at the end."""
    if fault is None:
        yield
        return
    path = source / "holdfast" / fault.where
    before = path.read_text("utf-8")
    path.write_text(before.replace(fault.old, fault.new), "utf-8")
    try:
        yield
    finally:
        path.write_text(before, "utf-8")


def failing(source: Path, tests: Sequence[str], aloud: bool = False) -> str | None:
    """The first test that fails with the code in ``source``; ``None`` where all pass. Each call has
    a process of its own, forked where the large libraries are loaded already."""
    told = source.parent / "told.txt"
    told.write_text("", "utf-8")
    child = forking().fork()
    if child == 0:
        os.setsid()
        # Whatever happens in the child, it must not unwind into what the parent cleans up.
        try:
            _run_tests(source, tests, told, aloud)
        except BaseException as error:
            told.write_text(f"the tests could not be run: {error!r}", "utf-8")
        finally:
            os._exit(UNRUN)
    code = _wait(child)
    said = told.read_text("utf-8").strip()
    if code == UNRUN:
        raise SystemExit(said)
    if code == 0:
        return None
    return said or ("no end within the time" if code is None else f"the tests ended with {code}")


def _wait(child: int) -> int | None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _run_tests(source: Path, tests: Sequence[str], told: Path, aloud: bool) -> None:
    import pytest

    class Watch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed and not told.read_text("utf-8"):
                told.write_text(report.nodeid, "utf-8")

        def pytest_collectreport(self, report: pytest.CollectReport) -> None:
            if report.failed and not told.read_text("utf-8"):
                told.write_text(f"{report.nodeid} cannot be collected", "utf-8")

    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.chdir(ROOT)
    if not aloud:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
    code = pytest.main(
        [
            "-x",
            "-q",
            # The tests that take long, too.
            "-m",
            "",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            "--no-header",
            *tests,
        ],
        [Watch()],
    )
    sys.stdout.flush()
    os._exit(int(code))


@functools.cache
def forking() -> Any:
    """``plugins/sandbox/fork.py``, without the package around it."""
    path = ROOT / "src" / "holdfast" / "plugins" / "sandbox" / "fork.py"
    spec = importlib.util.spec_from_file_location("forking", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def warm() -> None:
    """Load what takes seconds and none of Holdfast, before the first fork."""
    os.environ.update(forking().ENVIRONMENT)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import accelerate  # noqa: F401
    import datasets  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import torch
    import transformers.models.bert.modeling_bert  # noqa: F401

    torch.set_num_threads(1)
    if "holdfast" in sys.modules:
        raise SystemExit("holdfast must be loaded in the forked processes alone")


def known() -> dict[str, dict[str, object]]:
    """Finished cells by name; the last line of a name counts."""
    if not RESULTS.exists():
        return {}
    lines = RESULTS.read_text("utf-8").splitlines()
    return {cell["name"]: cell for cell in map(json.loads, lines)}


def write(cell: dict[str, object]) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def run(chosen: Sequence[Fault], minutes: float | None, aloud: bool) -> int:
    """Cells that are not there yet; 1 where a fault survives, is stale, or a test always fails."""
    end = None if minutes is None else time.monotonic() + 60 * minutes
    warm()
    done, bad = known(), 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source)
        files = sorted({path for fault in chosen for path in fault.tests})
        cells: list[tuple[str, Fault | None, tuple[str, ...]]] = []
        cells += [(fault.name, fault, fault.tests) for fault in chosen]
        cells += [(f"as it is: {path}", None, (path,)) for path in files]
        # What was never run comes first: a call may end before all is done.
        for name, fault, tests in sorted(cells, key=lambda cell: cell[0] in done):
            sign = mark(fault, tests)
            if not aloud and done.get(name, {}).get("mark") == sign:
                continue
            if end is not None and time.monotonic() > end:
                print("the rest with the next call")
                return 2
            start = time.monotonic()
            if fault is not None and not fault.found(source):
                outcome: str | None = "stale"
                print(f"STALE     {name}: its line is not found exactly once in {fault.where}")
                bad = 1
                continue
            with planted(source, fault):
                outcome = failing(source, tests, aloud)
            caught = outcome is not None
            seconds = round(time.monotonic() - start, 1)
            cell = {"name": name, "mark": sign, "caught": caught, "by": outcome, "s": seconds}
            write(cell)
            right = caught == (fault is not None)
            bad |= not right
            said = (
                ("caught  " if caught else "SURVIVED")
                if fault
                else ("fine    ", "FAILS   ")[caught]
            )
            print(f"{said}  {name}  {outcome or ''}  {seconds} s", flush=True)
    return bad


def table() -> str:
    """What was planted and what caught it, in Markdown."""
    done, rows = known(), ["| Room | Fault | Caught by |", "|---|---|---|"]
    for fault in sorted(faults(), key=lambda f: f.room):
        by = done.get(fault.name, {}).get("by")
        file, _, test = str(by or "").rsplit("/", 1)[-1].partition("::")
        told = f"`{file}`: {test.split('[')[0].removeprefix('test_').replace('_', ' ')}"
        caught = told if by else "**nothing**" if fault.name in done else "not run yet"
        rows.append(f"| `{fault.room}` | {fault.what} | {caught} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--minutes", type=float)
    given = parser.parse_args()
    chosen = [fault for fault in faults() if not given.only or fault.name in given.only]
    if given.table:
        print(table())
        return 0
    if given.list:
        done = known()
        for fault in chosen:
            state = {True: "caught", False: "SURVIVED", None: "not run"}[
                done.get(fault.name, {}).get("caught")  # type: ignore[index]
            ]
            stale = "" if fault.found(ROOT / "src") else "STALE "
            print(f"{stale}{state:9} {fault.name:34} {fault.where}: {fault.what}")
        return 0
    return run(chosen, given.minutes, bool(given.only))


if __name__ == "__main__":
    sys.exit(main())
