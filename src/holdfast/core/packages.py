"""Packages that an extra installs: what needs one says so before it is imported."""

from __future__ import annotations

import importlib.util

from holdfast.core.errors import MachineError

# Packages with another name than their module.
NAMES = {"PIL": "Pillow"}


def need_packages(what: str, *modules: str, install: str, otherwise: str = "") -> None:
    """Check that ``modules`` are installed. ``install`` is what pip is given, ``otherwise`` says
    after ", or" what else can be done.

    Raises ``MachineError`` that begins with ``what`` and names the missing packages.
    """
    missing = [
        NAMES.get(module, module.replace("_", "-"))
        for module in modules
        if importlib.util.find_spec(module) is None
    ]
    if not missing:
        return
    many = len(missing) > 1
    rule = (
        f"needs the package{'s' if many else ''} {', '.join(missing)}, which "
        f"{'are' if many else 'is'} not installed"
    )
    remedy = f"pip install {install}{f', or {otherwise}.' if otherwise else ''}"
    raise MachineError(what, rule, None, remedy)
