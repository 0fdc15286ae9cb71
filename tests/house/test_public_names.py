"""The public names stay what they are, whatever has been imported before."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import warnings

import holdfast

# Names of the contract that may come; a room of this name would take the function's place.
PLANNED = {"audit"}


def test_no_public_name_is_a_room(rooms: set[str]) -> None:
    assert not (set(holdfast.__all__) | PLANNED) & rooms


def test_dir_lists_the_public_names_alone() -> None:
    assert dir(holdfast) == sorted(holdfast.__all__)


def test_a_public_name_is_the_same_after_every_module_was_imported() -> None:
    """An imported sub-module becomes an attribute of its package: it must cover none of them. In a
    fork, which needs to load only what nobody has loaded yet, and leaves no trace here."""
    back, forth = os.pipe()
    child = os.fork()
    if child == 0:
        said = "the same"
        try:
            changed_names()
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(forth, said.encode())
            os._exit(0)
    os.close(forth)
    with os.fdopen(back, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    assert said == "the same"


def changed_names() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
            importlib.import_module(module.name)
    for name in set(holdfast.__all__) - {"__version__"}:
        found = getattr(holdfast, name)
        assert inspect.isfunction(found) or inspect.isclass(found), (name, found)
        assert found.__name__ == name
