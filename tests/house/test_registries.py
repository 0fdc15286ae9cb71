"""Every family of registered things has a contract kit."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path

import holdfast
from holdfast.core.discovery import FAMILIES


def families() -> set[str]:
    """The families of the whole house: a registry exists once its module is imported."""
    for module in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return {name for name, registry in FAMILIES.items() if is_ours(registry)}


def is_ours(registry: object) -> bool:
    """Not a registry that a test made up in the same process."""
    return any(
        thing is registry
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("holdfast.")
        for thing in list(vars(module).values())
    )


def kits(folder: Path) -> dict[str, str]:
    """Family → kit file, by its line ``FAMILY = "…"``."""
    return {
        family: path.name
        for path in sorted(folder.rglob("test_*.py"))
        for family in re.findall(r'^FAMILY = "([^"]+)"', path.read_text("utf-8"), re.MULTILINE)
    }


def test_every_registered_family_has_a_contract_kit(root: Path) -> None:
    without = families() - set(kits(root / "tests" / "contracts"))
    assert not without, f'no tests/contracts/test_*.py with FAMILY = "…" for: {sorted(without)}'


def test_every_kit_is_for_a_family_that_exists(root: Path) -> None:
    strays = set(kits(root / "tests" / "contracts")) - families()
    assert not strays, f"kits for families that do not exist: {sorted(strays)}"


def test_no_registry_is_empty() -> None:
    found = families()
    assert [name for name in sorted(found) if not len(FAMILIES[name])] == []
