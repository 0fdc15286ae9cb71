"""What to run after each change in one package: ``make quick`` and ``make quick PACKAGE=stats``.

Form, types, the import contract, the house's tests and the tests of the package, until the first
failure, within ``BUDGET`` seconds on two cores. A package whose tests have outgrown that fails here
with the slowest of them named, so that somebody makes them smaller instead of waiting. Without a
package it takes those in which git sees changes. ``make check`` stays the one that counts.

    python scripts/quick.py            # the packages that were changed
    python scripts/quick.py stats data
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TESTS = ROOT / "src" / "holdfast", ROOT / "tests"
BUDGET = 60
# Packages whose tests do not lie in a folder of their name, or not only there.
ELSEWHERE = {
    "api": ("tests/journeys/test_python_door.py",),
    "contract": ("tests/pipeline/test_folder.py",),
    "demo": ("tests/journeys/test_demo.py",),
    "estimator": ("tests/integrations/test_estimator.py",),
    "fits": ("tests/pipeline/test_additions.py",),
    "plan": ("tests/pipeline/test_defaults.py",),
    "plugins": (
        "tests/dashboard",
        "tests/episodes",
        "tests/integrations/guard",
        "tests/integrations/test_logs.py",
        "tests/service",
        "tests/store",
        "tests/tasks/test_execution.py",
        "tests/tasks/test_fence.py",
        "tests/update",
    ),
    "prepare": ("tests/pipeline/test_prepared.py",),
    "recipe": ("tests/recipe", "tests/recipes/test_check.py"),
    "runs": ("tests/pipeline/test_predictor.py",),
}
# Kits that hold a family of the package to its promises.
KITS = {
    "analyses": ("tests/contracts/test_analyses.py", "tests/report/test_reliance.py"),
    "tasks": ("tests/contracts/test_kinds.py", "tests/contracts/test_predictors.py"),
    "quality": ("tests/contracts/test_audit_checks.py",),
    "data": ("tests/contracts/test_readers.py",),
    "plugins": ("tests/contracts/test_log_readers.py",),
    "methods": (
        "tests/contracts/test_methods.py",
        "tests/contracts/test_optimizers.py",
        "tests/contracts/test_schedules.py",
    ),
    "monitor": ("tests/contracts/test_detectors.py",),
    "metrics": ("tests/contracts/test_metrics.py", "tests/contracts/test_text_metrics.py"),
}
SLOWEST = re.compile(r"^ *([\d.]+)s (?:call|setup|teardown) +(\S.*)$", re.MULTILINE)

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def packages() -> tuple[str, ...]:
    """Every package: a folder with code or data, or a module at the top."""
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name[0] != "_"}
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "_version", "__main__"}
    return tuple(sorted(folders | modules))


def tests_of(package: str) -> tuple[str, ...]:
    """Files and folders, from the project's folder, that hold ``package``'s tests."""
    return (*ELSEWHERE.get(package, (f"tests/{package}",)), *KITS.get(package, ()))


def changed(run: Run) -> tuple[str, ...]:
    """The packages in which git sees changes; those of the last commit where there are none."""
    paths = _lines(run(["git", "status", "--porcelain", "--untracked-files=all"]), cut=3)
    if not paths:
        paths = _lines(run(["git", "show", "--name-only", "--format=", "HEAD"]))
    known = set(packages())
    return tuple(sorted({package for path in paths if (package := _package(path)) in known}))


def _lines(done: subprocess.CompletedProcess[str], cut: int = 0) -> list[str]:
    # A renamed file is listed with both of its names.
    return [line[cut:].split(" -> ")[-1] for line in done.stdout.splitlines() if line]


def _package(path: str) -> str:
    parts = path.split("/")
    inside = parts[2:] if parts[:2] == ["src", "holdfast"] else parts[1:]
    return inside[0].removesuffix(".py") if inside else ""


def commands(chosen: Sequence[str], jobs: int) -> list[list[str]]:
    """What is run, cheapest first."""
    tests = [path for package in chosen for path in tests_of(package)]
    bin_ = Path(sys.executable).parent
    return [
        [str(bin_ / "ruff"), "check", "--quiet", "."],
        [str(bin_ / "ruff"), "format", "--quiet", "--check", "."],
        [str(bin_ / "lint-imports")],
        [str(bin_ / "mypy"), "--no-error-summary"],
        [
            *(str(bin_ / "pytest"), "-x", "-q", "--no-header", "-n", str(jobs)),
            *("--dist", "worksteal", "--durations=5", "tests/house", *dict.fromkeys(tests)),
        ],
    ]


def check(
    chosen: Sequence[str], jobs: int, run: Run, clock: Callable[[], float] = time.monotonic
) -> int:
    """Run it all, stop at the first failure; 1 where something fails or ``BUDGET`` is passed."""
    start, said = clock(), ""
    for command in commands(chosen, jobs):
        done = run(command)
        said = done.stdout
        if done.returncode:
            print(said + done.stderr)
            return 1
    seconds, names = clock() - start, ", ".join(chosen) or "the house alone"
    print(f"{said.strip().splitlines()[-1] if said.strip() else ''}\n{names}: {seconds:.0f} s")
    if seconds <= BUDGET:
        return 0
    slow = "\n".join(f"  {took} s  {name}" for took, name in SLOWEST.findall(said))
    print(f"That is above the {BUDGET} s that quick may take. The slowest tests:\n{slow}")
    return 1


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", help="by default those that git sees changes in")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    unknown = [package for package in given.packages if package not in packages()]
    if unknown:
        parser.error(
            f"no package is called {', '.join(unknown)}; there are {', '.join(packages())}"
        )
    return check(given.packages or changed(_run), given.jobs, _run)


if __name__ == "__main__":
    sys.exit(main())
