"""Code in a user's own files: a metric, an augmentation or a policy, given as ``path.py:name``."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from holdfast.core.errors import RecipeError


def import_file(setting: str, path: Path, remedy: str) -> ModuleType:
    """The module in the file that a ``setting`` names; ``remedy`` says how to name one.

    Raises ``RecipeError`` if there is no such file, or it fails on import.
    """
    if not path.is_file():
        raise RecipeError(setting, "names a file that does not exist", str(path), remedy)
    # Under a separate name and not in ``sys.modules``: a user's file may have that of a library.
    found = importlib.util.spec_from_file_location(f"holdfast_user_{path.stem}", path)
    if found is None or found.loader is None:
        raise RecipeError(setting, "names a file that Python cannot import", str(path))
    module = importlib.util.module_from_spec(found)
    with import_errors(setting, str(path)):
        found.loader.exec_module(module)
    return module


@contextlib.contextmanager
def import_errors(setting: str, name: str) -> Iterator[None]:
    """Turns any error into a ``RecipeError`` about the code that a ``setting`` names."""
    try:
        yield
    except Exception as error:
        rule = f"names code that fails on import with {type(error).__name__}: {error}"
        remedy = "Import it in a Python shell to see the line."
        raise RecipeError(setting, rule, name, remedy) from error


def member_of(
    setting: str, module: ModuleType, place: str, name: str, what: Literal["function", "class"]
) -> Any:
    """The function or class ``name`` of a ``module`` from ``place``. Raises ``RecipeError`` if it
    is none, with the names of those in the module."""

    def fits(member: Any) -> bool:
        return callable(member) and (what == "function" or isinstance(member, type))

    member = getattr(module, name, None)
    if fits(member):
        return member
    known = sorted(key for key, one in vars(module).items() if fits(one) and key[0] != "_")
    # Without what it imports, unless there is nothing else.
    own = [key for key in known if vars(module)[key].__module__ == module.__name__]
    known = own or known
    remedy = f"It defines: {', '.join(known[:20]) or 'none'}."
    raise RecipeError(setting, f"names a {what} that {place} does not define", name, remedy)
