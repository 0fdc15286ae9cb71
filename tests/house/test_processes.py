"""No process is forked that may have threads, none outlives its test, none hears a shell's signals.

A fork copies one thread and every lock as it stands: what another thread held is held for good.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
# The only fork: of a process that has one thread.
FORK = "src/holdfast/plugins/sandbox/fork.py"
FORKS = ("os.fork", "os.forkpty", "pty.fork", "pty.spawn")
# What starts processes by a fork, unless it is told another way.
POOLS = ("Process", "Pool")
# A file without these words forks nothing, and is not parsed.
WORDS = re.compile(r"fork|pty|preexec_fn|multiprocess|ProcessPool|num_workers")


def forks(code: str) -> list[str]:
    """What in this code forks the process that runs it."""
    return [found for node in ast.walk(ast.parse(code)) for found in _forks(node)]


def _forks(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in FORKS:
        yield name
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{one.name}" for one in node.names]
        pools = "multiprocess" in str(node.module)
        yield from (n for n in names if n in FORKS or (pools and n.endswith(POOLS)))
    if isinstance(node, ast.Call):
        yield from _calls(ast.unparse(node.func), node)


def _calls(name: str, node: ast.Call) -> Iterator[str]:
    """``name`` is what is called."""
    named = {str(one.arg): ast.unparse(one.value) for one in node.keywords}
    given = [*map(ast.unparse, node.args), *named.values()]
    if "preexec_fn" in named:
        yield f"{name}(preexec_fn)"
    if "multiprocess" in name and name.endswith(POOLS):
        yield name
    if name.endswith("ProcessPoolExecutor") and "mp_context" not in named:
        yield name
    if name.endswith(("get_context", "set_start_method")) and given != ["'spawn'"]:
        yield f"{name}({', '.join(given)})"
    if any(value != "0" for key, value in named.items() if key.endswith("num_workers")):
        yield f"{name}(num_workers)"


def test_no_process_that_may_have_threads_is_forked(tracked: list[Path], root: Path) -> None:
    found = []
    for path in tracked:
        name = str(path.relative_to(root))
        if path.suffix == ".py" and name != FORK and WORDS.search(code := path.read_text("utf-8")):
            found += [f"{name}: {one}" for one in forks(code)]
    assert found == [], f"fork a process begun for it, with holdfast.plugins.sandbox.fork ({FORK})"


@pytest.mark.parametrize(
    "code",
    [
        "os.fork()",
        "from os import fork",
        "pty.fork()",
        "subprocess.Popen(a, preexec_fn=b)",
        "multiprocessing.Process(target=a)",
        "from torch.multiprocessing import Pool",
        "multiprocessing.get_context('fork')",
        "multiprocessing.get_context()",
        "multiprocessing.set_start_method('fork')",
        "ProcessPoolExecutor(2)",
        "DataLoader(rows, num_workers=2)",
    ],
)
def test_what_forks_is_seen(code: str) -> None:
    assert WORDS.search(code)
    assert forks(code)


def test_what_does_not_fork_is_left_alone() -> None:
    code = """
psutil.Process(1)
subprocess.run(["a"], start_new_session=True)
ProcessPoolExecutor(1, mp_context=get_context("spawn"))
DataLoader(rows, num_workers=0)
"""
    assert forks(code) == []


LEAVES = """
import importlib.util, subprocess, sys
spec = importlib.util.spec_from_file_location("processes", {path!r})
processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(processes)
processes.take_in_orphans()
processes.left_over.__defaults__ = (0.2,)

def pytest_configure(config):
    config.pluginmanager.register(processes)
"""
WAY = {
    "a child": "subprocess.Popen(COMMAND)",
    "an orphan": "subprocess.run([*SHELL, *COMMAND])",
    "a module's": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAY)
def test_a_process_that_outlives_its_test_fails_it_by_name_and_holds_no_pipe(
    tmp_path: Path, way: str
) -> None:
    if way == "an orphan" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux hands orphans on")
    (tmp_path / "conftest.py").write_text(LEAVES.format(path=str(TESTS / "processes.py")))
    (tmp_path / "test_it.py").write_text(
        f"""
import subprocess, sys
import pytest
SHELL = ["sh", "-c", '"$@" &', "sh"]
COMMAND = [sys.executable, "-c", "import time; time.sleep(600)", "left-behind"]

@pytest.fixture(scope="module")
def server():
    if {way == "a module's"}:
        subprocess.Popen(COMMAND)

def test_sound(server):
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_leaves(server):
    {WAY[way] or "pass"}

def test_next(server):
    pass
"""
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # It returns when nobody holds its output any more.
    done = subprocess.run(
        [*command, "-W", "ignore", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "left-behind" in done.stdout
    assert "3 passed, 1 error" in done.stdout
    blamed = "test_next" if way == "a module's" else "test_leaves"
    assert f"ERROR test_it.py::{blamed}" in done.stdout


SIGNALS = """
import runpy, signal, subprocess, sys
runpy.run_path(sys.argv[1])["inherit_no_signals"]()
signal.raise_signal(signal.SIGHUP)
code = "import signal; print(*(int(signal.getsignal(n)) for n in (1, 15)))"
code += "; print(signal.getsignal(2) is signal.default_int_handler)"
print(subprocess.run([sys.executable, "-c", code], stdout=-1, text=True).stdout, end="")
print(subprocess.run(["sh", "-c", "exit 3"]).returncode)
"""


def test_tests_inherit_no_ignored_signal_and_outlive_a_hangup() -> None:
    """As below ``nohup``, or in the background of a shell."""
    ignoring = ["sh", "-c", "trap '' HUP INT TERM CHLD; exec \"$@\"", "sh"]
    done = subprocess.run(
        [*ignoring, sys.executable, "-c", SIGNALS, str(TESTS / "processes.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "0", "True", "3"]
