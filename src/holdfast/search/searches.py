"""Ways to search by name: what ``search: NAME`` of ``holdfast tune`` names, each a procedure."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from holdfast.runs.procedure import Procedure

# Beside the search of settings, which has no name: the module, and what there makes the procedure
# of an engine and its address.
SEARCHES: dict[str, str] = {"capacity": "holdfast.search.capacity.capacity:make"}


def procedure_of(name: str, engine: str, address: str | None) -> Procedure:
    """The procedure of this name."""
    module, _, maker = SEARCHES[name].partition(":")
    make: Callable[[str, str | None], Procedure] = getattr(import_module(module), maker)
    return make(engine, address)
