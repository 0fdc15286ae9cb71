"""The public names stay what they are, whatever has been imported before."""

from __future__ import annotations

import subprocess
import sys

import pytest

import holdfast

# Names of the contract that may come; a package of this name would take the function's place.
PLANNED = {"audit"}
CHANGED = """
import importlib, inspect, pkgutil
import holdfast
for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
    importlib.import_module(module.name)
for name in set(holdfast.__all__) - {"__version__"}:
    found = getattr(holdfast, name)
    assert inspect.isfunction(found) or inspect.isclass(found), (name, found)
    assert found.__name__ == name
print("the same")
"""


def test_no_public_name_is_a_package(packages: set[str]) -> None:
    assert not (set(holdfast.__all__) | PLANNED) & packages


def test_dir_lists_the_public_names_alone() -> None:
    assert dir(holdfast) == sorted(holdfast.__all__)


@pytest.mark.slow
def test_a_public_name_is_the_same_after_every_module_was_imported() -> None:
    """An imported sub-module becomes an attribute of its package: it must cover none of them. In a
    process of its own, so that it leaves no trace here."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHANGED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "the same\n"), done.stderr[-3000:]
