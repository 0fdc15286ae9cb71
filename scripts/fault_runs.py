"""Which of the hundred faults do the tests find?

    python scripts/fault_runs.py enter FAULTS WORK [--commit C]
    python scripts/fault_runs.py find FAULTS WORK OUT [--commit C] [--tier quick|slow] [--only ID,…]
        [--earlier OUT]

`enter` marks the functions that have a fault, runs every test once in a clone of the commit, and
keeps in WORK which test enters which function, in whatever process. `find` plants one fault after
the other in clones and runs the tests of a tier that enter its function, the quickest files first,
until one fails; it must pass without the fault. Tests that failed in `enter`, or that do not enter
the function, find nothing.

OUT has a JSON line for each fault and tier: ``found``, the test that failed first, and seconds.
Finished lines are not run again. The test that found a fault in an earlier OUT is run first.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from fault_operators import FUNCTIONS
from faults import Lost, Record, functions, located, read

ROOT = Path(__file__).resolve().parents[1]
TIERS = {"quick": "not slow", "slow": "slow"}
# Longest time for the tests of one fault [s]: one that makes a loop endless is found.
LONGEST = 1500
# In each clone, beside the package: what the marked functions call.
ENTRIES = """
import os
_SEEN = set()
def enter(name):
    test = os.environ.get("PYTEST_CURRENT_TEST", "")
    fixture = os.environ.get("HOLDFAST_FIXTURE", "")
    key = name, test, fixture
    if key not in _SEEN:
        _SEEN.add(key)
        line = "\\t".join(key) + "\\n"
        # Some tests run without rights or room for a file.
        with contextlib.suppress(OSError):
            fd = os.open(os.environ["HOLDFAST_ENTRIES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            try:
                os.write(fd, line.encode())
            finally:
                os.close(fd)
"""
# The plug-in of pytest: which fixture is being made, and how each test ended.
WATCH = """
import json, os
import pytest

CHOSEN = os.environ.get("HOLDFAST_CHOSEN")

@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef):
    before = os.environ.get("HOLDFAST_FIXTURE", "")
    shared = fixturedef.scope != "function"
    if shared and not before:
        os.environ["HOLDFAST_FIXTURE"] = f"{fixturedef.baseid}::{fixturedef.argname}"
    yield
    if shared and not before:
        os.environ.pop("HOLDFAST_FIXTURE", None)

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    if CHOSEN:
        with open(CHOSEN) as file:
            chosen = json.load(file)
        items[:] = sorted((i for i in items if i.nodeid in chosen), key=lambda i: chosen[i.nodeid])

def pytest_runtest_logreport(report):
    if report.when != "call" and not report.failed:
        return
    line = json.dumps([report.nodeid, report.outcome, report.duration])
    with open(os.environ["HOLDFAST_REPORTS"], "a") as file:
        file.write(line + "\\n")

def pytest_collection_finish(session):
    where = os.environ.get("HOLDFAST_FIXTURES")
    if where:
        with open(where, "w") as file:
            for item in session.items:
                defs = item._fixtureinfo.name2fixturedefs
                names = [f"{d[-1].baseid}::{n}" for n, d in defs.items()]
                slow = bool(item.get_closest_marker("slow"))
                file.write(json.dumps([item.nodeid, names, slow]) + "\\n")
"""


def clone(commit: str, place: Path) -> Path:
    """A clone of this repository at ``commit``, with what tests expect beside it."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["git", "clone", "-q", "--shared", ROOT, place], check=True)
        subprocess.run(["git", "-C", place, "checkout", "-q", commit], check=True)
        shared = place.parent / "shared"
        if not shared.exists() and (ROOT.parent / "shared").exists():
            shared.symlink_to(ROOT.parent / "shared")
    subprocess.run(["git", "-C", place, "checkout", "-q", "--", "."], check=True)
    (place / "src" / "fault_entries.py").write_text(ENTRIES, "utf-8")
    (place / "src" / "fault_watch.py").write_text(WATCH, "utf-8")
    return place


def tests(place: Path, arguments: list[str], **environment: str) -> int | None:
    """Pytest's exit code in a clone; ``None`` where it did not end within the time."""
    env = {**os.environ, "PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "fault_watch", "-p", "no:cacheprovider"]
    log = environment.pop("log")
    limit = float(environment.pop("limit"))
    with Path(log).open("wb") as out:
        running = subprocess.Popen(
            [*command, *arguments],
            cwd=place,
            env=env | environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            return running.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, 9)
            running.wait()
            return None


def marked(text: str, names: dict[str, str]) -> str:
    """The text of a module whose functions ``names`` report that they are entered."""
    lines = text.split("\n")
    found = {name: node for name, node in functions(ast.parse(text)) if name in names}
    places = []
    for name, node in found.items():
        assert isinstance(node, FUNCTIONS)
        body = node.body
        docs = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
        first = body[1] if docs and len(body) > 1 else body[0]
        decorators = getattr(first, "decorator_list", [])
        row = min([first.lineno, *(one.lineno for one in decorators)]) - 1
        call = f'__import__("fault_entries").enter("{names[name]}")'
        places.append((row, first.col_offset, call))
    for row, column, call in sorted(places, reverse=True):
        head = lines[row][:column]
        if head.strip(" @"):
            lines[row] = f"{head}{call}; {lines[row][column:]}"
        else:
            lines.insert(row, " " * len(head.rstrip("@")) + call)
    return "\n".join(lines)


def enter(options: argparse.Namespace) -> int:
    """One run of every test in which the functions with faults report who enters them."""
    records, work = _records(options.faults), options.work
    place = clone(options.commit, work / "enter")
    sources = read(place / "src")
    by_module: dict[str, dict[str, str]] = defaultdict(dict)
    for record in records:
        located(record, sources)
        by_module[record["module"]][record["function"]] = record["id"]
    for module, names in by_module.items():
        path = sources[module].path
        path.write_text(marked(path.read_text("utf-8"), names), "utf-8")
        compile(path.read_text("utf-8"), path, "exec")
    for name in ("entries", "reports", "fixtures"):
        (work / name).unlink(missing_ok=True)
    code = tests(
        place,
        ["-n", str(options.jobs), "--dist", "loadfile", "-m", "", "-W", "ignore"],
        log=str(work / "enter.log"),
        limit="7200",
        HOLDFAST_ENTRIES=str(work / "entries"),
        HOLDFAST_REPORTS=str(work / "reports"),
        HOLDFAST_FIXTURES=str(work / "fixtures"),
    )
    print(f"pytest ended with {code}; {work / 'enter.log'}")
    return 0


def _records(file: Path) -> list[Record]:
    """The faults that can be planted: the code of one that is ``gone`` is no longer there."""
    records = map(json.loads, filter(None, file.read_text("utf-8").splitlines()))
    return [one for one in records if "gone" not in one]


class Entered:
    """What `enter` kept: for each fault its tests, and for each test its seconds and tier."""

    def __init__(self, work: Path) -> None:
        self.seconds: dict[str, float] = {}
        failed = set()
        for line in (work / "reports").read_text("utf-8").splitlines():
            test, outcome, seconds = json.loads(line)
            self.seconds[test] = self.seconds.get(test, 0.0) + seconds
            if outcome == "failed":
                failed.add(test)
        self.slow: dict[str, bool] = {}
        users: dict[str, list[str]] = defaultdict(list)
        for line in (work / "fixtures").read_text("utf-8").splitlines():
            test, fixtures, slow = json.loads(line)
            if test in failed:
                continue
            self.slow[test] = slow
            for fixture in fixtures:
                users[fixture].append(test)
        self.tests: dict[str, set[str]] = defaultdict(set)
        for line in (work / "entries").read_text("utf-8").splitlines():
            fault, current, fixture = line.split("\t")
            if fixture:
                self.tests[fault].update(users[fixture])
            elif current:
                test = current.rpartition(" (")[0]
                if test in self.slow:
                    self.tests[fault].add(test)
            else:
                # While modules are loaded: every test may see it.
                self.tests[fault].update(self.slow)

    def order(self, fault: str, slow: bool, first: str | None) -> dict[str, int]:
        """The tests of a tier that enter a fault's function, by file, the quickest files first, but
        for the ``first`` of all."""
        files: dict[str, list[str]] = defaultdict(list)
        for test in sorted(self.tests[fault]):
            if self.slow[test] == slow:
                files[test.partition("::")[0]].append(test)
        cost = {f: sum(self.seconds.get(t, 0.0) for t in names) for f, names in files.items()}
        ordered = [test for file in sorted(files, key=lambda f: cost[f]) for test in files[file]]
        ordered.sort(key=lambda test: test != first)
        return {test: n for n, test in enumerate(ordered)}


def find(options: argparse.Namespace) -> int:
    """Plant each fault and run its tests; a line for each."""
    entered, out = Entered(options.work), options.out
    done = {(one["id"], one["tier"]) for one in _records(out)} if out.exists() else set()
    queue: SimpleQueue[Record] = SimpleQueue()
    wanted = set(options.only.split(",")) if options.only else None
    for record in _records(options.faults):
        if (record["id"], options.tier) not in done and (not wanted or record["id"] in wanted):
            queue.put(record)
    lock = threading.Lock()

    def work(number: int) -> None:
        place = clone(options.commit, options.work / f"job{number}")
        while not queue.empty():
            record = queue.get()
            result = _one(record, entered, place, options)
            with lock, out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result, ensure_ascii=False) + "\n")
            print(json.dumps(result), flush=True)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(options.jobs)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return 0


def _one(
    record: Record, entered: Entered, place: Path, options: argparse.Namespace
) -> dict[str, Any]:
    first = options.found_by.get(record["id"])
    chosen = entered.order(record["id"], options.tier == "slow", first)
    result: dict[str, Any] = {"id": record["id"], "tier": options.tier, "tests": len(chosen)}
    if not chosen:
        return result | {"found": False, "by": None, "s": 0}
    start = time.monotonic()
    source, text = located(record, read(place / "src"))
    before = source.path.read_bytes()
    files = sorted({test.partition("::")[0] for test in chosen}, key=str)
    base = options.work / place.name
    lists, reports = Path(f"{base}.chosen"), Path(f"{base}.reports")
    lists.write_text(json.dumps(chosen), "utf-8")

    def run(arguments: list[str]) -> str | None:
        reports.write_text("", "utf-8")
        code = tests(
            place,
            ["-x", "-m", TIERS[options.tier], "--timeout", "200", *arguments],
            log=f"{base}.log",
            limit=str(LONGEST),
            HOLDFAST_ENTRIES=os.devnull,
            HOLDFAST_CHOSEN=str(lists),
            HOLDFAST_REPORTS=str(reports),
        )
        return next(_failed(reports), None if code in (0, 5) else f"pytest ended with {code}")

    try:
        source.path.write_bytes(text)
        by = run(files)
    finally:
        source.path.write_bytes(before)
    if by is not None and "::" in by:
        lists.write_text(json.dumps({by: 0}), "utf-8")
        if run([by.partition("::")[0]]) is not None:
            raise Lost(f"{by} fails without a fault.")
    return result | {"found": by is not None, "by": by, "s": round(time.monotonic() - start)}


def _failed(reports: Path) -> Iterator[str]:
    for line in reports.read_text("utf-8").splitlines():
        test, outcome, _ = json.loads(line)
        if outcome == "failed":
            yield test


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    for run in (enter, find):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("faults", type=Path)
        command.add_argument("work", type=Path)
        command.add_argument("--commit", default="HEAD")
        command.add_argument("--jobs", type=int, default=2)
        if run is find:
            command.add_argument("out", type=Path)
            command.add_argument("--tier", choices=sorted(TIERS), default="quick")
            command.add_argument("--only", default="")
            command.add_argument("--earlier", type=Path)
    options = parser.parse_args()
    options.faults, options.work = options.faults.resolve(), options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    earlier = _records(options.earlier) if getattr(options, "earlier", None) else []
    options.found_by = {one["id"]: one["by"] for one in earlier if one["found"]}
    try:
        return int(options.run(options))
    except Lost as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
