"""Every family of registered things has a contract kit."""

from __future__ import annotations

import importlib
import pkgutil
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


def has_kit(family: str, folder: Path) -> bool:
    """A file named after the family (``test_optimizers.py``), with a test in it."""
    kits = [*folder.glob(f"test_{family.replace(' ', '_')}*.py")]
    return any("def test_" in kit.read_text("utf-8") for kit in kits)


def test_every_registered_family_has_a_contract_kit(root: Path) -> None:
    folder = root / "tests" / "contracts"
    without = sorted(family for family in families() if not has_kit(family, folder))
    assert not without, f"no tests/contracts/test_<family>s.py for: {without}"


def test_no_registry_is_empty() -> None:
    found = families()
    assert [name for name in sorted(found) if not len(FAMILIES[name])] == []
